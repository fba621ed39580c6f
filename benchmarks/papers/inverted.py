"""A plain inverted index, one thread: term at a time, R best by histogram."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_BINS = 4_096


class InvertedIndex:
    """Posting lists of row numbers and weights.

    Args:
        rows: float32 CSR (n, D), non-negative rows of at most unit length.
    """

    def __init__(self, rows: sparse.csr_matrix) -> None:
        lists = rows.tocsc()
        self._starts = lists.indptr.astype(np.int64)
        self._ids = lists.indices.astype(np.uint32)  # unsigned: numba then checks for no negative positions
        self._weights = lists.data.astype(np.float32)
        self._scores = np.zeros(rows.shape[0], np.float32)
        self.bytes_per_row = (self._ids.nbytes + self._weights.nbytes) / rows.shape[0]

    def search(self, dims: I64, weights: F32, count: int, *, ordered: bool = False) -> I64:
        """The ``count`` rows with the largest inner products, fewer if fewer match.

        Args:
            dims: int64 (k,): the query's dimensions.
            weights: float32 (k,): their weights, of at most unit length.
            count: Number of rows to return.
            ordered: True to return the best first.
        """
        ids, scores = _scan(self._starts, self._ids, self._weights, dims, weights, self._scores, count)
        if len(ids) > count:
            kept = np.argpartition(scores, len(ids) - count)[-count:]
            ids, scores = ids[kept], scores[kept]
        return ids[np.argsort(-scores, kind="stable")] if ordered else ids


@numba.njit(fastmath=True)
def _scan(
    starts: I64, ids: npt.NDArray[np.uint32], weights: F32, dims: I64, query: F32, scores: F32, count: int
) -> tuple[I64, F32]:
    scores[:] = 0
    for term in range(len(dims)):
        weight = query[term]
        for place in range(starts[dims[term]], starts[dims[term] + 1]):
            scores[ids[place]] += weight * weights[place]
    # the best are in the bins from `lowest` up: one pass to count, one to collect
    bins = np.zeros(_BINS + 2, np.int64)
    for score in scores:
        bins[int(score * np.float32(_BINS))] += 1
    lowest, there = _BINS + 1, bins[_BINS + 1]
    while there < count and lowest > 0:
        lowest -= 1
        there += bins[lowest]
    found = np.empty(there, np.int64)
    values = np.empty(there, np.float32)
    size = 0
    for row in range(len(scores)):
        score = scores[row]
        if score > 0 and int(score * np.float32(_BINS)) >= lowest:
            found[size], values[size] = row, score
            size += 1
    return found[:size], values[:size]
