"""Numpy loops over sparse rows; `loops_numba` documents the same functions.

Results are equal bit for bit: integers are exact, and sums of float32 and float64 are added up in the same order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from alula.kernels import constants
from alula.kernels.constants import FLOAT_LANES
from alula.kernels.inverted_index.postings import POSTING_BLOCK
from alula.kernels.topk import F32, I64, U8, U16, U32, Mask

ROUNDING_MARGIN = np.float32(constants.ROUNDING_MARGIN)
EPS = np.float32(constants.EPS)
Keys = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]


def collect(
    ids: U16,
    starts: I64,
    bounds: U32,
    impacts: F32,
    levels: int,
    first: int,
    rows: int,
    dims: I64,
    weights: F32,
    peaks: F32,
    cut: float,
    valid: Mask,
    count: int,
    sums: U16,
    maxima: U16,
    found: U32,
    keys: U16,
    size: int,
) -> int:
    """See `loops_numba.collect`."""
    del maxima
    largest = weights.astype(np.float64) * peaks[dims]
    total = _in_turn(largest)
    if total == 0.0:
        return size
    scale = (65535.0 - len(dims)) * (1.0 - 2.0**-40) / total
    least = cut * largest.max()
    for block in range(len(starts) - 1):
        postings = ids[starts[block] : starts[block + 1]]
        for dim, weight in zip(dims.tolist(), weights.astype(np.float64), strict=True):
            begin = dim * levels
            contributions = weight * impacts[block, begin : begin + levels]
            under = np.flatnonzero(contributions < least)
            read = int(under[0]) if len(under) else levels
            ends = bounds[block, begin : begin + read + 1].astype(np.int64)
            added = (1.0 + contributions[:read] * scale).astype(np.uint16)
            # no row is twice in one list
            sums[postings[ends[0] : ends[-1]]] += np.repeat(added, np.diff(ends))
        size = _take_best(
            sums, first + block * POSTING_BLOCK, rows - block * POSTING_BLOCK, valid, count, found, keys, size
        )
    return size


def collect_by_weights(
    ids: U16,
    starts: I64,
    bounds: U32,
    stored: F32,
    levels: int,
    first: int,
    rows: int,
    dims: I64,
    weights: F32,
    valid: Mask,
    count: int,
    sums: F32,
    maxima: U32,
    found: U32,
    keys: U32,
    size: int,
) -> int:
    """See `loops_numba.collect_by_weights`."""
    del maxima
    for block in range(len(starts) - 1):
        for dim, weight in zip(dims.tolist(), weights, strict=True):
            start, end = (int(starts[block]) + int(bounds[block, at * levels]) for at in (dim, dim + 1))
            sums[ids[start:end]] += weight * stored[start:end]
        bits = sums.view(np.uint32)
        size = _take_best(
            bits, first + block * POSTING_BLOCK, rows - block * POSTING_BLOCK, valid, count, found, keys, size
        )
    return size


def _take_best(scores: Keys, first: int, rows: int, valid: Mask, count: int, found: U32, keys: Keys, size: int) -> int:
    scores = scores[: min(rows, POSTING_BLOCK)]
    if len(valid):
        scores[~valid[first : first + len(scores)]] = 0
    reached = np.flatnonzero(scores)
    best = np.concatenate([found[:size], (reached + first).astype(np.uint32)])
    values = np.concatenate([keys[:size], scores[reached]])
    if len(best) > count:
        smallest = np.partition(values, len(best) - count)[len(best) - count]
        over = values > smallest
        equal = np.flatnonzero(values == smallest)[: count - int(over.sum())]
        kept = np.sort(np.concatenate([np.flatnonzero(over), equal]))
        best, values = best[kept], values[kept]
    found[: len(best)], keys[: len(best)] = best, values
    scores[:] = 0
    return len(best)


def rank(
    rows: U32,
    vectors: F32,
    codes: U8,
    query: F32,
    centred: F32,
    metric: int,
    positions: I64,
    scores: F32,
) -> int:
    """See `loops_numba.rank`."""
    k = len(positions)
    if len(rows) > k:
        rows = rows[_may_be_best(codes[rows], centred, k)]
    candidates = vectors[rows]
    if metric == 2:
        difference = query - candidates
        exact = _sums(difference * difference)
    else:
        exact = _sums(query * candidates)
    if metric == 0:
        lengths = np.sqrt(_sums((query * query)[None])) * np.sqrt(_sums(candidates * candidates))
        exact = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    bits = _in_order(exact)
    order = np.argsort(bits if metric == 2 else ~bits, kind="stable")[:k]
    positions[: len(order)], scores[: len(order)] = rows[order], exact[order]
    return len(order)


def _may_be_best(codes: U8, centred: F32, k: int) -> npt.NDArray[np.intp]:
    query = np.zeros(codes.shape[1], np.int8)
    step, total = _quantise(centred, query)
    by_size = ROUNDING_MARGIN * np.sqrt(_sums((centred * centred)[None])[0])
    by_norm = ROUNDING_MARGIN * step
    size, offset, norm = codes[:, -12:].view(np.float32).T
    products = (_integer_products(codes, query) - total).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        estimate = products * (size * step) - offset
        margin = by_size * size + by_norm * norm
        low, upper = estimate - margin, estimate + margin
    lower = _in_order(np.where(np.isnan(low), np.float32(-np.inf), low))
    smallest = np.partition(lower, len(lower) - k)[len(lower) - k : len(lower) - k + 1]
    bound = np.where(smallest >> 31, smallest ^ np.uint32(0x80000000), ~smallest).view(np.float32)
    return np.flatnonzero(~(upper < bound))


def _quantise(vector: F32, codes: I8) -> tuple[np.float32, int]:
    step = np.abs(vector).max(initial=0) / np.float32(127)
    if step > 0:
        codes[: len(vector)] = np.floor(vector / step + np.float32(0.5))
    return step, 128 * int(codes.sum(dtype=np.int64))


def _integer_products(rows: U8, vector: I8) -> I32:
    """Exact inner products of integers, computed in float64 for speed."""
    products: I32 = (rows.astype(np.float64) @ vector.astype(np.float64)).astype(np.int32)
    return products


def _in_order(values: F32) -> U32:
    bits = values.view(np.uint32)
    ordered: U32 = bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return ordered


def _in_turn(values: npt.NDArray[np.float64]) -> float:
    """Sum from first to last; numpy's own sum adds in pairs."""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0


