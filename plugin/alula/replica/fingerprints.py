"""Row fingerprints, by which a refresh detects changes without storing the rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def fingerprints(rows: pa.RecordBatch) -> U64:
    """Hash rows to 64 bits: two different rows collide with a probability of 2**-64.

    The same in every process and on every machine, since snapshots keep them.

    Args:
        rows: Columns of numbers, booleans, strings, bytes and lists of float32, without nulls.

    Returns:
        uint64 (n,).
    """
    total = np.zeros(rows.num_rows, np.uint64)
    for column in rows.columns:
        total = _mixed(total * _GOLDEN + _sums(column))
    return total


def _sums(column: pa.Array) -> U64:
    """For each row the sum of its words, each mixed with its place."""
    if pa.types.is_boolean(column.type):
        return _mixed(column.to_numpy(zero_copy_only=False).astype(np.uint64))
    if pa.types.is_fixed_size_list(column.type):
        return _of_matrix(column.flatten().to_numpy().reshape(len(column), -1))
    if pa.types.is_fixed_size_binary(column.type):
        width, content = column.type.byte_width, np.frombuffer(column.buffers()[1], np.uint8)
        start = column.offset * width
        return _of_matrix(content[start : start + len(column) * width].reshape(len(column), width))
    if pa.types.is_primitive(column.type):
        return _of_matrix(column.to_numpy().reshape(len(column), -1))
    if pa.types.is_list(column.type):
        bounds = 4 * column.offsets.to_numpy().astype(np.int64)
        return _of_pieces(column.values.to_numpy().view(np.uint8), bounds)
    _, offsets, content = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return _of_pieces(np.frombuffer(content or b"", np.uint8), bounds)


def _of_matrix(values: npt.NDArray[np.generic]) -> U64:
    """Rows of one length: any numbers (n, m)."""
    content = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    padded = np.zeros((len(values), -(-content.shape[1] // 8) * 8), np.uint8)
    padded[:, : content.shape[1]] = content
    total = np.zeros(len(values), np.uint64)
    places = np.arange(1, padded.shape[1] // 8 + 1, dtype=np.uint64) * _SECOND
    for place, words in zip(places, padded.view("<u8").T, strict=True):
        total += _mixed(words ^ place)
    return total


def _of_pieces(content: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]) -> U64:
    """Rows of any length: the bytes ``bounds[i]`` to ``bounds[i + 1]`` of the content."""
    step = 1 if (bounds % 8).any() else 8
    words = content[bounds[0] : bounds[-1]]
    words = words.astype(np.uint64) if step == 1 else words.view("<u8")
    starts = (bounds - bounds[0]) // step
    lengths = np.diff(starts)
    places = (np.arange(1, len(words) + 1) - np.repeat(starts[:-1], lengths)).astype(np.uint64) * _SECOND
    # a running sum, whose differences wrap around like the sums themselves: reduceat has no empty pieces
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(words ^ places))])
    total: U64 = sums[starts[1:]] - sums[starts[:-1]] + _mixed(lengths.astype(np.uint64) * np.uint64(step))
    return total


def _mixed(words: U64) -> U64:
    """Mix the bits of each word by the finaliser of SplitMix64.

    Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    words = (words + _GOLDEN).astype(np.uint64)
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    mixed: U64 = words ^ (words >> np.uint64(31))
    return mixed
