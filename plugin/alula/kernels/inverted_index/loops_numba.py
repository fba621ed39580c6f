"""Compiled loops over sparse rows; those of `loops_numpy` give equal results.

They are in one file because numba recompiles a cached function only when its own file changes, not when one changes
that it calls. Array positions are unsigned wherever they are computed: numba then checks for no negative ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from alula.kernels import constants, simd
from alula.kernels.jit import compiled
from alula.kernels.simd import (
    at_least,
    byte_products,
    count_ones,
    lane_distances,
    lane_products,
    lowest_one,
    prefetch,
)
from alula.kernels.topk import F32, I64, U8, U16, U32, Mask

MASK_BITS = np.uint64(simd.MASK_BITS)
STEP = np.uint64(256)  # scores that `_reached_by` reads at once; they are padded to a multiple
FLOAT_LANES = np.uint64(constants.FLOAT_LANES)
ROUNDING_MARGIN = np.float32(constants.ROUNDING_MARGIN)
CACHE_LINE = np.uint64(constants.CACHE_LINE)
PREFETCH_ROWS = np.uint64(20)  # distance in rows between a prefetch and its use
LONGEST_PREFETCH = np.uint64(1024)  # postings
EPS = np.float32(constants.EPS)
OVERSAMPLE = np.uint64(constants.OVERSAMPLE)
BRANCHLESS_TAKES = 3  # bits of a mask taken without a branch: most masks have no more
ZERO, ONE = np.uint64(0), np.uint64(1)

Keys = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@compiled
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
    """Merge a segment's best rows by quantised sums into those of earlier segments.

    Blocks are read one after the other, so that their sums stay in the processor's cache.

    Args:
        ids: uint16 (p,): as `Segment` describes it.
        starts: int64 (blocks + 1,): the same.
        bounds: uint32 (blocks, dim * L + 1): the same.
        impacts: float32 (blocks, dim * L): the same.
        levels: L.
        first: Position of the segment's first row.
        rows: Its number of rows.
        dims: int64 (t,): the query's dimensions.
        weights: float32 (t,): their weights.
        peaks: float32 (dim,): the largest impacts of all segments.
        cut: A list is left at its first level whose contribution, weight times impact, is under this share of the
            query's largest.
        valid: bool (positions,): True for rows that may be found; empty for all.
        count: Number of rows wanted.
        sums: uint16 (65600,), all 0 before and afterwards. None overflows: a row is in a list once, so with t terms,
            contributions c_t and s = (65535 - t) / sum(max c_t), its sum of 1 + floor(s * c_t) is at most
            t + s * sum(c_t) <= 65535, for t < 65535; the scale is s less a part in 2^40, far more than float64 rounds.
        maxima: uint16 (65536,): scratch.
        found: uint32 (4 count + 65600,): the best rows in rising order, in and out.
        keys: uint16 (4 count + 65600,): their sums.
        size: Number found before.

    Returns:
        The number found now: the ``count`` largest sums over 0, of equal ones those that come first.
    """
    total, largest = 0.0, 0.0
    for term in range(np.uint64(len(dims))):
        contribution = np.float64(weights[term]) * np.float64(peaks[np.uint64(dims[term])])
        total += contribution
        largest = max(largest, contribution)
    if total == 0.0:
        return np.uint64(size)
    scale = (65535.0 - np.float64(len(dims))) * (1.0 - 2.0**-40) / total
    reached = np.uint64(size)
    for block in range(len(starts) - 1):
        postings = ids[starts[block] : starts[block + 1]]
        _add_impacts(postings, bounds[block], impacts[block], levels, dims, weights, scale, cut * largest, sums)
        row = block << 16
        reached = _take_block(sums, first + row, rows - row, valid, count, maxima, found, keys, reached)
    return _keep_largest(found, keys, reached, count)


@compiled
def _add_impacts(
    postings: U16,
    ends: U32,
    impacts: F32,
    levels: int,
    dims: I64,
    weights: F32,
    scale: float,
    least: float,
    sums: U16,
) -> None:
    count = np.uint64(levels)
    terms = np.uint64(len(dims))
    for term in range(terms):
        # The lists of a query are scattered in memory, so the next list is prefetched while this one is read, and the
        # bounds and impacts of the one after it.
        if term + np.uint64(2) < terms:
            after = np.uint64(dims[term + np.uint64(2)]) * count
            prefetch(ends, after)
            prefetch(ends, after + count)
            prefetch(impacts, after)
        if term + ONE < terms:
            following = np.uint64(dims[term + ONE]) * count
            place = np.uint64(ends[following])
            last = min(np.uint64(ends[following + count]), place + LONGEST_PREFETCH)
            while place < last:
                prefetch(postings, place)
                place += CACHE_LINE // np.uint64(2)
        weight = np.float64(weights[term])
        first = np.uint64(dims[term]) * count
        for level in range(first, first + count):
            contribution = weight * np.float64(impacts[level])
            if contribution < least:
                break
            added = np.uint16(1.0 + contribution * scale)
            for posting in range(ends[level], ends[level + ONE]):
                sums[postings[posting]] += added


@compiled
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
    """`collect` by inner products, the float32 sums of products term after term.

    Args:
        ids: uint16 (p,): as `Segment` describes it.
        starts: int64 (blocks + 1,): the same.
        bounds: uint32 (blocks, dim * L + 1): the same.
        stored: float32 (p,): the postings' weights.
        levels: L.
        first: Position of the segment's first row.
        rows: Its number of rows.
        dims: int64 (t,): the query's dimensions.
        weights: float32 (t,): their weights.
        valid: bool (positions,): True for rows that may be found; empty for all.
        count: Number of rows wanted.
        sums: float32 (65600,), all 0 before and afterwards.
        maxima: uint32 (65536,): scratch.
        found: uint32 (4 count + 65600,): the best rows in rising order, in and out.
        keys: uint32 (4 count + 65600,): the bits of their sums.
        size: Number found before.

    Returns:
        The number found now.
    """
    per_list = np.uint64(levels)
    reached = np.uint64(size)
    for block in range(len(starts) - 1):
        postings = ids[starts[block] : starts[block + 1]]
        values = stored[starts[block] : starts[block + 1]]
        for term in range(np.uint64(len(dims))):
            weight = weights[term]
            begin = np.uint64(dims[term]) * per_list
            for posting in range(bounds[block, begin], bounds[block, begin + per_list]):
                sums[postings[posting]] += weight * values[posting]
        # numbers from 0 on have the order of their bits
        bits = sums.view(np.uint32)
        row = block << 16
        reached = _take_block(bits, first + row, rows - row, valid, count, maxima, found, keys, reached)
    return _keep_largest(found, keys, reached, count)


@compiled
def _count_at_least(values: Keys, bound: int) -> int:
    total = np.uint64(0)
    for start in range(np.uint64(0), np.uint64(len(values)), MASK_BITS):
        total += count_ones(at_least(values, start, bound))
    return total


@compiled
def _kth_largest(values: Keys, k: int) -> int:
    """The k-th largest of a multiple of 64 values, 0 if there are fewer.

    Found bit by bit from the highest: a bit is set if at least k values reach the number so far with it.
    """
    kind = values.dtype.type
    bits = 8 * values.itemsize
    largest = kind(0)
    for bit in range(bits):
        tried = kind(largest | kind(ONE << np.uint64(bits - 1 - bit)))
        if _count_at_least(values, tried) >= np.uint64(k):
            largest = tried
    return largest


@compiled
def _take_block(
    scores: Keys,
    first: int,
    rows: int,
    valid: Mask,
    count: int,
    maxima: Keys,
    found: U32,
    keys: Keys,
    size: int,
) -> int:
    """Append a block's rows that may be among the best, and set its scores to 0.

    A row must be over the count-th largest score so far. As long as there are fewer, it must reach the count-th largest
    of the maxima of disjoint groups of the block's rows, which is at most the count-th largest score.
    """
    kind = scores.dtype.type
    rows = min(np.uint64(rows), np.uint64(1 << 16))
    read = (rows + STEP - ONE) // STEP * STEP
    if len(valid):
        for row in range(rows):
            if not valid[np.uint64(first) + row]:
                scores[row] = kind(0)
    reached = np.uint64(size)
    if reached < np.uint64(count):
        bound = max(_reached_by(scores[:read], count, maxima), kind(1))
    else:
        if reached > OVERSAMPLE * np.uint64(count):
            reached = _keep_largest(found, keys, reached, count)
        bound = kind(_kth_of(keys, reached, count) + kind(1))
        if bound == kind(0):  # overflow: no score is over the largest number
            scores[:read] = 0
            return reached
    for start in range(np.uint64(0), read, MASK_BITS):
        mask = at_least(scores, start, bound)
        # Most masks have few set bits, and their number cannot be predicted: the first few are written without a
        # branch, and count only if they are set.
        for _ in range(BRANCHLESS_TAKES):
            row = start + lowest_one(mask)
            found[reached] = np.uint64(first) + row
            keys[reached] = scores[row]
            reached += np.uint64(mask != np.uint64(0))
            mask &= mask - ONE
        while mask:
            row = start + lowest_one(mask)
            found[reached] = np.uint64(first) + row
            keys[reached] = scores[row]
            reached += ONE
            mask &= mask - ONE
        scores[start : start + MASK_BITS] = 0
    return reached


@compiled
def _kth_of(keys: Keys, size: int, k: int) -> int:
    """The k-th largest of the first keys."""
    padded = (np.uint64(size) + MASK_BITS - ONE) // MASK_BITS * MASK_BITS
    keys[np.uint64(size) : padded] = 0
    return _kth_largest(keys[:padded], k)


@compiled
def _reached_by(scores: Keys, count: int, maxima: Keys) -> int:
    """A bound that ``count`` scores or few more reach; 0 if there are fewer.

    The scores are read once, 64 columns wide; the maxima of up to 16 steps of a column are one group, and the
    count-th largest of these maxima is the bound.
    """
    size = np.uint64(len(scores))
    depth = min(size // (np.uint64(16) * np.uint64(count)), np.uint64(16))
    if depth == np.uint64(0):
        return _kth_largest(scores, count)
    steps = size // STEP
    groups = (steps + depth - ONE) // depth
    for group in range(groups):
        best = maxima[group * MASK_BITS : (group + ONE) * MASK_BITS]
        best[:] = 0
        for step in range(group * depth, min(steps, (group + ONE) * depth)):
            read = scores[step * STEP : (step + ONE) * STEP]
            for lane in range(MASK_BITS):
                one = max(read[lane], read[lane + MASK_BITS])
                other = max(read[lane + np.uint64(128)], read[lane + np.uint64(192)])
                best[lane] = max(best[lane], one, other)
    return _kth_largest(maxima[: groups * MASK_BITS], count)


@compiled
def _keep_largest(found: U32, keys: Keys, size: int, count: int) -> int:
    """Keep the ``count`` largest keys in place; of equal keys the first."""
    if np.uint64(size) <= np.uint64(count):
        return np.uint64(size)
    smallest = _kth_of(keys, size, count)
    over = np.uint64(0)
    for place in range(np.uint64(size)):
        over += np.uint64(keys[place] > smallest)
    equal = np.uint64(count) - over
    kept = np.uint64(0)
    for place in range(np.uint64(size)):
        # no branch: it would be mispredicted every other time
        key = keys[place]
        taken = np.uint64(key == smallest) & np.uint64(equal != np.uint64(0))
        found[kept], keys[kept] = found[place], key
        equal -= taken
        kept += taken | np.uint64(key > smallest)
    return kept


@compiled
def _product(one: F32, start: int, other: F32) -> float:
    """The inner product of one[start : start + d] with other, of length d.

    Lane j of 16 adds up the products of entries j, j + 16, ...; the lanes are added by halves, what is left over of the
    entries comes last, one by one.
    """
    size = np.uint64(len(other))
    steps = size // FLOAT_LANES
    total = lane_products(one, start, other, np.uint64(0), steps)
    for place in range(steps * FLOAT_LANES, size):
        total += one[start + place] * other[place]
    return total


@compiled
def _squared_distance(one: F32, start: int, other: F32) -> float:
    """`_product` of the difference with itself."""
    size = np.uint64(len(other))
    steps = size // FLOAT_LANES
    total = lane_distances(one, start, other, np.uint64(0), steps)
    for place in range(steps * FLOAT_LANES, size):
        difference = one[start + place] - other[place]
        total += difference * difference
    return total


@compiled
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
    """The k best of some rows by exact scores, best first; ties keep their order.

    Byte codes rule out rows unread: the others are those whose estimate reaches the k-th best of all, each given five
    standard deviations of its rounding error or more. Only these rows' vectors are read.

    Args:
        rows: uint32 (c,).
        vectors: float32 (n, d).
        codes: uint8 (n, s): as `Vectors` describes them.
        query: float32 (d,).
        centred: float32 (d,): the query, or the query minus the centre (L2), to multiply with the codes.
        metric: 0 COSINE, 1 IP, 2 L2.
        positions: int64 (k,): the rows that were found.
        scores: float32 (k,): their scores.

    Returns:
        The number found, min(k, c).
    """
    count, k = np.uint64(len(rows)), len(positions)
    may = np.empty(count, np.uint32)
    if count > np.uint64(k):
        kept = _may_be_best(rows, codes, centred, k, may)
    else:
        may[:] = rows
        kept = count
    norm = np.sqrt(_product(query, ZERO, query)) if metric == 0 else np.float32(1)
    width = np.uint64(vectors.shape[1])
    flat = vectors.reshape(-1)
    for place in range(kept):
        start = np.uint64(may[place]) * width
        for offset in range(np.uint64(0), width, CACHE_LINE // np.uint64(4)):
            prefetch(flat, start + offset)
    keys, exact = np.empty(kept, np.uint64), np.empty(kept, np.float32)
    for place in range(kept):
        start = np.uint64(may[place]) * width
        score = _squared_distance(flat, start, query) if metric == 2 else _product(flat, start, query)
        if metric == 0:
            length = norm * np.sqrt(_squared_length(flat, start, width))
            score = score / length if length > np.float32(0) else np.float32(0)
        exact[place] = score
    ordered = exact.view(np.uint32)
    for place in range(kept):
        bits = _in_order(ordered[place])
        keys[place] = np.uint64(bits if metric == 2 else ~bits & np.uint32(0xFFFFFFFF)) << np.uint64(32) | place
    keys.sort()
    reached = min(kept, np.uint64(k))
    for place in range(reached):
        best = keys[place] & np.uint64(0xFFFFFFFF)
        positions[place], scores[place] = may[best], exact[best]
    return reached


@compiled
def _squared_length(flat: F32, start: int, width: int) -> float:
    return _product(flat, start, flat[start : start + width])


@compiled
def _in_order(bits: int) -> int:
    """The bits of a float32 as an unsigned integer that is larger for larger numbers."""
    return bits ^ (np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else np.uint32(0x80000000))


@compiled
def _may_be_best(rows: U32, codes: U8, centred: F32, k: int, may: U32) -> int:
    count, stride = np.uint64(len(rows)), np.uint64(codes.shape[1])
    query = np.zeros(stride, np.int8)
    step, total = _quantise(centred, query)
    by_size = ROUNDING_MARGIN * np.sqrt(_product(centred, ZERO, centred))
    by_norm = ROUNDING_MARGIN * step
    flat = codes.reshape(-1)
    padded = (count + MASK_BITS - ONE) // MASK_BITS * MASK_BITS
    about, width = flat.view(np.float32), stride // np.uint64(4)
    lower, upper = np.empty(padded, np.float32), np.empty(count, np.float32)
    lower[count:] = -np.inf
    for place in range(count):
        if place + PREFETCH_ROWS < count:
            later = np.uint64(rows[place + PREFETCH_ROWS]) * stride
            for offset in range(np.uint64(0), stride, CACHE_LINE):
                prefetch(flat, later + offset)
        start = np.uint64(rows[place]) * stride
        product = np.float32(np.int32(byte_products(flat, start, query, stride) - total))
        end = start // np.uint64(4) + width
        size, offset, norm = about[end - np.uint64(3)], about[end - np.uint64(2)], about[end - ONE]
        estimate = product * (size * step) - offset
        margin = by_size * size + by_norm * norm
        low = estimate - margin
        lower[place] = np.float32(-np.inf) if np.isnan(low) else low
        upper[place] = estimate + margin
    ordered = lower.view(np.uint32)
    for place in range(padded):
        ordered[place] = _in_order(ordered[place])
    smallest = _kth_largest(ordered, k)
    one = np.empty(1, np.uint32)
    one[0] = smallest ^ (np.uint32(0x80000000) if smallest >> np.uint32(31) else np.uint32(0xFFFFFFFF))
    bound = one.view(np.float32)[0]
    kept = np.uint64(0)
    for place in range(count):
        if not upper[place] < bound:
            may[kept] = rows[place]
            kept += ONE
    return kept


@compiled
def _quantise(vector: F32, codes: npt.NDArray[np.int8]) -> tuple[float, int]:
    """Round a vector to codes from -127 to 127.

    Returns:
        The step, and 128 times the sum of the codes, which is the part of `byte_products` due to the offset.
    """
    largest = np.float32(0)
    for place in range(np.uint64(len(vector))):
        largest = max(largest, abs(vector[place]))
    step = largest / np.float32(127)
    total = np.int32(0)
    if step > np.float32(0):
        for place in range(np.uint64(len(vector))):
            code = np.int8(np.floor(vector[place] / step + np.float32(0.5)))
            codes[place] = code
            total = np.int32(total + np.int32(code))
    return step, np.int32(total * np.int32(128))


@compiled
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
    """Encode a query with a linear encoder, up to a factor common to all weights.

    Args:
        query: float32 (d,).
        head: uint8 (D, s): codes of the rows of W, with an offset of 128.
        sizes: float32 (D,): the step of each row's codes.
        basis: uint8 (m, s): codes of the directions in which the rows of W differ most; (0, s) for none.
        basis_sizes: float32 (m,): their steps.
        short: uint8 (D, r): codes of the rows of W in that basis.
        short_sizes: float32 (D,): their steps.
        bias: float32 (D,).
        scale: Divisor of the query; 0 for its own length.
        floor: The least weight of the heaviest term.
        nnz: Most terms.
        most: Dimensions with the largest outputs in the basis, for which they are computed in full.
        every: An empty mask.
        outputs: float32: scratch for D values, and zeros up to a multiple of 256 and 64 more.
        maxima: uint32 (D,): scratch.
        found: uint32 (D + 64,): scratch.
        keys: uint32 (D + 64,): scratch.
        dims: int64 (nnz,): the dimensions, in rising order.
        weights: float32 (nnz,): their weights.

    Returns:
        The number of terms.
    """
    scaled, factor = _normalised(query, scale)
    codes = np.zeros(head.shape[1], np.int8)
    step, offset = _quantise(scaled, codes)
    step = step * factor
    if len(basis):
        parts = np.empty(len(basis), np.float32)
        _multiply(basis, basis_sizes, np.zeros(len(basis), np.float32), codes, offset, step, parts)
        short_codes = np.zeros(short.shape[1], np.int8)
        short_step, short_offset = _quantise(parts, short_codes)
        best = _multiply(short, short_sizes, bias, short_codes, short_offset, short_step, outputs)
        count = most
    else:
        best = _multiply(head, sizes, bias, codes, offset, step, outputs)
        count = nnz
    top = outputs[best]
    # in the basis one that is a little under 0 may be over it in full
    lowest = outputs[: len(head)].min() if len(basis) else np.float32(0)
    for row in range(np.uint64(len(head))):
        outputs[row] = max(outputs[row] - lowest, np.float32(0))
    size = _take_block(outputs.view(np.uint32), 0, len(head), every, count, maxima, found, keys, 0)
    size = _keep_largest(found, keys, size, count)
    if len(basis):
        top = _score_in_full(head, sizes, bias, codes, offset, step, found[:size], keys.view(np.float32), top)
        size = _keep_largest(found, keys, size, nnz)
    if size == ZERO or not top >= np.float32(floor):
        dims[0], weights[0] = best, floor
        return ONE
    stored = keys.view(np.float32)
    kept = ZERO
    for place in range(size):
        if stored[place] > np.float32(0):
            dims[kept], weights[kept] = found[place], stored[place]
            kept += ONE
    return kept


@compiled
def _multiply(
    rows: U8,
    sizes: F32,
    bias: F32,
    codes: npt.NDArray[np.int8],
    offset: int,
    step: float,
    outputs: F32,
) -> int:
    """Multiply rows of codes with a query's and add a bias; returns the best row."""
    flat, stride = rows.reshape(-1), np.uint64(rows.shape[1])
    top, best = np.float32(-np.inf), ZERO
    for row in range(np.uint64(len(rows))):
        total = np.int32(byte_products(flat, row * stride, codes, stride) - offset)
        output = np.float32(total) * (sizes[row] * step) + bias[row]
        outputs[row] = output
        if output > top:
            top, best = output, row
    return best


