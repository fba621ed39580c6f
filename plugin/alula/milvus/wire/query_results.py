"""Convert and compare the rows and hits that pymilvus returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from alula.milvus.wire.types import MILVUS_TYPE, TYPES
from alula.milvus.wire.vectors import F32, sparse_row


def to_arrow(rows: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    """The rows of a query as Arrow columns.

    Args:
        rows: The result of pymilvus's ``query``, not empty. It unpacks the vectors of a row into lists and dictionaries
            when the row is read; here they are taken from its flat copy.
        schema: The columns, vectors with their Milvus type in the metadata (`alula.milvus.wire.types.arrow_field`).
    """
    # the list's own iterator does not unpack the vectors; one pass over the rows, whatever the number of columns
    plain = list(list.__iter__(rows))
    values = dict(zip(plain[0], zip(*map(dict.values, plain), strict=True), strict=True))
    arrays = []
    for field in schema:
        data_type = (field.metadata or {}).get(MILVUS_TYPE, b"").decode()
        vectors = data_type.endswith("_VECTOR")
        arrays.append(_vectors(rows, field, data_type) if vectors else pa.array(values[field.name], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _vectors(rows: list[Any], field: pa.Field, data_type: str) -> pa.Array:
    flat, values = _flat(rows, field.name), (row[field.name] for row in rows)
    if data_type == "SPARSE_FLOAT_VECTOR":
        return pa.array(flat.sparse_float_vector.contents if flat else map(sparse_row, values), field.type)
    if data_type == "BINARY_VECTOR":
        content = flat.binary_vector if flat else _joined(list(values))
        return pa.FixedSizeBinaryArray.from_buffers(field.type, len(rows), [None, pa.py_buffer(content)])
    if flat and data_type == "FLOAT_VECTOR":
        numbers = np.array(flat.float_vector.data, np.float32)
    else:
        numbers = to_float32(list(values), data_type).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), field.type.list_size)


def _flat(rows: list[Any], name: str) -> Any:
    """The vectors of a field in Milvus's message; None if pymilvus has unpacked them."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == name:
            return data.vectors
    return None


def _joined(vectors: Sequence[Any]) -> bytes:
    return b"".join(map(_content, vectors))


def _content(vector: Any) -> Any:
    """The bytes of a vector, which pymilvus returns alone or in a list."""
    return vector[0] if isinstance(vector, list) else vector


def to_float32(vectors: Sequence[Any], data_type: str) -> F32:
    """Vectors of floats as float32 (n, d).

    Args:
        vectors: As pymilvus returns them: lists of numbers, or for half precision bytes, alone or in a list.
        data_type: Their type in Milvus.
    """
    if not isinstance(_content(vectors[0]), bytes):
        return np.array(vectors, np.float32)
    return TYPES[data_type].decode(_joined(vectors)).reshape(len(vectors), -1)


def hit_columns(hits: Any, names: Sequence[str]) -> dict[str, Any]:
    """The output fields of the hits of one query.

    Args:
        hits: The hits, as pymilvus's ``search`` returns them. Its own decoding makes a list of each vector; here they
            are taken from its flat copy.
        names: The fields.

    Returns:
        float32 (n, d) for vectors of floats, uint8 (n, bytes) for binary vectors, else an array (n,).
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        flat = next((d for d in getattr(hits, "lazy_field_data", ()) if d.field_name == name and d.vectors.dim), None)
        if flat is not None and flat.vectors.WhichOneof("data") == "binary_vector":
            width, start = flat.vectors.dim // 8, hits.start
            content = flat.vectors.binary_vector[start * width : (start + len(hits)) * width]
            columns[name] = np.frombuffer(content, np.uint8).reshape(len(hits), width)
        elif flat is not None:
            dim, start = flat.vectors.dim, hits.start
            values = flat.vectors.float_vector.data[start * dim : (start + len(hits)) * dim]
            columns[name] = np.array(values, np.float32).reshape(len(hits), dim)
        else:
            columns[name] = np.array([hit["entity"][name] for hit in hits])
    return columns


def same_value(stored: Any, column: Any, position: int, data_type: str) -> bool:
    """Compare a value that ``query`` returned with a written one, bit for bit.

    Args:
        stored: The value, None if the field is missing.
        column: The written column, as `alula.milvus.wire.field_data.write_column` takes it.
        position: The row in it.
        data_type: Their type in Milvus.
    """
    if stored is None:
        return False
    field_type = TYPES[data_type]
    if field_type.layout == "sparse":
        row: sp.csr_array = column[[position]]
        weights = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        return {int(dim): float(np.float32(weight)) for dim, weight in dict(stored).items()} == weights
    if field_type.layout == "array" or data_type == "FLOAT_VECTOR":
        return np.asarray(stored, np.float32).tobytes() == np.asarray(column[position], np.float32).tobytes()
    if field_type.layout == "dense":
        return bytes(_content(stored)) == field_type.encode(column[position])
    written = column[position]
    if data_type in ("FLOAT", "DOUBLE"):
        dtype = np.float32 if data_type == "FLOAT" else np.float64
        return bool(np.array_equal(dtype(stored), dtype(written), equal_nan=True))
    return bool(stored == written)
