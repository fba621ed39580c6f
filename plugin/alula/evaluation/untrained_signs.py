"""Recall by sign bits of an untrained projection.

It estimates a binary index before any encoder exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alula.evaluation.ground_truth import Queries
from alula.evaluation.recall import RecallEstimate, estimate_recall
from alula.evaluation.row_source import F32
from alula.kernels import top_k


def sign_recall(
    rows: F32, queries: Queries, counts: Sequence[int], *, bits: int, metric: str, seed: int = 0
) -> list[RecallEstimate]:
    """Recall of exact re-ranking of the nearest rows by Hamming distance.

    The bits are the signs of the centred vectors (for COSINE of unit vectors) on their principal axes, rotated at
    random so that each bit carries as much as another. Several rotations give more bits than axes.

    Args:
        rows: float32 (n, d).
        queries: The queries, whose true neighbours are numbers of rows.
        counts: Numbers of candidates, ascending, each at most n.
        bits: Sign bits of a row.
        metric: ``COSINE``, ``IP`` or ``L2``.
        seed: Seed of the rotations.

    Returns:
        For each count the recall among that many candidates.
    """
    vectors = queries.vectors
    if metric == "COSINE":
        rows, vectors = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (rows, vectors))
    mean = rows.mean(axis=0)
    centred = rows - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :bits]
    rng, width = np.random.default_rng(seed), axes.shape[1]
    rotations = [np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(-(-bits // width))]
    projection = (axes @ np.concatenate(rotations, axis=1)[:, :bits]).astype(np.float32)
    row_signs = np.where(centred @ projection > 0, np.float32(1), np.float32(-1))
    query_signs = np.where((vectors - mean) @ projection > 0, np.float32(1), np.float32(-1))
    # the number of equal signs minus that of different ones: the order of Hamming distances, backwards
    best = [top_k(agreement, counts[-1]).tolist() for agreement in query_signs @ row_signs.T]
    return [estimate_recall([ids[:count] for ids in best], queries.ground_truth, queries.ties) for count in counts]
