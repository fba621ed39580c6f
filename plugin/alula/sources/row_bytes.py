"""The memory that rows take, to cut batches by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BATCH_BYTES = 32 << 20  # of rows in a batch; they are held some times over while they are encoded and sent
PLACE = 8  # bytes of where a text or a list begins
_DIFFERING = (  # whose values take different numbers of bytes
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_dictionary,
    pa.types.is_nested,
)

Sizes = npt.NDArray[np.int64]


def row_bytes(record: pa.RecordBatch) -> Sizes:
    """The bytes of each row, int64 (n,), with dictionaries written out."""
    sizes = np.zeros(record.num_rows, np.int64)
    for column in record.columns:
        sizes += _sizes(column)
    return sizes


def cut_by_bytes(record: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Cut a record into parts of at most `most` bytes, or one row."""
    ends = np.cumsum(row_bytes(record))
    start = 0
    while start < record.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, "right")))
        yield record.slice(start, stop - start)
        start = stop


def _sizes(array: pa.Array) -> Sizes:
    data_type, rows = array.type, len(array)
    width = _width(data_type)
    if width is not None:
        return np.full(rows, width, np.int64)
    sizes = np.zeros(rows, np.int64)
    if pa.types.is_dictionary(data_type):
        if len(array.dictionary):
            sizes += _sizes(array.dictionary)[np.asarray(pc.fill_null(array.indices, 0)).astype(np.int64)]
    elif pa.types.is_fixed_size_list(data_type):
        places = data_type.list_size
        values = array.values[array.offset * places : (array.offset + rows) * places]
        sizes += _sizes(values).reshape(rows, places).sum(axis=1)
    elif pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_map(data_type):
        offsets, each = np.asarray(array.offsets).astype(np.int64), _width(array.values.type)
        ends = each * offsets if each is not None else np.concatenate([[0], np.cumsum(_sizes(array.values))])[offsets]
        sizes += np.diff(ends) + PLACE if rows else 0
    elif pa.types.is_struct(data_type):
        for child in array.flatten():
            sizes += _sizes(child)
    else:
        sizes += np.asarray(pc.fill_null(pc.binary_length(array), 0)).astype(np.int64) + PLACE
    return sizes


def _width(data_type: pa.DataType) -> int | None:
    """The bytes of any value of a type; None where they differ.

    A value of a type without a width counts as a place.
    """
    if pa.types.is_fixed_size_list(data_type):
        each = _width(data_type.value_type)
        return None if each is None else data_type.list_size * each
    if any(differs(data_type) for differs in _DIFFERING):
        return None
    try:
        return max(1, int(data_type.bit_width) // 8)
    except ValueError:
        return PLACE
