"""Milvus's own index types on the same vectors and the same server, in collections that are gone afterwards."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.catalog.schema import ScalarField
from alula.errors import ServerError, UsageError
from alula.evaluation.ground_truth import Searcher
from alula.evaluation.row_source import F32, Key, RowSource
from alula.evaluation.settings import Settings
from alula.evaluation.sizes import Sizes
from alula.milvus import Server, connect, milvus_errors, send, slices, write_request
from alula.milvus.reading import count_rows
from alula.milvus.wire.types import field_spec
from alula.progress import Progress, silent

PREFIX = "alula_evaluate_"
_FIELD = "vector"
_SECONDS = 60.0  # for one insert
_DROP_SECONDS = 10.0
PATIENCE = 600.0  # seconds
Params = dict[str, Any]


@dataclass(frozen=True)
class NativeType:
    """One of Milvus's own index types.

    Args:
        build: (rows, dim) -> its build parameters.
        sweep: (build parameters, results per query) -> search parameters to try, from fast to good.
        sizes: (rows, dim, build parameters) -> its bytes per row.
    """

    build: Callable[[int, int], Params]
    sweep: Callable[[Params, int], list[Settings]]
    sizes: Callable[[int, int, Params], Sizes]


def _nlist(rows: int, _: int) -> Params:
    return {"nlist": int(min(65536, max(1, 4 * rows**0.5)))}


def _pq(rows: int, dim: int) -> Params:
    # about two to four numbers in a byte: what Milvus's own documents start from
    parts = next(m for m in (dim // 4, dim // 2, dim) if m and dim % m == 0)
    return {**_nlist(rows, dim), "m": parts, "nbits": 8}


def _probes(params: Params, _: int) -> list[Settings]:
    most = int(params["nlist"])
    return [{"nprobe": n} for n in (1, 4, 8, 16, 32, 64, 128, 256) if n <= most]


def _ef(_: Params, limit: int) -> list[Settings]:
    return [{"ef": ef} for ef in sorted({max(ef, limit) for ef in (16, 32, 64, 128, 256, 512)})]


def _flat_sizes(_: int, dim: int, __: Params) -> Sizes:
    return Sizes({"vectors": 4 * dim})


def _hnsw_sizes(_: int, dim: int, params: Params) -> Sizes:
    links = int(params["M"])
    # 2 M neighbours and their count on the lowest level; M on each of the 1 / (M - 1) levels that a row has above it
    return Sizes({"vectors": 4 * dim, "graph": 4 * (2 * links + 1) + 4 * (links + 1) / max(1, links - 1)})


def _ivf_sizes(bytes_per_row: Callable[[int, Params], float]) -> Callable[[int, int, Params], Sizes]:
    def sizes(rows: int, dim: int, params: Params) -> Sizes:
        tables = 4 * dim * int(params["nlist"]) / max(1, rows)
        if "nbits" in params:
            tables += 4 * dim * 2 ** int(params["nbits"]) / max(1, rows)
        return Sizes({"vectors": bytes_per_row(dim, params), "ids": 8, "centroids": tables})

    return sizes


def _diskann_sizes(_: int, dim: int, __: Params) -> Sizes:
    note = "DISKANN: by Milvus's default PQCodeBudgetGBRatio of 0.125 and 56 neighbours"
    return Sizes({"codes": 4 * dim * 0.125}, {"vectors": 4 * dim, "graph": 4 * 57}, note)


NATIVE: Mapping[str, NativeType] = {
    "FLAT": NativeType(lambda _, __: {}, lambda _, __: [{}], _flat_sizes),
    "HNSW": NativeType(lambda _, __: {"M": 16, "efConstruction": 200}, _ef, _hnsw_sizes),
    "IVF_FLAT": NativeType(_nlist, _probes, _ivf_sizes(lambda dim, _: 4 * dim)),
    "IVF_SQ8": NativeType(_nlist, _probes, _ivf_sizes(lambda dim, _: dim)),
    "IVF_PQ": NativeType(_pq, _probes, _ivf_sizes(lambda _, p: int(p["m"]) * int(p["nbits"]) / 8)),
    "SCANN": NativeType(_nlist, _probes, _ivf_sizes(lambda dim, _: 4 * dim + dim / 4)),
    "DISKANN": NativeType(
        lambda _, __: {},
        lambda _, limit: [{"search_list": n} for n in sorted({max(n, limit) for n in (16, 32, 64, 128, 256)})],
        _diskann_sizes,
    ),
}


def parse_native(text: str) -> tuple[str, Params]:
    """Read ``HNSW`` or, with build parameters, ``HNSW:M=32:efConstruction=400``.

    Raises:
        UsageError: If there is no such index type, or a parameter has no number.
    """
    name, *given = text.strip().split(":")
    name = name.upper()
    if name not in NATIVE:
        raise UsageError(f"{text!r} is none of Milvus's index types that can be compared: {', '.join(NATIVE)}.")
    params: Params = {}
    for pair in given:
        key, _, value = pair.partition("=")
        if not key or not value.isdecimal() or not int(value):
            raise UsageError(
                f"{pair!r} in {text!r} is not a build parameter NAME=NUMBER with a number from 1 on, e.g. HNSW:M=32."
            )
        params[key] = int(value)
    return name, params


@dataclass(frozen=True)
class NativeCollection:
    """A collection with one of Milvus's own index types, loaded and searchable.

    Args:
        server: Where.
        name: The collection.
        metric: The metric.
        params: Its build parameters.
        seconds: Time for writing the rows, building and loading.
    """

    server: Server
    name: str
    metric: str
    params: Params
    seconds: float

    def searcher(self, settings: Mapping[str, Any]) -> Searcher:
        """Searches with these search parameters."""
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
    patience: float = PATIENCE,
    progress: Progress = silent,
) -> Iterator[NativeCollection]:
    """Rows in a collection with one of Milvus's own index types, dropped at the end in any case.

    Args:
        server: Where.
        rows: The rows.
        key: Their primary key.
        index_type: A key of `NATIVE`.
        params: Build parameters that differ from the defaults.
        metric: ``COSINE``, ``IP`` or ``L2``.
        dim: Their dimension.
        count: Their number.
        patience: Seconds to wait for the index.
        progress: Told of the rows written.

    Raises:
        ServerError: If the server refuses the index type; in its own words.
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
            client.create_index(name, index, sync=False)  # before the rows: what a server refuses costs no time
        specs = (field_spec(key.name, key.data_type), field_spec(_FIELD, "FLOAT_VECTOR", dim=dim))
        for keys, vectors in rows.blocks(progress, f"loading {index_type}"):
            held = {key.name: np.array(keys) if key.data_type == "INT64" else keys, _FIELD: vectors}
            for start, stop in slices(held, specs):
                with milvus_errors(f"write rows for {index_type}"):
                    send(server, write_request(name, held, specs, start, stop, partition="", upsert=False), _SECONDS)
        with milvus_errors(f"build {index_type}"):
            settle(server, name, f"building {index_type}", patience, progress)
        yield NativeCollection(server, name, metric, built, time.perf_counter() - started)
    finally:
        drop_quietly(server, name)


