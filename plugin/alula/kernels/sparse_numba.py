"""The loops over sparse rows, compiled by numba; `sparse_numpy` holds the same functions, with equal results.

Array positions are unsigned wherever they are computed: numba then checks for no negative ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from alula.kernels.compiled import compiled
from alula.kernels.found import F32, I64, U8, U16, U32, Mask
from alula.kernels.machine import (
    at_least,
    byte_products,
    count_ones,
    lane_distances,
    lane_products,
    lowest_one,
    prefetch,
)

MASK = np.uint64(64)  # values that one bit mask speaks of
STEP = np.uint64(256)  # values that `select` reads at once; scores are padded to a multiple
LANES = np.uint64(16)  # float32 sums are added up in so many lanes
MARGIN = np.float32(1.5)  # a code is off by 1 / sqrt(12) of a step, so this is 5.2 standard deviations
LINE = np.uint64(64)  # bytes of a cache line
AHEAD = np.uint64(12)  # rows whose codes are asked for before they are needed
LONGEST_PREFETCH = np.uint64(1024)  # postings
ZERO, ONE = np.uint64(0), np.uint64(1)

Keys = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@compiled
def accumulate(
    ids: U16,
    starts: I64,
    bounds: U32,
    impacts: F32,
    levels: int,
    dims: I64,
    weights: F32,
    peaks: F32,
    cut: float,
    scores: U16,
) -> None:
    """Add a query's quantised contributions to the scores of a segment's rows.

    Args:
        ids: uint16 (p,): as `Segment` describes it.
        starts: int64 (blocks + 1,): the same.
        bounds: uint32 (blocks, dim * L + 1): the same.
        impacts: float32 (blocks, dim * L): the same.
        levels: L.
        dims: int64 (t,): the query's dimensions.
        weights: float32 (t,): their weights.
        peaks: float32 (dim,): the largest impacts of all segments.
        cut: A list is left at its first level whose contribution, weight times impact, is under this share of the
            query's largest.
        scores: uint16 (n,): sums, in and out. None overflows: a row is in a list once, so with t terms, contributions
            c_t and s = (65535 - t) / sum(max c_t), its sum is at most t + s * sum(c_t) <= 65535, for t < 65535; the
            scale is s less a part in 2^40, far more than the rounding of float64.
    """
    count = np.uint64(levels)
    terms = np.uint64(len(dims))
    total, largest = 0.0, 0.0
    for term in range(terms):
        contribution = np.float64(weights[term]) * np.float64(peaks[np.uint64(dims[term])])
        total += contribution
        largest = max(largest, contribution)
    if total == 0.0:
        return
    scale = (65535.0 - np.float64(len(dims))) * (1.0 - 2.0**-40) / total
    least = cut * largest
    for block in range(len(starts) - 1):
        local = scores[block << 16 : (block + 1) << 16]
        postings = ids[starts[block] : starts[block + 1]]
        ends, tops = bounds[block], impacts[block]
        for term in range(terms):
            # a list lies anywhere, so without being asked for early its first postings come from memory
            if term + np.uint64(2) < terms:
                after = np.uint64(dims[term + np.uint64(2)]) * count
                prefetch(ends, after)
                prefetch(ends, after + count)
                prefetch(tops, after)
            if term + ONE < terms:
                following = np.uint64(dims[term + ONE]) * count
                place = np.uint64(ends[following])
                last = min(np.uint64(ends[following + count]), place + LONGEST_PREFETCH)
                while place < last:
                    prefetch(postings, place)
                    place += LINE // np.uint64(2)
            weight = np.float64(weights[term])
            first = np.uint64(dims[term]) * count
            for level in range(first, first + count):
                contribution = weight * np.float64(tops[level])
                if contribution < least:
                    break
                added = np.uint16(1.0 + contribution * scale)
                for posting in range(ends[level], ends[level + ONE]):
                    local[postings[posting]] += added


@compiled
def accumulate_weights(
    ids: U16,
    starts: I64,
    bounds: U32,
    stored: F32,
    levels: int,
    dims: I64,
    weights: F32,
    scores: F32,
) -> None:
    """Add the float32 products of a query with a segment's rows, term after term.

    Args:
        ids: uint16 (p,): as `Segment` describes it.
        starts: int64 (blocks + 1,): the same.
        bounds: uint32 (blocks, dim * L + 1): the same.
        stored: float32 (p,): the postings' weights.
        levels: L.
        dims: int64 (t,): the query's dimensions.
        weights: float32 (t,): their weights.
        scores: float32 (n,): sums, in and out.
    """
    count = np.uint64(levels)
    for block in range(len(starts) - 1):
        local = scores[block << 16 : (block + 1) << 16]
        postings = ids[starts[block] : starts[block + 1]]
        values = stored[starts[block] : starts[block + 1]]
        for term in range(np.uint64(len(dims))):
            weight = weights[term]
            first = np.uint64(dims[term]) * count
            for posting in range(bounds[block, first], bounds[block, first + count]):
                local[postings[posting]] += weight * values[posting]


@compiled
def keep_only(scores: Keys, valid: Mask) -> None:
    """Set the scores of rows that are not valid to 0."""
    for row in range(np.uint64(len(valid))):
        scores[row] = scores[row] if valid[row] else scores.dtype.type(0)


@compiled
def _count_at_least(values: Keys, bound: int) -> int:
    total = np.uint64(0)
    for start in range(np.uint64(0), np.uint64(len(values)), MASK):
        total += count_ones(at_least(values, start, bound))
    return total


@compiled
def _kth_largest(values: Keys, k: int) -> int:
    """The k-th largest value, bit by bit; 0 if there are fewer. The values' number is a multiple of 64."""
    kind = values.dtype.type
    bits = 8 * values.itemsize
    largest = kind(0)
    for bit in range(bits):
        tried = kind(largest | kind(ONE << np.uint64(bits - 1 - bit)))
        if _count_at_least(values, tried) >= np.uint64(k):
            largest = tried
    return largest


