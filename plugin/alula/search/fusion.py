"""Rank fusion: reciprocal ranks or weighted scores.

Reciprocal rank fusion (Cormack et al., SIGIR 2009) gives a row the sum of ``1 / (k + rank)`` over the rankings that
hold it. The weighted fusion sums ``weight * score``, each score first brought into [0, 1] by what its metric is:
``(1 + s) / 2`` for COSINE, ``1/2 + atan(s) / pi`` for IP, ``2 atan(s) / pi`` for BM25, and ``1 - 2 atan(s) / pi`` for
distances. All sums are float32, and rows of equal score come by their ids, as in Milvus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from alula.encoders.metric import better_is_larger
from alula.search.ranking import RankedIds

F32 = npt.NDArray[np.float32]

DEFAULT_K = 60.0


@dataclass(frozen=True)
class Fusion:
    """The fusion of the rankings of a hybrid search.

    Args:
        strategy: ``rrf`` or ``weighted``.
        limit: Results per query.
        offset: Results to leave out at the start.
        round_decimal: Decimals of the fused scores; -1 for all.
        k: ``rrf``: what is added to each rank.
        weights: ``weighted``: one per sub-search, each from 0 to 1.
        normalised: ``weighted``: True to map scores to [0, 1] first.
    """

    strategy: Literal["rrf", "weighted"]
    limit: int
    offset: int = 0
    round_decimal: int = -1
    k: float = DEFAULT_K
    weights: tuple[float, ...] = ()
    normalised: bool = True

    def fuse(self, rankings: Sequence[RankedIds], metrics: Sequence[str]) -> RankedIds:
        """The rankings of one query as one.

        Args:
            rankings: One per sub-search, best first, with scores as Milvus reports them.
            metrics: The metric of each sub-search.
        """
        mixed = len({better_is_larger(metric) for metric in metrics}) > 1
        parts = [self._parts(i, ranking.scores, metrics[i], mixed) for i, ranking in enumerate(rankings)]
        kind = object if any(isinstance(id_, str) for ranking in rankings for id_ in ranking.ids[:1]) else np.int64
        ids = np.concatenate([np.asarray(ranking.ids, kind) for ranking in rankings])
        distinct, places = np.unique(ids, return_inverse=True)
        scores = np.zeros(len(distinct), np.float32)
        np.add.at(scores, places, np.concatenate(parts))
        ascending = self.strategy == "weighted" and not (self.normalised or mixed or better_is_larger(metrics[0]))
        order = np.argsort(scores if ascending else -scores, kind="stable")[self.offset : self.offset + self.limit]
        return RankedIds(distinct[order].tolist(), self._rounded(scores[order]), exact=False)

    def _parts(self, i: int, scores: F32, metric: str, mixed: bool) -> F32:
        """The summand of each row of the i-th ranking in its fused score."""
        if self.strategy == "rrf":
            ranks = np.arange(1, len(scores) + 1, dtype=np.float32)
            return cast(F32, np.float32(1) / (np.float32(self.k) + ranks))
        if self.normalised or (mixed and not better_is_larger(metric)):
            scores = normalise(scores, metric)
        return cast(F32, np.float32(self.weights[i]) * scores)

    def _rounded(self, scores: F32) -> F32:
        if self.round_decimal < 0:
            return scores
        factor = 10.0**self.round_decimal
        return (np.floor(scores.astype(np.float64) * factor + 0.5) / factor).astype(np.float32)


def normalise(scores: F32, metric: str) -> F32:
    """Map scores to numbers from 0 to 1, larger is better: float32 (n,)."""
    if metric.upper() == "COSINE":
        return cast(F32, (np.float32(1) + scores) * np.float32(0.5))
    angles = np.arctan(scores.astype(np.float64)).astype(np.float32)
    pi = np.float32(np.pi)
    if metric.upper() == "IP":
        return cast(F32, np.float32(0.5) + angles / pi)
    return cast(F32, 2 * angles / pi if metric.upper() == "BM25" else np.float32(1) - 2 * angles / pi)
