"""Posting lists in order of impact, the content of an inverted index.

A list holds row numbers only, strongest first, cut into levels of equal impact; a search reads a list from its
beginning and leaves it where too little is to be gained (Anh & Moffat, Pruned Query Evaluation Using Pre-Computed
Impacts, SIGIR 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.kernels.topk import F32, I64, U16, U32, Mask

POSTING_BLOCK = 1 << 16  # rows of a block: their numbers take 16 bits
MAX_LEVELS = 8  # twice as many find no more candidates
POSTINGS_PER_LEVEL = 32  # on average, at least; shorter runs cost more to begin than to read
SEGMENT_ARRAYS = ("ids", "weights", "starts", "bounds", "impacts")
STEEPEST = 4  # a level's impact is at most this multiple of the next level's


@dataclass(frozen=True)
class Segment:
    """The posting lists of rows that were added together, or merged.

    The rows are in blocks of 65,536. Each block has one list per dimension, one after the other, each in L levels::

        ids     |<- block 0 ------------------------------------------>|<- block 1 ...
                |<- dim 0: level 0 | 1 | ... | L-1 ->|<- dim 1: 0 | ...
        starts  ^ 0                                                    ^ 1
        bounds  ^ 0                ^ 1 ^ 2           ^ L
        impacts   falling from level to level ->

    Args:
        first: Position of the first row in the index.
        rows: Number of rows.
        levels: L.
        ids: uint16 (p,): row numbers within their block; within a level they rise.
        weights: float32 (p,): the postings' weights, read where nothing is re-ranked and for merging.
        starts: int64 (blocks + 1,): where the blocks' postings begin and end.
        bounds: uint32 (blocks, dim * L + 1): where the levels begin within their block, and where the last ends.
        impacts: float32 (blocks, dim * L): the levels' impacts, falling along a list.
    """

    first: int
    rows: int
    levels: int
    ids: U16
    weights: F32
    starts: I64
    bounds: U32
    impacts: F32

    @property
    def peaks(self) -> F32:
        """float32 (dim,): the largest impact in each dimension."""
        peaks: F32 = self.impacts[:, :: self.levels].max(axis=0)
        return peaks

    @cached_property
    def by_impact(self) -> tuple[U16, I64, U32, F32, int, int, int]:
        """The arguments of `collect` that describe a segment."""
        return self.ids, self.starts, self.bounds, self.impacts, self.levels, self.first, self.rows

    @cached_property
    def by_weight(self) -> tuple[U16, I64, U32, F32, int, int, int]:
        """The arguments of `collect_by_weights` that describe a segment."""
        return self.ids, self.starts, self.bounds, self.weights, self.levels, self.first, self.rows

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in SEGMENT_ARRAYS}


def build_segment(rows: sp.csr_array, first: int) -> Segment:
    """The posting lists of rows.

    Args:
        rows: float32 CSR (n, dim), n > 0, without duplicates, weights over 0.
        first: Position of the first row.
    """
    n, dim = rows.shape
    blocks = -(-n // POSTING_BLOCK)
    levels = int(np.clip(rows.nnz // (blocks * dim * POSTINGS_PER_LEVEL), 1, MAX_LEVELS))
    cuts = [int(rows.indptr[min(n, block * POSTING_BLOCK)]) for block in range(blocks + 1)]
    ids, weights = np.empty(rows.nnz, np.uint16), np.empty(rows.nnz, np.float32)
    bounds = np.empty((blocks, dim * levels + 1), np.uint32)
    impacts = np.empty((blocks, dim * levels), np.float32)
    for block, (start, end) in enumerate(pairwise(cuts)):
        counts = np.diff(rows.indptr[block * POSTING_BLOCK : min(n, (block + 1) * POSTING_BLOCK) + 1])
        numbers = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
        dims, values = rows.indices[start:end], np.asarray(rows.data[start:end], np.float32)
        # one sort: by dimension, then the heaviest (16 bits of its float32 say which), then by row
        strength = np.uint64(0xFFFF) - (values.view(np.uint32) >> 15).astype(np.uint64)
        order = np.argsort(dims.astype(np.uint64) << 32 | strength << 16 | numbers)
        ids[start:end], weights[start:end] = numbers[order], values[order]
        lengths = np.bincount(dims, minlength=dim)
        bounds[block] = _cut_levels(lengths, levels)
        impacts[block] = _impacts(weights[start:end], bounds[block], levels)
    return Segment(first, n, levels, ids, weights, np.array(cuts, np.int64), bounds, impacts)


def _cut_levels(lengths: npt.NDArray[np.int64], levels: int) -> I64:
    """Compute the bounds of levels: level l begins at (l / L)^2 of its list.

    The first levels are short because few weights are large.
    """
    ends = np.cumsum(lengths)
    within = -(-lengths[:, None] * np.arange(levels) ** 2 // levels**2)
    return np.append((ends - lengths)[:, None] + within, ends[-1])


def _impacts(weights: F32, bounds: U32, levels: int) -> F32:
    """The mean weight of each level, an empty one's that of the next.

    A level never counts more than `STEEPEST` times the next: sums are counted in steps of the largest there could be,
    and one row with a huge weight would make the steps too large to distinguish the others.
    """
    lengths = np.diff(bounds)
    filled = lengths > 0
    means = np.zeros(len(lengths), np.float64)
    if filled.any():
        means[filled] = np.add.reduceat(weights, bounds[:-1][filled].astype(np.int64), dtype=np.float64)
        means[filled] /= lengths[filled]
    by_list = means.reshape(-1, levels)
    for level in range(levels - 2, -1, -1):
        one, following = by_list[:, level], by_list[:, level + 1]
        steepest = np.where(following > 0, STEEPEST * following, one)
        by_list[:, level] = np.where(one > 0, np.clip(one, following, steepest), following)
    return means.astype(np.float32)


def merge_segments(segments: Sequence[Segment], dim: int, alive: Mask) -> Segment:
    """Merge neighbouring segments and drop the postings of deleted rows.

    Every row keeps its position.

    Args:
        segments: Segments whose rows follow one another.
        dim: Number of dimensions.
        alive: bool (positions,): of all rows of the index.
    """
    first = segments[0].first
    n = sum(segment.rows for segment in segments)
    rows, dims, weights = [], [], []
    for segment in segments:
        for block, start in enumerate(segment.starts[:-1]):
            end = segment.starts[block + 1]
            lists = segment.bounds[block, :: segment.levels].astype(np.int64)
            rows.append(segment.ids[start:end].astype(np.int64) + (segment.first - first + block * POSTING_BLOCK))
            dims.append(np.repeat(np.arange(dim), np.diff(lists)))
            weights.append(segment.weights[start:end])
    row, column, weight = (np.concatenate(parts) for parts in (rows, dims, weights))
    kept = alive[first + row]
    merged = sp.csr_array((weight[kept], (row[kept], column[kept])), shape=(n, dim))
    return build_segment(merged, first)
