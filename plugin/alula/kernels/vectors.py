"""The rows' own vectors, held for exact scores."""

from __future__ import annotations

import numpy as np

from alula.kernels.exact import better_is_larger, exact_scores, top_k
from alula.kernels.found import F32, I64


class Vectors:
    """Vectors by position, and the best of some of them by their exact scores.

    Args:
        dim: Their dimension d.
        metric: ``COSINE``, ``IP`` or ``L2``.
    """

    def __init__(self, dim: int, metric: str) -> None:
        self.metric = metric
        self.array: F32 = np.empty((0, dim), np.float32)

    def __len__(self) -> int:
        return len(self.array)

    def add(self, vectors: F32) -> None:
        """Add vectors (m, d) behind those there are."""
        self.array = np.concatenate([self.array, vectors])

    def best(self, query: F32, positions: I64, k: int) -> tuple[I64, F32]:
        """The k best of the rows at some positions, best first.

        Args:
            query: float32 (d,).
            positions: int64 (c,).
            k: How many.

        Returns:
            Positions int64 (min(k, c),) and exact scores float32 (min(k, c),), as Milvus reports them.
        """
        scores = exact_scores(query, self.array[positions], self.metric)
        order = top_k(scores, k, larger=better_is_larger(self.metric))
        return positions[order], scores[order]
