"""Exact scores in a user's metric, as Milvus reports them, and top-k by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def exact_scores(query: F32, vectors: F32, metric: str) -> F32:
    """Scores of vectors against one query, as Milvus reports them.

    Args:
        query: float32 (d,).
        vectors: float32 (n, d).
        metric: ``COSINE`` (cosine similarity), ``IP`` (inner product) or ``L2`` (*squared* Euclidean distance).

    Returns:
        float32 (n,). The cosine of a zero vector is 0.
    """
    if metric == "L2":
        difference = vectors - query
        distances: F32 = np.einsum("ij,ij->i", difference, difference)
        return distances
    products: F32 = vectors @ query
    if metric == "IP":
        return products
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines: F32 = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return cosines


def top_k(scores: npt.NDArray[Any], k: int, *, larger: bool = True) -> npt.NDArray[np.intp]:
    """Positions of the k best scores, best first; ties keep their order."""
    keys = -scores if larger else scores
    if k < len(keys):
        # the k-th key splits the candidates; every tie with it is kept until the stable sort
        kept = np.flatnonzero(keys <= np.partition(keys, k - 1)[k - 1])
        return kept[np.argsort(keys[kept], kind="stable")][:k]
    return np.argsort(keys, kind="stable")
