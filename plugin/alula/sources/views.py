"""Convert view types of Arrow, the default of polars, to plain types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """The type with the same values: string for string_view and dictionaries."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    if pa.types.is_string_view(data_type):
        return pa.string()
    if pa.types.is_binary_view(data_type):
        return pa.binary()
    if pa.types.is_list_view(data_type):
        return pa.list_(plain_type(data_type.value_type))
    if pa.types.is_large_list_view(data_type):
        return pa.large_list(plain_type(data_type.value_type))
    if pa.types.is_list(data_type) and pa.types.is_dictionary(data_type.value_type):
        return pa.list_(plain_type(data_type.value_type))
    return data_type


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with plain types, without metadata."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def plain_record(record: pa.RecordBatch) -> pa.RecordBatch:
    """The record with plain types."""
    if all(plain_type(field.type) == field.type for field in record.schema):
        return record
    arrays = [_plain(column) for column in record.columns]
    return pa.RecordBatch.from_arrays(arrays, names=record.schema.names)


def _plain(array: pa.Array) -> pa.Array:
    data_type = plain_type(array.type)
    if data_type == array.type:
        return array
    if pa.types.is_list(array.type) or not (pa.types.is_list(data_type) or pa.types.is_large_list(data_type)):
        return array.cast(data_type)
    # Arrow 26's cast of a list_view makes offsets that do not fit
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0))
    large = pa.types.is_large_list(data_type)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64 if large else np.int32)
    kind = pa.LargeListArray if large else pa.ListArray
    mask = array.is_null() if array.null_count else None
    return kind.from_arrays(pa.array(offsets), _plain(array.flatten()), mask=mask)
