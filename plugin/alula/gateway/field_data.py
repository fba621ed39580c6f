"""Columns as they travel in Milvus's messages (``FieldData``), read into arrays and put into another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.errors import DataError, UsageError
from alula.index_types import FieldSpec
from alula.milvus import fill_field

F32 = npt.NDArray[np.float32]

_FLAT_VECTORS = {  # name in the message, bytes of one dimension
    "binary_vector": 1 / 8,
    "float16_vector": 2,
    "bfloat16_vector": 2,
    "int8_vector": 1,
}


def column(field: Any) -> Any:
    """A column as numpy has it.

    Returns:
        float32 (n, d) for vectors of floats and arrays of floats, uint8 (n, bytes) for binary vectors, an array (n,)
        for numbers and booleans, a list for all else.

    Raises:
        DataError: If the numbers make no vectors of one length.
    """
    if field.WhichOneof("field") == "vectors":
        return vectors(field)
    kind = field.scalars.WhichOneof("data")
    if kind is None:
        return []
    if kind == "array_data":
        return float_arrays(field.scalars.array_data)
    values = getattr(field.scalars, kind).data
    return list(values) if kind in ("string_data", "bytes_data", "json_data") else np.array(values)


def vectors(field: Any) -> Any:
    """The vectors of a dense vector column: float32 (n, d), or uint8 (n, bytes) for binary ones.

    Raises:
        DataError: If the numbers make no vectors of one length.
        UsageError: If they are vectors of another type.
    """
    kind, dim = field.vectors.WhichOneof("data"), field.vectors.dim
    if kind == "float_vector":
        flat: Any = packed(field.vectors.float_vector)
    elif kind == "float16_vector":
        flat = np.frombuffer(field.vectors.float16_vector, "<f2").astype(np.float32)
    elif kind == "bfloat16_vector":
        halves = np.frombuffer(field.vectors.bfloat16_vector, "<u2")
        flat = (halves.astype("<u4") << 16).view("<f4")
    elif kind == "binary_vector":
        flat, dim = np.frombuffer(field.vectors.binary_vector, np.uint8), dim // 8
    else:
        raise UsageError(f"The field {field.field_name!r} was given {kind or 'no'} values, and it takes float vectors.")
    if dim < 1 or len(flat) % dim:
        raise DataError(f"The field {field.field_name!r} was given vectors that are empty or not all of one length.")
    return flat.reshape(-1, dim)


def packed(numbers: Any) -> F32:
    """The numbers of a ``FloatArray``: float32 (n,). Protobuf's own list would make a Python object of each."""
    count, raw = len(numbers.data), numbers.SerializeToString()
    return np.frombuffer(raw, "<f4", count, offset=len(raw) - 4 * count)


def float_arrays(arrays: Any) -> F32:
    """The rows of a column of equally long arrays of floats: float32 (n, d).

    Raises:
        DataError: If they are not equally long.
    """
    if not arrays.data:
        return np.empty((0, 0), np.float32)
    # rows of one length differ only in their numbers: the inverse of how they are written
    count, width = len(arrays.data), len(arrays.data[0].float_data.data)
    one = schema_pb2.ArrayArray(data=arrays.data[:1]).ByteSize()
    raw = arrays.SerializeToString()
    if len(raw) != one * count + schema_pb2.ArrayArray(element_type=arrays.element_type).ByteSize():
        raise DataError("The vectors that are kept in an array column are not all of one length.")
    rows = np.frombuffer(raw, np.uint8, one * count).reshape(count, one)
    return np.ascontiguousarray(rows[:, one - 4 * width :]).view("<f4")


def take(field: Any, rows: Sequence[int]) -> Any:
    """Some rows of a column, in the given order, as a column.

    Raises:
        UsageError: If the column is of a type that this gateway does not know.
    """
    taken = schema_pb2.FieldData()
    taken.type, taken.field_name, taken.field_id = field.type, field.field_name, field.field_id
    taken.is_dynamic = field.is_dynamic
    if field.valid_data:
        taken.valid_data.extend(field.valid_data[i] for i in rows)
    if field.WhichOneof("field") == "scalars":
        _take_scalars(field, taken, rows)
    elif field.WhichOneof("field") == "vectors":
        _take_vectors(field, taken, rows)
    else:
        raise UsageError(f"The field {field.field_name!r} is of a type that cannot be read through this index type.")
    return taken


def join(parts: Sequence[Any]) -> Any:
    """Parts of one column as one."""
    joined = schema_pb2.FieldData()
    joined.CopyFrom(parts[0])
    for part in parts[1:]:
        kind = part.vectors.WhichOneof("data") if part.WhichOneof("field") == "vectors" else None
        before = getattr(joined.vectors, kind) if kind in _FLAT_VECTORS else b""
        joined.MergeFrom(part)  # appends to every list, and replaces bytes
        if kind in _FLAT_VECTORS:
            setattr(joined.vectors, kind, before + getattr(part.vectors, kind))
    return joined


def _take_scalars(field: Any, taken: Any, rows: Sequence[int]) -> None:
    kind = field.scalars.WhichOneof("data")
    if kind is None:
        return
    source, target = getattr(field.scalars, kind), getattr(taken.scalars, kind)
    values, places = source.data, _places(field, len(source.data), rows)
    if kind == "array_data":
        target.element_type = source.element_type
    target.SetInParent()
    target.data.extend(values[i] for i in places)


def _take_vectors(field: Any, taken: Any, rows: Sequence[int]) -> None:
    kind, dim = field.vectors.WhichOneof("data"), field.vectors.dim
    taken.vectors.dim = dim
    if kind == "float_vector":
        flat = packed(field.vectors.float_vector).reshape(-1, dim)
        kept = flat[_places(field, len(flat), rows)]
        fill_field(taken, kept, FieldSpec(field.field_name, "FLOAT_VECTOR", 0), slice(None))
    elif kind == "sparse_float_vector":
        contents = field.vectors.sparse_float_vector.contents
        taken.vectors.sparse_float_vector.dim = field.vectors.sparse_float_vector.dim
        taken.vectors.sparse_float_vector.contents.extend(contents[i] for i in _places(field, len(contents), rows))
    elif kind in _FLAT_VECTORS:
        data, width = getattr(field.vectors, kind), int(dim * _FLAT_VECTORS[kind])
        places = _places(field, len(data) // width, rows)
        setattr(taken.vectors, kind, b"".join(data[i * width : (i + 1) * width] for i in places))
    elif kind is not None:
        raise UsageError(f"The field {field.field_name!r} is of a type that cannot be read through this index type.")


def _places(field: Any, held: int, rows: Sequence[int]) -> Sequence[int]:
    """Where rows lie in the values: a nullable column may hold only those that are there."""
    if held == len(field.valid_data) or not field.valid_data:
        return rows
    before = np.cumsum(np.array(field.valid_data)) - 1
    return [int(before[i]) for i in rows if field.valid_data[i]]


def float_vectors(name: str, values: F32, field_id: int = 0) -> Any:
    """Vectors (n, d) as a FLOAT_VECTOR column."""
    field = schema_pb2.FieldData(field_name=name, type=DataType.FLOAT_VECTOR, field_id=field_id)
    fill_field(field, values, FieldSpec(name, "FLOAT_VECTOR", 0), slice(None))
    return field
