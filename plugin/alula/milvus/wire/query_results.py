"""Rows as pymilvus answers a query with them, as Arrow columns.

Not imported by the package: whoever reads files alone needs no Milvus client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.catalog.schema import ARROW_TYPES
from alula.index_types import FieldSpec

MILVUS_TYPE = b"milvus"  # of a field, in the metadata of its column
SPARSE_PAIR = np.dtype([("dim", "<u4"), ("weight", "<f4")])  # a non-zero of a sparse vector, as Milvus has it


def arrow_field(spec: FieldSpec) -> pa.Field:
    """The column for a field that Alula made: a binary vector is its bytes, a sparse one those of its `SPARSE_PAIR`."""
    if spec.data_type == "BINARY_VECTOR":
        kind = pa.binary(spec.params["dim"] // 8)
    elif spec.data_type == "FLOAT_VECTOR":
        kind = pa.list_(pa.float32(), spec.params["dim"])
    else:
        others = {"SPARSE_FLOAT_VECTOR": pa.binary(), "ARRAY": pa.list_(pa.float32())}
        kind = {**ARROW_TYPES, **others}[spec.data_type]
    return pa.field(spec.name, kind, metadata={MILVUS_TYPE: spec.data_type})


def answered(rows: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    """An answer's rows.

    Args:
        rows: What pymilvus's ``query`` returned, not empty. It unpacks the vectors of a row into lists and dictionaries
            when the row is looked at; they are taken from where it has them flat.
        schema: The columns, with Milvus's type in the metadata of those that hold vectors.
    """
    # the list's own iterator does not unpack the vectors; one pass over the rows, whatever the number of columns
    plain = list(list.__iter__(rows))
    values = dict(zip(plain[0], zip(*map(dict.values, plain), strict=True), strict=True))
    arrays = []
    for field in schema:
        kind = (field.metadata or {}).get(MILVUS_TYPE, b"").decode()
        vectors = kind.endswith("_VECTOR")
        arrays.append(_vectors(rows, field, kind) if vectors else pa.array(values[field.name], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _vectors(rows: list[Any], field: pa.Field, kind: str) -> pa.Array:
    flat = _flat(rows, field.name)
    if kind == "SPARSE_FLOAT_VECTOR":
        return pa.array(flat.sparse_float_vector.contents if flat else map(_pairs, _values(rows, field)), field.type)
    if kind == "BINARY_VECTOR":
        content = flat.binary_vector if flat else _joined(_values(rows, field))
        return pa.FixedSizeBinaryArray.from_buffers(field.type, len(rows), [None, pa.py_buffer(content)])
    if flat and kind == "FLOAT_VECTOR":
        numbers = np.array(flat.float_vector.data, np.float32)
    else:
        numbers = to_float32(_values(rows, field), kind).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), field.type.list_size)


def _flat(rows: list[Any], name: str) -> Any:
    """The vectors of a field in Milvus's own message; None where pymilvus has unpacked them already."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == name:
            return data.vectors
    return None


def _values(rows: list[Any], field: pa.Field) -> list[Any]:
    return [row[field.name] for row in rows]


def _pairs(row: Any) -> bytes:
    return np.array(list(row.items()), SPARSE_PAIR).tobytes()


def _joined(vectors: Sequence[Any]) -> bytes:
    return b"".join(vector[0] if isinstance(vector, list) else vector for vector in vectors)


def to_float32(vectors: Sequence[Any], kind: str) -> npt.NDArray[np.float32]:
    """Vectors as pymilvus gives them as float32 (n, d).

    Args:
        vectors: Lists of numbers, or for half precision bytes, alone or in a list.
        kind: Their type in Milvus. The bytes of a BFLOAT16 are the upper half of a float32's.
    """
    first = vectors[0][0] if isinstance(vectors[0], list) else vectors[0]
    if not isinstance(first, bytes):
        return np.array(vectors, np.float32)
    content = _joined(vectors)
    if kind == "FLOAT16_VECTOR":
        numbers = np.frombuffer(content, "<f2").astype(np.float32)
    else:
        numbers = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return numbers.reshape(len(vectors), -1)
