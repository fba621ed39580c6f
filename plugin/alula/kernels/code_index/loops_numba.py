"""The compiled scan over codes; that of `loops_numpy` gives equal results.

A row's estimate is a sum of look-ups (Jegou et al., Product Quantization for Nearest Neighbor Search, TPAMI 2011). The
scan adds up tables rounded to bytes first, as André et al. do (Cache locality is not enough: High-performance nearest
neighbor search with product quantization fast scan, VLDB 2015; Quick ADC, ICMR 2017), and the exact tables only for
rows that may still be among the best, given how far the rounding can be off: the result is that of the exact tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alula.kernels.code_index.byte_tables import (
    HALF_TO_FLOAT,
    LANES,
    add_in_registers,
    bits_float,
    float_bits,
    has_registers,
    reach,
)
from alula.kernels.code_index.layout import CODE_BLOCK, U64, CodeRows, best_keys
from alula.kernels.constants import IP, L2, METRICS
from alula.kernels.jit import compiled
from alula.kernels.simd import lowest_one
from alula.kernels.topk import F32, I64, U8, U16, Mask

EVERY_BLOCK = np.int64(1)  # stride; typed, or numba compiles again for the literal 1
UPPER = np.uint64(32)  # bits of a key below the score
ROUNDING = 16 * 2.0**-24  # of a few operations on float32, generously
FLOOR_SAMPLE = 128  # blocks searched first, to estimate the score of the last wanted row
STRETCH = 32  # blocks of one call of `_pass`


def _add_one_by_one(codes: U8, block: int, tables: U8, levels: int, sums: U16) -> None:
    """Add the look-ups of one block's first levels, one or more: uint16 (CODE_BLOCK,).

    Args:
        codes: uint8 (b, M, CODE_BLOCK).
        block: The block.
        tables: uint8 (t, 256).
        levels: Number of levels.
        sums: The output.
    """
    sums[:] = 0
    level = 0
    # four look-ups to one load and store of a sum
    while level + 4 <= levels:
        for row in range(CODE_BLOCK):
            sums[row] += (
                np.uint16(tables[level, codes[block, level, row]])
                + np.uint16(tables[level + 1, codes[block, level + 1, row]])
                + np.uint16(tables[level + 2, codes[block, level + 2, row]])
                + np.uint16(tables[level + 3, codes[block, level + 3, row]])
            )
        level += 4
    while level < levels:
        for row in range(CODE_BLOCK):
            sums[row] += np.uint16(tables[level, codes[block, level, row]])
        level += 1


_add_block = add_in_registers if has_registers() else compiled(_add_one_by_one)


@compiled
def _rounded(lut: F32, tables: U8) -> tuple[np.float32, float, float]:
    """Round tables to uint8 (t, 256): entry e of a level means ``e * step + lowest``.

    Returns:
        The step; the sum of the levels' lowest entries; the largest error of a sum, infinite if an entry is.
    """
    levels = len(lut)
    lowest = np.empty(levels, np.float32)
    widest, low, size = np.float32(0), 0.0, 0.0
    for level in range(levels):
        least, most = lut[level, 0], lut[level, 0]
        finite = np.float32(0)
        for entry in lut[level]:
            least, most = min(least, entry), max(most, entry)
            finite += entry * np.float32(0)  # NaN where an entry is infinite or NaN
        if finite != 0:
            return np.float32(0), 0.0, np.inf
        lowest[level] = least
        widest = max(widest, most - least)
        low += least
        size += max(abs(least), abs(most))
    top = np.float32(min(255, 65535 // levels))  # sums fit into 16 bits
    step = widest / top
    factor = top / widest if widest > 0 else np.float32(0)
    if not np.isfinite(factor) or not np.isfinite(step):
        return np.float32(0), 0.0, np.inf
    for level in range(levels):
        for i in range(256):
            tables[level, i] = np.uint8(min((lut[level, i] - lowest[level]) * factor + np.float32(0.5), top))
    return step, low, levels * (step * 0.5) + (levels + 2) * ROUNDING * size


@compiled
def _test(floor: np.uint64, query: Any, step: np.float32, low: float, error: float) -> Any:
    """Derive the test ``sum >= least + (a + b n) n`` of rows of norm n from a key.

    The score in the key is solved for the sum of byte look-ups: IP needs a constant, COSINE a multiple of n, L2 also
    n^2 / 2. From `least` the rounding errors are subtracted, so that the test passes too many rows, never too few;
    `_take` computes the exact scores of those that pass.

    Returns:
        a, b, least; NaN lets all rows pass.
    """
    metric, query_squared, unit = query
    upper = np.uint32(floor >> UPPER)
    score = float(bits_float(np.uint32(upper & np.uint32(0x7FFFFFFF) if upper >> np.uint32(31) else ~upper)))
    if not np.isfinite(score) or not np.isfinite(error) or step == 0:
        return np.float32(0), np.float32(0), np.float32(np.nan)
    product, at_once, squared = 0.0, 0.0, 0.0
    if metric == IP:
        product = score / unit
    elif metric == L2:  # |q - x|^2 = |q|^2 - 2 <q, x> + |x|^2, and the key holds its negative
        product = (query_squared + score / unit) / 2
        squared = 0.5 * (1 - ROUNDING)
    else:
        at_once = score - ROUNDING * abs(score)
    size = abs(low) + abs(product) + abs(query_squared) + error
    least = product - low - error - ROUNDING * size
    return np.float32(at_once / step), np.float32(squared / step), np.float32(least / step)


@compiled
def _key(product: Any, norm: Any, query: Any, position: Any) -> Any:
    """Compute one of `ordered_keys` from one of `adc_scores`."""
    metric, query_squared, unit = query
    if metric == IP:
        score = product * unit
    elif metric == L2:
        score = -((query_squared - np.float32(2) * product + norm * norm) * unit)
    else:
        score = product / norm if norm > 0 else np.float32(0)
    if np.isnan(score):
        upward = np.uint32(0)
    else:
        bits = float_bits(score + np.float32(0))
        upward = np.uint32(~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000))
    return (np.uint64(upward) << UPPER) | (np.uint64(0xFFFFFFFF) - np.uint64(position))


# A call with many arrays costs as much as the work on one block, and so does each view of an array, because numba
# counts references: these functions take a stretch of blocks, and create no views.


@compiled
def _pass(codes: U8, norms: U16, stretch: Any, entries: U8, test: Any, sums: U16, slots: I64) -> int:
    """Write the slots of a stretch's rows that pass `_test`; returns their number.

    The stretch is a range of blocks. Each round tests LANES rows at once, and their mask is read bit by bit.
    """
    a, b, least = test
    count = 0
    first, last, stride = stretch
    with_norms = len(norms) == len(codes)
    for block in range(first, last, stride):
        _add_block(codes, block, entries, len(entries), sums)
        for lane in range(0, CODE_BLOCK, LANES):
            mask = reach(sums, norms, block if with_norms else 0, lane, a, b, least)
            while mask:
                slots[count] = block * CODE_BLOCK + lane + np.int64(lowest_one(mask))
                count += 1
                mask &= mask - np.uint64(1)
    return count


@compiled
def _take(rows: Any, slots: I64, span: Any, valid: Mask, lut: F32, query: Any, keys: U64) -> int:
    """Write the exact keys of slots with a valid row in a span; returns their number."""
    codes, norms, positions = rows
    norm = np.float32(0)
    count = 0
    for slot in slots:
        if slot < span[0] or slot >= span[1]:
            continue
        position = np.int64(positions[slot]) if len(positions) else slot
        if len(valid) and not valid[position]:
            continue
        block, row = slot // CODE_BLOCK, slot % CODE_BLOCK
        product = np.float32(0)
        for level in range(len(lut)):
            product += lut[level, codes[block, level, row]]
        if query[0] != IP:
            norm = bits_float(np.uint32(norms[block, row]) << np.uint32(13)) * np.float32(HALF_TO_FLOAT)
        keys[count] = _key(product, norm, query, position)
        count += 1
    return count


@compiled
def _keep_best(keys: U64, count: int, wanted: int) -> Any:
    """Bring the largest keys to the front, in no order; returns the least of them.

    By quickselect (Hoare, Algorithm 65: Find, CACM 1961).
    """
    first, last = 0, count - 1
    while first < last:
        pivot = keys[(first + last) // 2]
        left, right = first, last
        while left <= right:
            while keys[left] > pivot:
                left += 1
            while keys[right] < pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if wanted - 1 <= right:
            last = right
        elif wanted - 1 >= left:
            first = left
        else:
            break
    return keys[wanted - 1]


@compiled
def _visit(
    rows: Any, ranges: I64, valid: Mask, lut: F32, tables: Any, query: Any, wanted: int, floor: Any, stride: int
) -> Any:
    """Collect keys of the best rows that reach a floor, and some others, in no order.

    For each stretch of blocks `_pass` finds rows by byte tables and `_take` scores them exactly. Stretches grow from
    one block, since all rows pass until there is a floor. Whenever there are more than twice the wanted keys,
    `_keep_best` drops the others and raises the floor.
    """
    codes, norms, _ = rows
    entries, step, low, error = tables
    sums, slots = np.empty(CODE_BLOCK, np.uint16), np.empty(STRETCH * CODE_BLOCK, np.int64)
    keys = np.empty(2 * wanted + LANES + STRETCH * CODE_BLOCK, np.uint64)
    test = _test(floor, query, step, low, error)
    count, stretch = 0, 1
    for at in range(len(ranges)):
        first, last = ranges[at, 0], ranges[at, 1]
        start, end = first // CODE_BLOCK, (last + CODE_BLOCK - 1) // CODE_BLOCK
        while start < end:
            stop = min(start + stretch * stride, end)
            passed = _pass(codes, norms, (start, stop, stride), entries, test, sums, slots)
            count += _take(rows, slots[:passed], (first, last), valid, lut, query, keys[count:])
            if count > 2 * wanted + LANES:
                floor = _keep_best(keys, count, wanted)
                count = wanted
                test = _test(floor, query, step, low, error)
            start, stretch = stop, min(2 * stretch, STRETCH)  # without a floor, all rows pass
    return keys[:count]


@compiled
def _scan(rows: Any, ranges: I64, valid: Mask, lut: F32, query: Any, wanted: int) -> Any:
    """Collect keys of the best rows, and some others, in no order.

    In many blocks, a sample of them is searched first for a floor that about the wanted number of rows reach. If too
    few do, all blocks are searched again without it.
    """
    entries = np.empty((len(lut), 256), np.uint8)
    step, low, error = _rounded(lut, entries)
    tables = entries, step, low, error
    nothing = np.uint64(0)
    blocks = (ranges[0, 1] - ranges[0, 0]) // CODE_BLOCK
    if len(ranges) == 1 and blocks > 8 * FLOOR_SAMPLE:
        stride = blocks // FLOOR_SAMPLE
        expected = wanted / stride
        enough = int(expected + 3 * np.sqrt(expected) + 3)
        keys = _visit(rows, ranges, valid, lut, tables, query, enough, nothing, stride)
        if len(keys) >= enough:
            floor = (_keep_best(keys, len(keys), enough) >> UPPER) << UPPER  # for any position
            keys = _visit(rows, ranges, valid, lut, tables, query, wanted, floor, EVERY_BLOCK)
            if len(keys) >= wanted and _keep_best(keys, len(keys), wanted) >= floor:  # almost always
                return keys[:wanted]
    return _visit(rows, ranges, valid, lut, tables, query, wanted, nothing, EVERY_BLOCK)


def scan(
    rows: CodeRows,
    ranges: I64,
    valid: Mask,
    lut: F32,
    query_norm: float,
    wanted: int,
    *,
    metric: str,
    scale: float,
) -> U64:
    """See `alula.kernels.code_index.loops_numpy.scan`."""
    arrays = rows.codes, rows.norms, rows.positions
    query = METRICS[metric], np.float32(query_norm * query_norm), np.float32(scale * scale)
    return best_keys(_scan(arrays, ranges, valid, lut, query, wanted), wanted)
