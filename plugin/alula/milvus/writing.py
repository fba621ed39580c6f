"""Rows as Milvus's own insert and upsert requests, built from whole columns.

pymilvus takes a list of dictionaries and looks at every value of every row. Built from columns, the same request takes
a fraction of the time (`make bench-load` measures it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2

from alula.errors import ServerError
from alula.index_types import Column, FieldSpec
from alula.milvus.connection import Server
from alula.milvus.pymilvus_internals import grpc_handler
from alula.milvus.wire.field_data import write_column

# Milvus refuses requests over 64 MB, and Milvus Lite 2.5 slows down 60-fold above 4 MB; about 1.5 MB was fastest.
REQUEST_BYTES = 1_500_000
Columns = Mapping[str, "Sequence[Any] | Column"]


def slices(columns: Columns, fields: Sequence[FieldSpec]) -> Iterator[tuple[int, int]]:
    """Spans of requests of about `REQUEST_BYTES`: (first row, row behind the last)."""
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
    if field.data_type in ("VARCHAR", "JSON"):
        return np.fromiter((4 + len(value or "") for value in column), np.int64, len(column))
    if isinstance(column, list) and field.data_type == "ARRAY":
        return np.fromiter(map(_list_bytes, column), np.int64, len(column))
    if sp.issparse(column):
        return 8 * np.diff(column.indptr)
    return max(1, field.bytes_per_row)


def _list_bytes(values: Sequence[Any] | None) -> int:
    return 8 + sum(8 + len(value) if isinstance(value, str) else 8 for value in values or ())


def write_request(
    name: str, columns: Columns, fields: Sequence[FieldSpec], start: int, stop: int, *, partition: str, upsert: bool
) -> Any:
    """Rows of columns as an ``InsertRequest`` or ``UpsertRequest`` of the protocol.

    Args:
        name: The collection.
        columns: For each field its column as `alula.milvus.wire.field_data.write_column` takes it.
        fields: The fields, the primary key among them.
        start: First row.
        stop: The row behind the last.
        partition: Partition to write to; "" for the default one.
        upsert: True to replace rows that have the same keys.

    Raises:
        ServerError: If a field's type cannot be written this way.
    """
    kind = milvus_pb2.UpsertRequest if upsert else milvus_pb2.InsertRequest
    request = kind(collection_name=name, partition_name=partition, num_rows=stop - start)
    for field in fields:
        data = request.fields_data.add(field_name=field.name, type=DataType[field.data_type])
        write_column(data, columns[field.name][start:stop], field)
    return request


def send(server: Server, request: Any, timeout: float) -> None:
    """Send a request of `write_request` once, until Milvus has acknowledged every row.

    pymilvus repeats a request by itself when a connection breaks, which doubles rows that had arrived; a call as a
    future is sent once.

    Args:
        server: The connected server.
        request: The request.
        timeout: Seconds until the call is given up; the rows may have been written then.

    Raises:
        MilvusException, grpc.RpcError: As they came.
        ServerError: If Milvus acknowledged another number of rows.
    """
    handler, context = grpc_handler(server)
    upsert = isinstance(request, milvus_pb2.UpsertRequest)
    call, name = (handler.upsert, "upsert_param") if upsert else (handler.batch_insert, "insert_param")
    given = {name: request, "schema": {"fields": []}, "_async": True, "timeout": timeout, **context}
    result = call(request.collection_name, [], **given).result(timeout=timeout)
    acknowledged = f"acknowledged {len(result.succ_index)} of {request.num_rows} rows"
    if result.err_count or (len(result.succ_index) and len(result.succ_index) != request.num_rows):
        raise ServerError(f"Milvus {acknowledged} written into {request.collection_name!r}.")
