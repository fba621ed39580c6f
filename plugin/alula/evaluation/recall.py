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

_ROUNDING = 1e-6  # scores within this share of the best score count as equal
_MAX_TIES = 10_000  # per query


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
    """The k exact nearest rows of each query, found in one pass over blocks.

    Further rows as near as the k-th, the ties, are kept too, 10,000 per query at most: they count as true neighbours.

    Args:
        queries: float32 (q, d).
        k: Neighbours per query.
        metric: ``COSINE``, ``IP`` or ``L2``.
    """

    def __init__(self, queries: F32, k: int, metric: str) -> None:
        self._queries, self._k, self._metric = queries, k, metric
        self._nearest = [Nearest([], np.empty(0, np.float32)) for _ in queries]

    def see(self, keys: Sequence[Any], rows: F32) -> None:
        """Add a block of rows.

        Args:
            keys: The n keys.
            rows: float32 (n, d).
        """
        rows, offsets = _comparable(rows, self._metric)
        for i, seen in enumerate(self._queries @ rows.T - offsets):
            before = self._nearest[i]
            scores = np.concatenate([before.scores, seen])
            order = top_k(scores, self._k)
            count = _with_ties(scores, scores[order])
            if count > len(order):
                order = top_k(scores, min(count, self._k + _MAX_TIES))
            known = len(before.keys)
            self._nearest[i] = Nearest([before.keys[j] if j < known else keys[j - known] for j in order], scores[order])

    @property
    def nearest(self) -> list[Nearest]:
        """The nearest rows of each query with ties; fewer if the rows are fewer."""
        return self._nearest

    @property
    def keys(self) -> list[list[Any]]:
        """The keys of the k nearest rows of each query, nearest first."""
        return [nearest.keys[: self._k] for nearest in self._nearest]

    @property
    def ties(self) -> list[list[Any]]:
        """The keys of the further rows as near as the k-th, of each query."""
        return [nearest.keys[self._k :] for nearest in self._nearest]


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of one query, nearest first.

    Args:
        keys: The n keys.
        scores: float32 (n,), descending.
    """

    keys: list[Any]
    scores: F32

    def without(self, key: Any) -> Nearest:
        """A copy without one row."""
        kept = [i for i, one in enumerate(self.keys) if one != key]
        return Nearest([self.keys[i] for i in kept], self.scores[kept])

    def first(self, k: int) -> Nearest:
        """The k nearest with their ties."""
        count = _with_ties(self.scores, self.scores[:k])
        return Nearest(self.keys[:count], self.scores[:count])


def _with_ties(scores: F32, best: F32) -> int:
    """Count the scores that equal or exceed the last of the best, up to rounding."""
    if not len(best):
        return 0
    count = np.count_nonzero(scores >= best[-1] - _ROUNDING * np.abs(best).max())
    return max(int(count), len(best))  # for infinite scores the comparison is with NaN


def _comparable(rows: F32, metric: str) -> tuple[F32, F32]:
    """Rows and offsets such that ``query @ rows.T - offsets`` ranks the rows.

    The norm of the query changes no order and is left out; L2 needs the norms of the rows.
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
    """The mean recall of a sample of queries, with its 95 % confidence interval.

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
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


Z = 1.96  # 95 % confidence


def estimate_recall(
    found: Sequence[Sequence[Any]], truth: Sequence[Sequence[Any]], ties: Sequence[Sequence[Any]] = ()
) -> RecallEstimate:
    """Recall with Wilson's score interval (JASA 22, 1927, p. 209).

    Each neighbour of a query is a trial, but the trials of one query are correlated. The interval therefore uses the
    effective number of independent trials (Dean and Pagano, Journal of Survey Statistics and Methodology 3, 2015,
    p. 484): p (1 - p) / (variance of the mean), at least one and at most k per query. Without any variance (every query
    found everything) it is k per query.

    Args:
        found: For each query, the ids found.
        truth: For each query, the true ids, the same number for each.
        ties: For each query, further ids as near as the last true one, which count as true too.
    """
    n, k = len(truth), len(truth[0])
    good = [{*true, *others} for true, others in zip(truth, ties or [()] * n, strict=True)]
    shares = np.array([min(k, len(these.intersection(ids))) / k for ids, these in zip(found, good, strict=True)])
    p = float(shares.mean())
    variance = float(shares.var(ddof=1)) / n if n > 1 else 0.0
    trials = min(max(p * (1 - p) / variance, n), n * k) if variance > 0 else n * k
    centre = (p + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z / (1 + Z * Z / trials) * math.sqrt(p * (1 - p) / trials + Z * Z / (4 * trials * trials))
    # rounding can move an end past the mean
    return RecallEstimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)