def _sums(terms: F32) -> F32:
    """Sum float32 rows in the order of `loops_numba._product`: lanes, halves, rest."""
    n, width = terms.shape
    lanes = np.zeros((n, FLOAT_LANES), np.float32)
    whole = width // FLOAT_LANES * FLOAT_LANES
    for start in range(0, whole, FLOAT_LANES):
        lanes += terms[:, start : start + FLOAT_LANES]
    half = FLOAT_LANES // 2
    while half:
        lanes[:, :half] += lanes[:, half : 2 * half]
        half //= 2
    total = lanes[:, 0]
    for place in range(whole, width):
        total += terms[:, place]
    return total


def encode(
    query: F32,
    head: U8,
    sizes: F32,
    basis: U8,
    basis_sizes: F32,
    short: U8,
    short_sizes: F32,
    bias: F32,
    scale: float,
    floor: float,
    nnz: int,
    most: int,
    every: Mask,
    outputs: F32,
    maxima: U32,
    found: U32,
    keys: U32,
    dims: I64,
    weights: F32,
) -> int:
    """See `loops_numba.encode`."""
    del maxima
    largest = np.abs(query).max(initial=EPS)
    scaled = query / largest
    factor = largest / np.float32(scale) if scale > 0 else np.float32(1)
    if not scale > 0:
        factor = factor / max(np.sqrt(_sums((scaled * scaled)[None])[0]), EPS)
    codes = np.zeros(head.shape[1], np.int8)
    step, offset = _quantise(scaled, codes)
    step = step * factor
    if len(basis):
        parts = _multiply(basis, basis_sizes, np.zeros(len(basis), np.float32), codes, offset, step)
        short_codes = np.zeros(short.shape[1], np.int8)
        short_step, short_offset = _quantise(parts, short_codes)
        activations = _multiply(short, short_sizes, bias, short_codes, short_offset, short_step)
    else:
        activations = _multiply(head, sizes, bias, codes, offset, step)
    best = int(np.argmax(activations))
    top = activations[best]
    lowest = activations.min() if len(basis) else np.float32(0)
    outputs[: len(head)] = np.maximum(activations - lowest, np.float32(0))
    size = _take_best(outputs.view(np.uint32), 0, len(head), every, most if len(basis) else nnz, found, keys, 0)
    if len(basis) and size:
        rows = found[:size].copy()
        activations = _multiply(head[rows], sizes[rows], bias[rows], codes, offset, step)
        top = activations.max()
        values = np.zeros(len(head), np.float32)
        values[rows] = np.maximum(activations, np.float32(0))
        size = _take_best(values.view(np.uint32), 0, len(head), every, nnz, found, keys, 0)
    if not size or not top >= np.float32(floor):
        dims[0], weights[0] = best, floor
        return 1
    dims[:size], weights[:size] = found[:size], keys[:size].view(np.float32)
    return size


def _multiply(rows: U8, sizes: F32, bias: F32, codes: I8, offset: int, step: np.float32) -> F32:
    products: F32 = (_integer_products(rows, codes) - offset).astype(np.float32) * (sizes * step) + bias
    return products