@compiled
def _normalised(query: F32, scale: float) -> tuple[F32, float]:
    """Divide a query by its largest entry, so that no square overflows.

    Returns:
        The quotient, and the factor that is left to apply.
    """
    largest = EPS
    for place in range(np.uint64(len(query))):
        largest = max(largest, abs(query[place]))
    scaled = query / largest
    factor = largest / np.float32(scale) if scale > 0 else np.float32(1)
    if not scale > 0:
        factor = factor / max(np.sqrt(_product(scaled, ZERO, scaled)), EPS)
    return scaled, factor


@compiled
def _score_in_full(
    head: U8,
    sizes: F32,
    bias: F32,
    codes: npt.NDArray[np.int8],
    offset: int,
    step: float,
    found: U32,
    values: F32,
    top: float,
) -> float:
    """Compute the outputs of some rows of W in full, negative ones as 0.

    Returns:
        The largest; `top` if there are no rows.
    """
    flat, stride, size = head.reshape(-1), np.uint64(head.shape[1]), np.uint64(len(found))
    for place in range(size):
        row = np.uint64(found[place])
        for ahead in range(np.uint64(0), stride, CACHE_LINE):
            prefetch(flat, np.uint64(found[min(place + PREFETCH_ROWS, size - ONE)]) * stride + ahead)
        total = np.int32(byte_products(flat, row * stride, codes, stride) - offset)
        output = np.float32(total) * (sizes[row] * step) + bias[row]
        top = max(top, output) if place else output
        values[place] = max(output, np.float32(0))
    return top