@compiled
def select(scores: Keys, count: int, maxima: Keys, found: U32, keys: Keys) -> int:
    """The rows with the largest scores over 0, of equal ones those that come first; the scores are 0 afterwards.

    The count-th largest of the maxima of disjoint groups of rows is at most the count-th largest score, so one scan for
    rows that reach it finds all that are wanted, and few others.

    Args:
        scores: uint16 or uint32 (m,), m a multiple of 256.
        count: How many rows.
        maxima: Room for m values.
        found: uint32: room for m rows; the found ones come out in rising order.
        keys: Room for m + 64 values; the found rows' scores come out.

    Returns:
        How many were found.
    """
    kind = scores.dtype.type
    size = np.uint64(len(scores))
    depth = min(size // (np.uint64(16) * np.uint64(count)), np.uint64(16))
    if depth == np.uint64(0):
        bound = _kth_largest(scores, count)
    else:
        steps = size // STEP
        groups = (steps + depth - ONE) // depth
        for group in range(groups):
            best = maxima[group * MASK : (group + ONE) * MASK]
            best[:] = 0
            for step in range(group * depth, min(steps, (group + ONE) * depth)):
                read = scores[step * STEP : (step + ONE) * STEP]
                for lane in range(MASK):
                    one = max(read[lane], read[lane + MASK])
                    other = max(read[lane + np.uint64(128)], read[lane + np.uint64(192)])
                    best[lane] = max(best[lane], one, other)
        bound = _kth_largest(maxima[: groups * MASK], count)
    bound = max(bound, kind(1))
    reached = np.uint64(0)
    for start in range(np.uint64(0), size, MASK):
        mask = at_least(scores, start, bound)
        while mask:
            row = start + lowest_one(mask)
            found[reached] = row
            keys[reached] = scores[row]
            reached += ONE
            mask &= mask - ONE
        scores[start : start + MASK] = 0
    if reached <= np.uint64(count):
        return reached
    return _keep_largest(found, keys, reached, count)


@compiled
def _keep_largest(found: U32, keys: Keys, size: int, count: int) -> int:
    """Keep the rows with the ``count`` largest keys, in place; of equal ones those that come first."""
    padded = (np.uint64(size) + MASK - ONE) // MASK * MASK
    keys[np.uint64(size) : padded] = 0
    smallest = _kth_largest(keys[:padded], count)
    over = np.uint64(0)
    for place in range(np.uint64(size)):
        over += np.uint64(keys[place] > smallest)
    equal = np.uint64(count) - over
    kept = np.uint64(0)
    for place in range(np.uint64(size)):
        key = keys[place]
        if key < smallest or (key == smallest and equal == np.uint64(0)):
            continue
        if key == smallest:
            equal -= ONE
        found[kept], keys[kept] = found[place], key
        kept += ONE
    return kept


@compiled
def _product(one: F32, start: int, other: F32) -> float:
    """The inner product of one[start : start + d] with other, of length d.

    Lane j of 16 adds up the products of entries j, j + 16, ...; the lanes are added by halves, what is left over of the
    entries comes last, one by one.
    """
    size = np.uint64(len(other))
    steps = size // LANES
    total = lane_products(one, start, other, np.uint64(0), steps)
    for place in range(steps * LANES, size):
        total += one[start + place] * other[place]
    return total


@compiled
def _squared_distance(one: F32, start: int, other: F32) -> float:
    """`_product` of the difference with itself."""
    size = np.uint64(len(other))
    steps = size // LANES
    total = lane_distances(one, start, other, np.uint64(0), steps)
    for place in range(steps * LANES, size):
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
    """The k best of some rows by their exact scores, best first; of equal ones those that come first.

    Codes of 8 bits say which rows may be among them: those whose estimate reaches the k-th best of all, each given five
    standard deviations of its rounding error or more. Only these rows' vectors are read.

    Args:
        rows: uint32 (c,).
        vectors: float32 (n, d).
        codes: uint8 (n, s): as `Vectors` describes them.
        query: float32 (d,).
        centred: float32 (d,): what the codes are multiplied by, the query or the query minus the centre.
        metric: 0 COSINE, 1 IP, 2 L2.
        positions: int64 (k,): the rows that were found.
        scores: float32 (k,): their scores.

    Returns:
        How many were found, min(k, c).
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
        for offset in range(np.uint64(0), width, LINE // np.uint64(4)):
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
    by_size = MARGIN * np.sqrt(_product(centred, ZERO, centred))
    by_norm = MARGIN * step
    flat = codes.reshape(-1)
    padded = (count + MASK - ONE) // MASK * MASK
    about, width = flat.view(np.float32), stride // np.uint64(4)
    lower, upper = np.empty(padded, np.float32), np.empty(count, np.float32)
    lower[count:] = -np.inf
    for place in range(count):
        if place + AHEAD < count:
            later = np.uint64(rows[place + AHEAD]) * stride
            for offset in range(np.uint64(0), stride, LINE):
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
    """Round a vector to codes from -127 to 127; one step, and 128 times the codes' sum."""
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
    bias: F32,
    scale: float,
    floor: float,
    nnz: int,
    outputs: F32,
    maxima: U32,
    found: U32,
    keys: U32,
    dims: I64,
    weights: F32,
) -> int:
    """The dimensions and weights of a query by a linear encoder, up to a factor that all its weights share.

    Args:
        query: float32 (d,).
        head: uint8 (D, s): codes of the rows of W, each 128 more than it means.
        sizes: float32 (D,): what one step of each row's codes is.
        bias: float32 (D,).
        scale: What the query is divided by; 0 for its own length.
        floor: The least weight of the heaviest term.
        nnz: Most terms.
        outputs: Room for D values, padded with zeros to a multiple of 256.
        maxima: Room for `select`.
        found: Room for `select`.
        keys: Room for `select`.
        dims: int64 (nnz,): the dimensions, in rising order.
        weights: float32 (nnz,): their weights.

    Returns:
        The number of terms.
    """
    stride = np.uint64(head.shape[1])
    codes = np.zeros(stride, np.int8)
    largest = np.float32(0)
    for place in range(np.uint64(len(query))):
        largest = max(largest, abs(query[place]))
    largest = max(largest, np.float32(1e-30))
    scaled = query / largest
    flat, offset = head.reshape(-1), np.int32(0)
    for place in range(np.uint64(len(query))):
        code = np.int8(np.floor(scaled[place] * np.float32(127) + np.float32(0.5)))
        codes[place] = code
        offset = np.int32(offset + np.int32(code))
    offset = np.int32(offset * np.int32(128))
    if scale > 0:
        step = largest / (np.float32(scale) * np.float32(127))
    else:
        length = max(np.sqrt(_product(scaled, ZERO, scaled)), np.float32(1e-30))
        step = np.float32(1) / (length * np.float32(127))
    top, best = np.float32(-np.inf), np.uint64(0)
    for row in range(np.uint64(len(head))):
        total = np.int32(byte_products(flat, row * stride, codes, stride) - offset)
        output = np.float32(total) * (sizes[row] * step) + bias[row]
        if output > top:
            top, best = output, row
        outputs[row] = max(output, np.float32(0))
    if not top >= np.float32(floor):
        outputs[:] = 0
        dims[0], weights[0] = best, floor
        return ONE
    size = select(outputs.view(np.uint32), nnz, maxima, found, keys)
    stored = keys[:size].view(np.float32)
    for place in range(size):
        dims[place], weights[place] = found[place], stored[place]
    return size
