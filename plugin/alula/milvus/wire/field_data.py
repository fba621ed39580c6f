"""The codec of ``FieldData``, Milvus's message for the values of one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.errors import DataError, ServerError, UsageError
from alula.index_types import FieldSpec
from alula.milvus.wire.types import DENSE_SLOTS, TYPES, FieldType
from alula.milvus.wire.vectors import F32, sparse_rows
from alula.sources.declared_types import DYNAMIC


def write_column(data: Any, column: Any, field: FieldSpec) -> None:
    """Write a column into an empty ``FieldData``.

    Args:
        data: The message.
        column: A list or array (n,) of scalars, JSON documents as bytes among these; lists, or float32 (n, d), for
            arrays; uint8 (n, bytes) for binary vectors; float32 (n, d) for vectors of floats; CSR for sparse vectors.
            None for no value of a nullable field.
        field: Its type.

    Raises:
        ServerError: If columns of this type cannot be written.
    """
    field_type = TYPES.get(field.data_type)
    if field_type is None:
        raise ServerError(f"Alula cannot write fields of the type {field.data_type} ({field.name!r}).")
    if field.params.get("nullable") or "default_value" in field.params:
        data.valid_data.extend(value is not None for value in column)
        column = [value for value in column if value is not None]
    if field_type.layout == "scalar":
        data.is_dynamic = field.name == DYNAMIC
        values = column.tolist() if hasattr(column, "tolist") else column
        getattr(data.scalars, field_type.slot).data.extend(values)
    elif field_type.layout == "array":
        _write_arrays(data.scalars.array_data, column, TYPES[field.params["element_type"]])
    elif field_type.layout == "sparse":
        data.vectors.dim = data.vectors.sparse_float_vector.dim = column.shape[1]
        data.vectors.sparse_float_vector.contents.extend(sparse_rows(column))
    else:
        _write_dense(data, column, field_type)


def _write_arrays(arrays: Any, column: Any, element: FieldType) -> None:
    if isinstance(column, np.ndarray):  # kept vectors
        arrays.MergeFromString(_float_arrays(np.ascontiguousarray(column, "<f4")))
    else:
        for values in column:
            slot = getattr(arrays.data.add(), element.slot)
            slot.SetInParent()
            slot.data.extend(values)
    arrays.element_type = element.number


def _write_dense(data: Any, column: Any, field_type: FieldType) -> None:
    data.vectors.dim = 8 * column.shape[1] if field_type.name == "BINARY_VECTOR" else column.shape[1]
    content = field_type.encode(column)
    if field_type.name == "FLOAT_VECTOR":
        data.vectors.float_vector.MergeFromString(_packed(content))
    else:
        setattr(data.vectors, field_type.slot, content)


def _packed(payload: bytes) -> bytes:
    """A protobuf message whose field 1 is a packed list with these bytes."""
    length, size = b"", len(payload)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x0a" + length + bytes([size]) + payload


def _float_arrays(rows: F32) -> bytes:
    """Rows (n, d) as a serialised ``ArrayArray``; they differ only in their numbers."""
    sample = schema_pb2.ArrayArray()
    sample.data.add().float_data.data.extend([0.0] * rows.shape[1])
    head = sample.SerializeToString()[: -4 * rows.shape[1]]
    out = np.empty((len(rows), len(head) + 4 * rows.shape[1]), np.uint8)
    out[:, : len(head)] = np.frombuffer(head, np.uint8)
    out[:, len(head) :] = rows.view(np.uint8)
    return out.tobytes()


def column(field: Any) -> Any:
    """Read a column.

    Returns:
        float32 (n, d) for vectors of floats and arrays of floats, uint8 (n, bytes) for binary vectors, an array (n,)
        for numbers and booleans, a list for all else.

    Raises:
        DataError: If the numbers make no vectors of one length.
    """
    if field.WhichOneof("field") == "vectors":
        return vectors(field)
    slot = field.scalars.WhichOneof("data")
    if slot is None:
        return []
    if slot == "array_data":
        return float_arrays(field.scalars.array_data)
    values = getattr(field.scalars, slot).data
    return list(values) if slot in ("string_data", "bytes_data", "json_data") else np.array(values)


def vectors(field: Any) -> Any:
    """The vectors of a column: float32 (n, d), or uint8 (n, bytes) for binary ones.

    Raises:
        DataError: If the numbers make no vectors of one length.
        UsageError: If they are vectors of another type.
    """
    slot, dim = field.vectors.WhichOneof("data"), field.vectors.dim
    field_type = DENSE_SLOTS.get(slot)
    if field_type is None or not (field_type.is_float or field_type.name == "BINARY_VECTOR"):
        raise UsageError(f"The field {field.field_name!r} was given {slot or 'no'} values, and it takes float vectors.")
    if field_type.name == "FLOAT_VECTOR":
        flat: Any = packed(field.vectors.float_vector)
    else:
        flat = field_type.decode(getattr(field.vectors, slot))
    width = dim if field_type.is_float else dim // 8
    if width < 1 or len(flat) % width:
        raise DataError(f"The field {field.field_name!r} was given vectors that are empty or not all of one length.")
    return flat.reshape(-1, width)


def packed(numbers: Any) -> F32:
    """The numbers of a ``FloatArray``: float32 (n,), without a Python object for each."""
    count, raw = len(numbers.data), numbers.SerializeToString()
    # a copy: in the message the numbers begin at any byte, and Arrow would keep them there
    copied: F32 = np.frombuffer(raw, "<f4", count, offset=len(raw) - 4 * count).copy()
    return copied


def float_arrays(arrays: Any) -> F32:
    """The rows of a column of equally long arrays of floats: float32 (n, d).

    Raises:
        DataError: If they are not equally long.
    """
    if not arrays.data:
        return np.empty((0, 0), np.float32)
    # the inverse of `_float_arrays`: rows of one length differ only in their numbers
    count, width = len(arrays.data), len(arrays.data[0].float_data.data)
    one = schema_pb2.ArrayArray(data=arrays.data[:1]).ByteSize()
    raw = arrays.SerializeToString()
    if len(raw) != one * count + schema_pb2.ArrayArray(element_type=arrays.element_type).ByteSize():
        raise DataError("The vectors in an array column are not all of one length.")
    rows = np.frombuffer(raw, np.uint8, one * count).reshape(count, one)
    return np.ascontiguousarray(rows[:, one - 4 * width :]).view("<f4")


def float_vectors(name: str, values: F32, field_id: int = 0) -> Any:
    """Vectors (n, d) as a FLOAT_VECTOR column."""
    field = schema_pb2.FieldData(field_name=name, type=DataType.FLOAT_VECTOR, field_id=field_id)
    _write_dense(field, values, TYPES["FLOAT_VECTOR"])
    return field


def take(field: Any, rows: Sequence[int]) -> Any:
    """Some rows of a column, in the given order, as a column.

    Raises:
        UsageError: If columns of its type cannot be reordered.
    """
    taken = schema_pb2.FieldData()
    taken.type, taken.field_name, taken.field_id = field.type, field.field_name, field.field_id
    taken.is_dynamic = field.is_dynamic
    valid = _validity(field)
    taken.valid_data.extend(valid[i] for i in rows if valid)
    if field.WhichOneof("field") == "scalars":
        _take_scalars(field, taken, rows)
    elif field.WhichOneof("field") == "vectors":
        _take_vectors(field, taken, rows)
    else:
        raise UsageError(f"The field {field.field_name!r} is of a type that cannot be read through this index type.")
    return taken


def join(parts: Sequence[Any]) -> Any:
    """Concatenate parts of one column."""
    joined = schema_pb2.FieldData()
    joined.CopyFrom(parts[0])
    for part in parts[1:]:
        slot = part.vectors.WhichOneof("data") if part.WhichOneof("field") == "vectors" else ""
        in_bytes = slot in DENSE_SLOTS and slot != "float_vector"
        before = getattr(joined.vectors, slot) if in_bytes else b""
        joined.MergeFrom(part)  # appends to every list, and replaces bytes
        if in_bytes:
            setattr(joined.vectors, slot, before + getattr(part.vectors, slot))
    return joined


def _take_scalars(field: Any, taken: Any, rows: Sequence[int]) -> None:
    slot = field.scalars.WhichOneof("data")
    if slot is None:
        return
    source, target = getattr(field.scalars, slot), getattr(taken.scalars, slot)
    values, places = source.data, _places(field, len(source.data), rows)
    if slot == "array_data":
        target.element_type = source.element_type
    target.SetInParent()
    target.data.extend(values[i] for i in places)


def _take_vectors(field: Any, taken: Any, rows: Sequence[int]) -> None:
    slot, dim = field.vectors.WhichOneof("data"), field.vectors.dim
    taken.vectors.dim = dim
    if slot == "float_vector":
        flat = packed(field.vectors.float_vector).reshape(-1, dim)
        _write_dense(taken, flat[_places(field, len(flat), rows)], TYPES["FLOAT_VECTOR"])
    elif slot == "sparse_float_vector":
        contents = field.vectors.sparse_float_vector.contents
        taken.vectors.sparse_float_vector.dim = field.vectors.sparse_float_vector.dim
        taken.vectors.sparse_float_vector.contents.extend(contents[i] for i in _places(field, len(contents), rows))
    elif slot in DENSE_SLOTS:
        data, width = getattr(field.vectors, slot), DENSE_SLOTS[slot].bytes_per_row(dim)
        places = _places(field, len(data) // width, rows)
        setattr(taken.vectors, slot, b"".join(data[i * width : (i + 1) * width] for i in places))
    elif slot is not None:
        raise UsageError(f"The field {field.field_name!r} is of a type that cannot be read through this index type.")


def _places(field: Any, count: int, rows: Sequence[int]) -> Sequence[int]:
    """Positions of rows among `count` values; a nullable column may leave nulls out."""
    valid = _validity(field)
    if len(valid) in (0, count):
        return rows
    before = np.cumsum(np.array(valid)) - 1
    return [int(before[i]) for i in rows if valid[i]]


def _validity(field: Any) -> Sequence[bool]:
    """Which rows of a column have a value; empty if all have.

    Milvus's protocol of August 2026 has it beside the values too, by the same name; until only old versions are left,
    servers write both.
    """
    slot = field.WhichOneof("field")
    values = getattr(field, slot) if slot else field
    valid: Sequence[bool] = field.valid_data or getattr(values, "valid_data", ())
    if not valid and len(UnknownFieldSet(values)):
        raise UsageError(
            f"The values of {field.field_name!r} come with a part that is newer than this version of pymilvus, and may "
            "say which of them are null; update pymilvus and Alula, or leave the field out."
        )
    return valid