def settle(server: Server, name: str, what: str, patience: float, progress: Progress = silent) -> None:
    """Wait until a server has indexed all rows of a collection, and load it so that no search reads unindexed ones.

    Raises:
        ServerError: If building failed, or takes longer than `patience` seconds.
    """
    if not server.dialect.flushes:
        server.client.load_collection(name)
        return
    server.client.flush(name)
    deadline = time.monotonic() + patience
    while True:
        with milvus_errors("ask how far the index is"):
            states = [server.client.describe_index(name, index) for index in server.client.list_indexes(name)]
        waiting = sum(int(state.get("pending_index_rows", 0)) for state in states)
        total = sum(int(state.get("total_rows", 0)) for state in states)
        failed = next((state for state in states if state.get("state") == "Failed"), None)
        if failed is not None:
            why = failed.get("index_state_fail_reason") or failed.get("reason") or "no reason given"
            raise ServerError(f"Milvus could not build the index: {why}.")
        progress(what, total - waiting, total)
        if waiting == 0:
            break
        if time.monotonic() > deadline:
            raise ServerError(
                f"Milvus has not built the index in {patience:g} seconds, and {waiting:,} rows are not indexed; raise "
                "patience=..., the seconds to wait."
            )
        time.sleep(0.2)
    server.client.release_collection(name)
    server.client.load_collection(name)
    # a search that may read old states finds all rows only after one that may not
    count_rows(server, name)


def drop_quietly(server: Server, name: str) -> None:
    """Drop a temporary collection if it is there, whatever happens."""
    failures = (MilvusException, grpc.RpcError, ServerError)
    try:
        server.client.drop_collection(name, timeout=_DROP_SECONDS)
    except failures:
        if server.dialect.embedded:  # Ctrl-C in a terminal ends the engine as well: start it once more
            with contextlib.suppress(*failures):
                server.close()
                with connect(server.uri, must_exist=True) as again:
                    again.client.drop_collection(name)
