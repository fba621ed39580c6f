"""Rows as Milvus's own insert and upsert requests, built from whole columns.

pymilvus takes a list of dictionaries and looks at every value of every row. Built from columns, the same request takes
a fraction of the time (`make bench-load` measures it).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from alula.errors import ServerError
from alula.index_types import Column, FieldSpec
from alula.milvus.connection import Server

# Milvus refuses requests over 64 MB, and Milvus Lite 2.5 slows down 60-fold above 4 MB; about 1.5 MB was fastest.
REQUEST_BYTES = 1_500_000
Columns = Mapping[str, "Sequence[Any] | Column"]

_SCALARS = {
    "BOOL": "bool_data",
    "INT8": "int_data",
    "INT16": "int_data",
    "INT32": "int_data",
    "INT64": "long_data",
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "VARCHAR": "string_data",
}


def slices(columns: Columns, fields: Sequence[FieldSpec]) -> Iterator[tuple[int, int]]:
    """Where to cut rows into requests of about `REQUEST_BYTES`: (first row, row behind the last)."""
    sizes = np.zeros(len(columns[fields[0].name]) if fields else 0, np.int64)
    for field in fields:
        sizes += _bytes_per_row(columns[field.name], field)
    bounds = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = bounds[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(bounds, before + REQUEST_BYTES, side="right")))
        yield start, stop
        start = stop


def _bytes_per_row(column: Any, field: FieldSpec) -> Any:
    if field.data_type == "VARCHAR":
        return np.fromiter((4 + len(value) for value in column), np.int64, len(column))
    if sp.issparse(column):
        return 8 * np.diff(column.indptr)
    return max(1, field.bytes_per_row)


def write_request(
    name: str, columns: Columns, fields: Sequence[FieldSpec], start: int, stop: int, *, partition: str, upsert: bool
) -> Any:
    """Rows of columns as an ``InsertRequest`` or ``UpsertRequest`` of Milvus's protocol.

    Args:
        name: The collection.
        columns: For each field a list or array (n,), uint8 (n, bytes) for binary vectors, float32 (n, d) for vectors
            and arrays of floats, CSR for sparse vectors.
        fields: The fields, the primary key among them.
        start: First row.
        stop: The row behind the last.
        partition: Partition to write to; "" for the default one.
        upsert: Whether rows may be there already, to be replaced.

    Raises:
        ServerError: If a field's type cannot be written this way.
    """
    kind = milvus_pb2.UpsertRequest if upsert else milvus_pb2.InsertRequest
    request = kind(collection_name=name, partition_name=partition, num_rows=stop - start)
    for field in fields:
        data = request.fields_data.add(field_name=field.name, type=DataType[field.data_type])
        fill_field(data, columns[field.name], field, slice(start, stop))
    return request


def fill_field(data: Any, column: Any, field: FieldSpec, part: slice) -> None:
    """Write some rows of a column into an empty ``FieldData``; arguments and errors as `write_request`."""
    kind = field.data_type
    if kind in _SCALARS:
        values = column[part]
        getattr(data.scalars, _SCALARS[kind]).data.extend(values.tolist() if hasattr(values, "tolist") else values)
    elif kind == "BINARY_VECTOR":
        data.vectors.dim = 8 * column.shape[1]
        data.vectors.binary_vector = np.ascontiguousarray(column[part]).tobytes()
    elif kind == "FLOAT_VECTOR":
        data.vectors.dim = column.shape[1]
        data.vectors.float_vector.MergeFromString(_packed(np.ascontiguousarray(column[part], "<f4").tobytes()))
    elif kind == "SPARSE_FLOAT_VECTOR":
        rows = column[part]
        data.vectors.dim = data.vectors.sparse_float_vector.dim = rows.shape[1]
        data.vectors.sparse_float_vector.contents.extend(_sparse_rows(rows))
    elif kind == "ARRAY" and field.params.get("element_type") == "FLOAT":
        data.scalars.array_data.MergeFromString(_float_arrays(np.ascontiguousarray(column[part], "<f4")))
        data.scalars.array_data.element_type = DataType.FLOAT
    else:
        raise ServerError(f"Alula cannot write fields of the type {kind} ({field.name!r}).")


def _sparse_rows(rows: Any) -> Iterator[bytes]:
    """Each row as Milvus has it: pairs of uint32 dimension and float32 weight."""
    pairs = np.empty(rows.nnz, [("dim", "<u4"), ("weight", "<f4")])
    pairs["dim"], pairs["weight"] = rows.indices, rows.data
    flat = pairs.tobytes()
    bounds = (8 * rows.indptr).tolist()
    return (flat[a:b] for a, b in itertools.pairwise(bounds))


def _packed(payload: bytes) -> bytes:
    """A protobuf message whose field 1 is a packed list with these bytes."""
    length, size = b"", len(payload)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x0a" + length + bytes([size]) + payload


def _float_arrays(rows: Any) -> bytes:
    """Rows (n, d) as a serialised ``ArrayArray``: all are of one length, so they differ only in their numbers."""
    sample = schema_pb2.ArrayArray()
    sample.data.add().float_data.data.extend([0.0] * rows.shape[1])
    head = sample.SerializeToString()[: -4 * rows.shape[1]]
    out = np.empty((len(rows), len(head) + 4 * rows.shape[1]), np.uint8)
    out[:, : len(head)] = np.frombuffer(head, np.uint8)
    out[:, len(head) :] = rows.view(np.uint8)
    return out.tobytes()


def send(server: Server, request: Any, timeout: float) -> None:
    """Send a request of `write_request` once, and return when Milvus has acknowledged every row of it.

    pymilvus sends a request again by itself when a connection breaks, which doubles rows that had arrived; a call given
    as a future is sent once.

    Args:
        server: Where.
        request: The request.
        timeout: Seconds until the call is given up; whether the rows were written is then not known.

    Raises:
        MilvusException, grpc.RpcError: As they came.
        ServerError: If Milvus acknowledged another number of rows.
    """
    handler = server.client._get_connection()
    context = {}
    if hasattr(server.client, "_generate_call_context"):  # pymilvus 3
        context["context"] = server.client._generate_call_context()
    upsert = isinstance(request, milvus_pb2.UpsertRequest)
    call, name = (handler.upsert, "upsert_param") if upsert else (handler.batch_insert, "insert_param")
    given = {name: request, "schema": {"fields": []}, "_async": True, "timeout": timeout, **context}
    result = call(request.collection_name, [], **given).result(timeout=timeout)
    wrong = f"acknowledged {len(result.succ_index)} of {request.num_rows} rows"
    if result.err_count or (len(result.succ_index) and len(result.succ_index) != request.num_rows):
        raise ServerError(f"Milvus {wrong} written into {request.collection_name!r}.")
