"""Milvus's own index types, measured in temporary collections."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.catalog.schema import ScalarField
from alula.errors import ServerError
from alula.evaluation.ground_truth import Searcher
from alula.evaluation.native_types import NATIVE, Params
from alula.evaluation.row_source import F32, Key, RowSource
from alula.milvus import (
    Server,
    connect,
    load_collection,
    milvus_errors,
    send,
    slices,
    wait_for_indexes,
    write_request,
)
from alula.milvus.reading import count_rows
from alula.milvus.wire.types import field_spec
from alula.progress import Progress, silent

PREFIX = "alula_evaluate_"
_FIELD = "vector"
_INSERT_TIMEOUT = 60.0  # seconds
_DROP_TIMEOUT = 10.0  # seconds
BUILD_TIMEOUT = 600.0  # seconds


@dataclass(frozen=True)
class NativeCollection:
    """A collection with one of Milvus's own index types, loaded and searchable.

    Args:
        server: The server.
        name: Name of the collection.
        metric: The metric.
        params: Build parameters.
        seconds: Duration of writing the rows, building and loading the index.
    """

    server: Server
    name: str
    metric: str
    params: Params
    seconds: float

    def searcher(self, settings: Mapping[str, Any]) -> Searcher:
        """Return a function that searches with these parameters."""
        given = {"metric_type": self.metric, "params": dict(settings)}

        def search(queries: F32, limit: int) -> Sequence[Sequence[Key]]:
            with milvus_errors("search with its own index"):
                answers = self.server.client.search(
                    self.name, data=list(queries), anns_field=_FIELD, limit=limit, search_params=given
                )
            return [list(hits.ids) for hits in answers]

        return search


@contextmanager
def native_collection(
    server: Server,
    rows: RowSource,
    key: ScalarField,
    index_type: str,
    params: Params,
    *,
    metric: str,
    dim: int,
    count: int,
    build_timeout: float = BUILD_TIMEOUT,
    progress: Progress = silent,
) -> Iterator[NativeCollection]:
    """Load rows into a temporary collection with one of Milvus's index types.

    The collection is dropped at the end, after an error too.

    Args:
        server: The server.
        rows: The rows.
        key: Their primary key.
        index_type: A key of `NATIVE`.
        params: Build parameters that differ from the defaults.
        metric: ``COSINE``, ``IP`` or ``L2``.
        dim: Their dimension.
        count: Their number.
        build_timeout: Seconds to wait for the index.
        progress: Called with the number of rows written, then of rows indexed.

    Raises:
        ServerError: If the server rejects the index type, with its message, or does not build it in time.
    """
    name = f"{PREFIX}{index_type.lower()}_{uuid.uuid4().hex[:8]}"
    built = {**NATIVE[index_type].build(count, dim), **params}
    client, started = server.client, time.perf_counter()
    try:
        with milvus_errors(f"make a collection with {index_type}"):
            schema = client.create_schema(auto_id=False)
            length = {"max_length": key.max_length} if key.data_type == "VARCHAR" else {}
            schema.add_field(key.name, DataType[key.data_type], is_primary=True, **length)
            schema.add_field(_FIELD, DataType.FLOAT_VECTOR, dim=dim)
            client.create_collection(name, schema=schema)
            index = client.prepare_index_params()
            index.add_index(_FIELD, index_type=index_type, metric_type=metric, params=built)
            client.create_index(name, index, sync=False)  # before the rows, so that a rejected type costs no time
        specs = (field_spec(key.name, key.data_type), field_spec(_FIELD, "FLOAT_VECTOR", dim=dim))
        for keys, vectors in rows.blocks(progress, f"loading {index_type}"):
            columns = {key.name: np.array(keys) if key.data_type == "INT64" else keys, _FIELD: vectors}
            for start, stop in slices(columns, specs):
                with milvus_errors(f"write rows for {index_type}"):
                    send(
                        server,
                        write_request(name, columns, specs, start, stop, partition="", upsert=False),
                        _INSERT_TIMEOUT,
                    )
        with milvus_errors(f"build {index_type}"):
            wait_until_indexed(server, name, f"building {index_type}", build_timeout, progress)
        yield NativeCollection(server, name, metric, built, time.perf_counter() - started)
    finally:
        drop_quietly(server, name)


def wait_until_indexed(
    server: Server, name: str, stage: str, build_timeout: float, progress: Progress = silent
) -> None:
    """Wait until a server has indexed all rows of a collection, and load it.

    The collection is released before, so that no search reads rows without the index.

    Args:
        server: The server.
        name: Name of the collection.
        stage: The name of this step for `progress`.
        build_timeout: Seconds to wait.
        progress: Called with the number of rows indexed.

    Raises:
        ServerError: If building failed, or takes longer than `build_timeout` seconds.
    """
    if not server.dialect.flushes:
        load_collection(server, name)
        return
    server.client.flush(name)
    wait_for_indexes(
        server,
        name,
        build_timeout,
        remedy="raise build_timeout=..., the seconds to wait",
        stage=stage,
        progress=progress,
    )
    server.client.release_collection(name)
    load_collection(server, name)
    # searches with bounded consistency find all rows only after one with strong consistency
    count_rows(server, name)


def drop_quietly(server: Server, name: str) -> None:
    """Drop a temporary collection if it exists; ignore errors of the server."""
    failures = (MilvusException, grpc.RpcError, ServerError)
    try:
        server.client.drop_collection(name, timeout=_DROP_TIMEOUT)
    except failures:
        if server.dialect.embedded:  # Ctrl-C in a terminal ends the engine as well: restart it
            with contextlib.suppress(*failures):
                server.close()
                with connect(server.uri, must_exist=True) as again:
                    again.client.drop_collection(name)
