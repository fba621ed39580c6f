"""The time that a gateway adds to one search."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

import alula
from alula import encoder_store
from benchmarks.loading.checking import count
from benchmarks.report import Report
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.gateway import GatewayProgram
from tools.servers.lite import LiteServer
from tools.servers.standalone import MilvusStandalone

TITLE = "what a gateway adds to a search"
ANSWERS = """\
The question: how much longer does one search take when a gateway stands before the server? One client, one search at a
time: 10 results with a field, among 20,000 rows of 50 numbers. Every query is searched in both ways, one right after
the other and which goes first changing, in one process; "added" is the median of the differences. An ordinary
collection is searched by pymilvus, directly and through the gateway, which passes the bytes on. An index type of
Alula's is searched by `alula.Collection.search`, and by pymilvus through the gateway, which does the same work in
another process; 100 candidates are re-ranked by their exact vectors. The gateway, the server and the client share two
cores. Consistency is "Eventually": a stronger one waits for the server's clock, up to a fifth of a second.
"""

SEED = 0
SEEDS = (SEED,)
TARGET = 1.5  # ms, of a search that passes
ROWS, QUICK_ROWS = 20_000, 3000
SEARCHES, QUICK_SEARCHES = 1000, 150
WARM_UP = 30
DIM = 50
K = 10
CANDIDATES = 100
FIELD = "embedding"
TABLE = "Milliseconds of a search"
Search = Callable[[np.ndarray], Sequence[Any]]


@dataclass(frozen=True)
class Pair:
    """A search without the gateway and with it.

    Args:
        what: The collection.
        passes: True if the gateway passes the bytes through.
        direct: Ids by the direct way.
        through: Ids by way of the gateway.
    """

    what: str
    passes: bool
    direct: Search
    through: Search


def measure(report: Report, *, quick: bool) -> None:
    """Search on both engines.

    Args:
        report: Gets the table and the targets.
        quick: Fewer rows and searches.
    """
    added: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        drq = write_drq(folder / "drq.onnx", input_dim=DIM, levels=8, sign_bits=128).path
        flops = write_flops(folder / "flops.onnx", input_dim=DIM, dim=1024, max_nnz=16).path
        with MilvusStandalone() as server:
            _engine(report, "Milvus 2.3.5", server.uri, {"DRQ": drq}, added, quick=quick)
        with LiteServer() as lite:
            kinds = {"FLOPS_SPARSE": flops, "DRQ": drq}
            _engine(report, "Milvus Lite 2.5", lite.uri, kinds, added, quick=quick)
    for engine, milliseconds in added.items():
        what = f"Latency: added to the median of a search that passes, {engine}, ms"
        report.at_most(what, milliseconds, TARGET)


def _engine(
    report: Report,
    engine: str,
    uri: str,
    kinds: Mapping[str, Path],
    added: dict[str, float],
    *,
    quick: bool,
) -> None:
    vectors = random_vectors(QUICK_ROWS if quick else ROWS, DIM, seed=SEED)
    queries = random_vectors(QUICK_SEARCHES if quick else SEARCHES, DIM, seed=SEED + 1)
    with alula.connect(uri) as server, GatewayProgram(uri) as gateway, _client(gateway.uri) as client:
        for pair in _pairs(server, client, kinds, vectors):
            milliseconds = _compare(pair, queries)
            direct, through = np.median(milliseconds, axis=0)
            more = float(np.median(milliseconds[:, 1] - milliseconds[:, 0]))
            report.row(
                TABLE,
                engine=engine,
                collection=pair.what,
                **{
                    "direct p50": float(direct),
                    "gateway p50": float(through),
                    "added": more,
                    "direct p95": float(np.quantile(milliseconds[:, 0], 0.95)),
                    "gateway p95": float(np.quantile(milliseconds[:, 1], 0.95)),
                },
            )
            if pair.passes:
                added[engine] = more


def _pairs(
    server: alula.Server, client: MilvusClient, kinds: Mapping[str, Path], vectors: np.ndarray
) -> Iterator[Pair]:
    yield _ordinary(server.client, client, vectors)
    for index_type, encoder in kinds.items():
        yield _custom(server, client, index_type, encoder, vectors)


def _ordinary(direct: MilvusClient, through: MilvusClient, vectors: np.ndarray) -> Pair:
    name = "ordinary"
    fill_ordinary(direct, name, vectors)
    return Pair("ordinary, FLAT", True, searcher(direct, name), searcher(through, name))


def fill_ordinary(direct: MilvusClient, name: str, vectors: np.ndarray) -> None:
    """A collection of vectors and years, without an index type of Alula."""
    schema = direct.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("year", DataType.INT64)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=DIM)
    index = direct.prepare_index_params()
    index.add_index(FIELD, index_type="FLAT", metric_type="COSINE")
    direct.create_collection(name, schema=schema, index_params=index, consistency_level="Eventually")
    for start in range(0, len(vectors), 2000):
        rows = enumerate(vectors[start : start + 2000].tolist(), start)
        direct.insert(name, [{"id": i, "year": 1900 + i % 100, FIELD: vector} for i, vector in rows])
    count(direct, name)  # a strongly consistent one: what it sees, all later searches do


def _custom(server: alula.Server, client: MilvusClient, index_type: str, encoder: Path, vectors: np.ndarray) -> Pair:
    name = index_type.lower()
    collection = filled(server, name, index_type, encoder, vectors)

    def direct(query: np.ndarray) -> Sequence[Any]:
        (hits,) = collection.search(
            query[None], limit=K, output_fields=["year"], consistency_level="Eventually", candidates=CANDIDATES
        )
        return [hit.id for hit in hits]

    return Pair(index_type, False, direct, searcher(client, name, candidates=CANDIDATES))


def filled(server: alula.Server, name: str, index_type: str, encoder: Path, vectors: np.ndarray) -> alula.Collection:
    """A collection of vectors and years, whose encoder has its name in the store."""
    encoder_store.push(server, encoder, name=name)
    collection = alula.Collection.create(
        server,
        name,
        encoder=encoder,
        index_type=index_type,
        columns=["year:INT64"],
        field=FIELD,
        consistency_level="Eventually",
    )
    collection.insert(vectors, {"id": range(len(vectors)), "year": [1900 + i % 100 for i in range(len(vectors))]})
    count(server.client, name)
    return collection


def searcher(client: MilvusClient, name: str, **params: Any) -> Search:
    """A search of one query by pymilvus: the ids of `K` results with a field."""

    def search(query: np.ndarray) -> Sequence[Any]:
        (hits,) = client.search(
            name,
            [query.tolist()],
            anns_field=FIELD,
            limit=K,
            output_fields=["year"],
            search_params={"metric_type": "COSINE", "params": params},
            consistency_level="Eventually",
        )
        return [hit["id"] for hit in hits]

    return search


def _compare(pair: Pair, queries: np.ndarray) -> np.ndarray:
    """Milliseconds of each query, directly and through the gateway: float (n, 2)."""
    ways = (pair.direct, pair.through)
    for query in queries[:WARM_UP]:
        found = [list(way(query)) for way in ways]
        if len(found[0]) != K or set(found[0]) != set(found[1]):
            raise AssertionError(f"{pair.what}: directly {found[0]}, through the gateway {found[1]}")
    milliseconds = np.empty((len(queries), 2))
    gc.disable()  # or it strikes one of them more than the other
    try:
        for number, query in enumerate(queries):
            for way in ((0, 1), (1, 0))[number % 2]:
                started = time.perf_counter()
                ways[way](query)
                milliseconds[number, way] = (time.perf_counter() - started) * 1e3
    finally:
        gc.enable()
    return milliseconds


@contextlib.contextmanager
def _client(uri: str) -> Iterator[MilvusClient]:
    client = MilvusClient(uri)
    try:
        yield client
    finally:
        client.close()
