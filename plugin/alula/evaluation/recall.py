"""Exact nearest neighbours by brute force, and recall against them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.kernels import top_k

F32 = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_ROUNDING = 1e-6  # scores that differ by this share of the best are of equally near rows
_MOST_TIES = 10_000  # behind the k nearest of a query


def exact_neighbours(queries: F32, rows: F32, k: int, metric: str, *, block: int = 64) -> Positions:
    """The k exact nearest rows of each query.

    Args:
        queries: float32 (q, d).
        rows: float32 (n, d), n >= k.
        k: Neighbours per query.
        metric: ``COSINE``, ``IP`` or ``L2``.
        block: Queries scored at a time; a block takes 4 * n * block bytes.

    Returns:
        int64 (q, k): row numbers, nearest first.
    """
    rows, offsets = _comparable(rows, metric)
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ rows.T - offsets
        for i, row in enumerate(scores, start):
            found[i] = top_k(row, k)
    return found


class NearestSoFar:
    """The k exact nearest of rows that are seen once, block by block, whatever their number.

    Rows behind them that are as near as the k-th are held too, 10,000 for each query at most: to find one of these is
    as good.

    Args:
        queries: float32 (q, d).
        k: Neighbours per query.
        metric: ``COSINE``, ``IP`` or ``L2``.
    """

    def __init__(self, queries: F32, k: int, metric: str) -> None:
        self._queries, self._k, self._metric = queries, k, metric
        self._nearest = [Nearest([], np.empty(0, np.float32)) for _ in queries]

    def see(self, keys: Sequence[Any], rows: F32) -> None:
        """Take a block of rows into account.

        Args:
            keys: Their n keys.
            rows: float32 (n, d).
        """
        rows, offsets = _comparable(rows, self._metric)
        for i, seen in enumerate(self._queries @ rows.T - offsets):
            before = self._nearest[i]
            scores = np.concatenate([before.scores, seen])
            order = top_k(scores, self._k)
            count = _with_ties(scores, scores[order])
            if count > len(order):
                order = top_k(scores, min(count, self._k + _MOST_TIES))
            held = len(before.keys)
            self._nearest[i] = Nearest([before.keys[j] if j < held else keys[j - held] for j in order], scores[order])

    @property
    def nearest(self) -> list[Nearest]:
        """The nearest rows of each query: k of them and those as near as the k-th, or all there were."""
        return self._nearest

    @property
    def keys(self) -> list[list[Any]]:
        """For each query, the keys of its nearest rows, nearest first: k of them, or all there were."""
        return [nearest.keys[: self._k] for nearest in self._nearest]

    @property
    def ties(self) -> list[list[Any]]:
        """For each query, the keys of the other rows that are as near as the k-th."""
        return [nearest.keys[self._k :] for nearest in self._nearest]


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of one query, nearest first.

    Args:
        keys: Their keys.
        scores: float32 (n,): what they are ordered by, the best largest.
    """

    keys: list[Any]
    scores: F32

    def without(self, key: Any) -> Nearest:
        """The same but for one row."""
        kept = [i for i, one in enumerate(self.keys) if one != key]
        return Nearest([self.keys[i] for i in kept], self.scores[kept])

    def first(self, k: int) -> Nearest:
        """The k nearest, and those behind them that are as near as the k-th."""
        count = _with_ties(self.scores, self.scores[:k])
        return Nearest(self.keys[:count], self.scores[:count])


def _with_ties(scores: F32, best: F32) -> int:
    """How many scores are as good as the last of the best, up to rounding."""
    if not len(best):
        return 0
    count = np.count_nonzero(scores >= best[-1] - _ROUNDING * np.abs(best).max())
    return max(int(count), len(best))  # infinite scores are no more than themselves


def _comparable(rows: F32, metric: str) -> tuple[F32, F32]:
    """Rows and offsets such that ``query @ rows.T - offsets`` orders the rows, the best largest.

    The query's own norm changes no order; L2 needs the rows'.
    """
    if metric == "COSINE":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-30))
    return rows, np.square(rows).sum(axis=1) / 2 if metric == "L2" else np.zeros(1, np.float32)


def recall(found: Sequence[Sequence[Any]], truth: npt.NDArray[Any]) -> float:
    """Mean share of each query's true neighbours that were found.

    Args:
        found: For each query, the ids found.
        truth: (q, k): the true ids.
    """
    shares = [len(set(ids) & set(true.tolist())) / len(true) for ids, true in zip(found, truth, strict=True)]
    return float(np.mean(shares))


@dataclass(frozen=True)
class RecallEstimate:
    """The recall of a sample of queries, and where that of all queries lies with 95 % confidence.

    Args:
        value: Mean over the queries of the share of true neighbours found.
        low: Lower end of the interval.
        high: Upper end.
        queries: The number of queries.
    """

    value: float
    low: float
    high: float
    queries: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, 95 %)"


Z = 1.96  # 95 % confidence


def estimate_recall(
    found: Sequence[Sequence[Any]], truth: Sequence[Sequence[Any]], ties: Sequence[Sequence[Any]] = ()
) -> RecallEstimate:
    """Recall with its confidence interval: Wilson's score interval (JASA 22, 1927, p. 209).

    Each neighbour of a query is a trial, but those of one query are found or missed together. So the interval is made
    for the number of independent trials that would give a mean as sure as the queries' shares do (Dean and Pagano,
    Journal of Survey Statistics and Methodology 3, 2015, p. 484): p (1 - p) / (variance of the mean), at least one and
    at most k for each query. Where the shares do not differ (every query found everything) nothing speaks against k.

    Args:
        found: For each query, the ids found.
        truth: For each query, the true ids, the same number for each.
        ties: For each query, other ids that are as near as the last true one, and as good to find.
    """
    n, k = len(truth), len(truth[0])
    good = [{*true, *others} for true, others in zip(truth, ties or [()] * n, strict=True)]
    shares = np.array([min(k, len(these.intersection(ids))) / k for ids, these in zip(found, good, strict=True)])
    p = float(shares.mean())
    variance = float(shares.var(ddof=1)) / n if n > 1 else 0.0
    trials = min(max(p * (1 - p) / variance, n), n * k) if variance > 0 else n * k
    centre = (p + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z / (1 + Z * Z / trials) * math.sqrt(p * (1 - p) / trials + Z * Z / (4 * trials * trials))
    # the ends of 0 and of 1 are these themselves, but for rounding
    return RecallEstimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)
