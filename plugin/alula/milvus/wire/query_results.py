"""Convert and compare the rows and hits that pymilvus returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from alula.milvus.wire.field_data import packed, vectors
from alula.milvus.wire.types import MILVUS_TYPE, TYPES
from alula.milvus.wire.vectors import F32, sparse_row
from alula.sources.declared_types import DYNAMIC
from alula.sources.json_values import json_text


def to_arrow(rows: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    """The rows of a query as Arrow columns.

    Args:
        rows: The result of pymilvus's ``query``, not empty. It unpacks the vectors of a row into lists and dictionaries
            when the row is read; here they are taken from its flat copy.
        schema: The columns, vectors and JSON with their Milvus type in the metadata
            (`alula.milvus.wire.types.arrow_field`).
    """
    # the list's own iterator does not unpack the vectors; one pass over the rows, whatever the number of columns
    plain = list(list.__iter__(rows))
    values = dict(zip(plain[0], zip(*map(dict.values, plain), strict=True), strict=True))
    arrays = []
    for field in schema:
        data_type = (field.metadata or {}).get(MILVUS_TYPE, b"").decode()
        if data_type.endswith("_VECTOR"):
            arrays.append(_vectors(rows, field, data_type))
        else:
            found = _documents(rows, field.name) if data_type == "JSON" else values[field.name]
            arrays.append(pa.array(found, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _vectors(rows: list[Any], field: pa.Field, data_type: str) -> pa.Array:
    flat, values = _flat(rows, field.name), (row[field.name] for row in rows)
    if data_type == "SPARSE_FLOAT_VECTOR":
        return pa.array(flat.sparse_float_vector.contents if flat else map(sparse_row, values), field.type)
    if data_type == "BINARY_VECTOR":
        content = flat.binary_vector if flat else _joined(list(values))
        return pa.FixedSizeBinaryArray.from_buffers(field.type, len(rows), [None, pa.py_buffer(content)])
    if flat and data_type == "FLOAT_VECTOR":
        numbers = packed(flat.float_vector)
    else:
        numbers = to_float32(list(values), data_type).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), field.type.list_size)


def _documents(rows: list[Any], name: str) -> list[bytes | None]:
    """The JSON documents of a field, as Milvus has them."""
    data = _data(rows, name)
    if data is None:
        return [json_text(row[name]).encode() for row in rows]
    documents = list(data.scalars.json_data.data)
    valid = list(data.valid_data) or [True] * len(rows)
    if len(documents) == len(rows):
        return [document if there else None for document, there in zip(documents, valid, strict=True)]
    rest = iter(documents)
    return [next(rest) if there else None for there in valid]


def _flat(rows: list[Any], name: str) -> Any:
    """The vectors of a field in Milvus's message; None if pymilvus has unpacked them."""
    data = _data(rows, name)
    return None if data is None else data.vectors


def _data(rows: list[Any], name: str) -> Any:
    """The part of Milvus's message that pymilvus has not unpacked; None if it has."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == name or (name == DYNAMIC and data.is_dynamic):
            return data
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


def hit_columns(answers: Sequence[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """The output fields of the hits of each query.

    Args:
        answers: The hits of each query, as pymilvus's ``search`` returns them. Its own decoding makes a list of each
            vector; here they are taken from its flat copy.
        names: The fields.

    Returns:
        For each query float32 (n, d) for vectors of floats, uint8 (n, bytes) for binary vectors, else an array (n,).
    """
    of_all = {name: vectors(data) for name in names if (data := _data_of_hits(answers, name)) is not None}
    return [
        {
            name: of_all[name][hits.start : hits.start + len(hits)]
            if name in of_all
            else np.array([hit["entity"][name] for hit in hits])
            for name in names
        }
        for hits in answers
    ]


def _data_of_hits(answers: Sequence[Any], name: str) -> Any:
    """The vectors of all hits in Milvus's message; None if pymilvus has unpacked them."""
    lazy = (data for hits in answers[:1] for data in getattr(hits, "lazy_field_data", ()))
    return next((data for data in lazy if data.field_name == name and data.vectors.dim), None)


def _as_read(digits: str) -> int | float:
    """An integer of JSON as pymilvus reads it: a float beyond 64 bits."""
    number = int(digits)
    return number if -(1 << 63) <= number < 1 << 64 else float(digits)


def same_value(stored: Any, column: Any, position: int, data_type: str) -> bool:
    """Compare a value that ``query`` returned with a written one, bit for bit.

    Args:
        stored: The value, None if the field is missing.
        column: The written column, as `alula.milvus.wire.field_data.write_column` takes it.
        position: The row in it.
        data_type: Their type in Milvus.
    """
    field_type = TYPES[data_type]
    if field_type.layout == "sparse":
        row: sp.csr_array = column[[position]]
        weights = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        return {int(dim): float(np.float32(weight)) for dim, weight in dict(stored or {}).items()} == weights
    written = column[position]
    if stored is None or written is None:
        return stored is None and written is None
    if field_type.layout in ("dense", "array") and not isinstance(written, list):
        if field_type.layout == "array" or data_type == "FLOAT_VECTOR":
            return np.asarray(stored, np.float32).tobytes() == np.asarray(written, np.float32).tobytes()
        return bytes(_content(stored)) == field_type.encode(written)
    return _same_scalar(stored, written, data_type)


def _same_scalar(stored: Any, written: Any, data_type: str) -> bool:
    if data_type == "JSON":
        return bool(stored == json.loads(written, parse_int=_as_read))
    if data_type == "ARRAY":
        return repr(list(stored)) == repr(written)  # two NaN are equal
    if data_type in ("FLOAT", "DOUBLE"):
        dtype = np.float32 if data_type == "FLOAT" else np.float64
        return bool(np.array_equal(dtype(stored), dtype(written), equal_nan=True))
    return bool(stored == written)
