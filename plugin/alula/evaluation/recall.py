"""Exact nearest neighbours by brute force, and recall against them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.kernels import top_k

F32 = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


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
    if metric == "COSINE":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-30))
    # the query's own norm changes no order; L2 needs the rows'
    offsets = np.square(rows).sum(axis=1) / 2 if metric == "L2" else np.zeros(1, np.float32)
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ rows.T - offsets
        for i, row in enumerate(scores, start):
            found[i] = top_k(row, k)
    return found


def recall(found: Sequence[Sequence[Any]], truth: npt.NDArray[Any]) -> float:
    """Mean share of each query's true neighbours that were found.

    Args:
        found: For each query, the ids found.
        truth: (q, k): the true ids.
    """
    shares = [len(set(ids) & set(true.tolist())) / len(true) for ids, true in zip(found, truth, strict=True)]
    return float(np.mean(shares))
