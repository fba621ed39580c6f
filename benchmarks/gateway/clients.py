"""Searches per second of Go and of Python clients, through the gateway."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2

import alula
from benchmarks.gateway.latency import DIM, FIELD, K, fill_ordinary, filled
from benchmarks.gateway.pressure import SEARCH, press
from benchmarks.report import Report
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.gateway import GatewayProgram
from tools.servers.go_client import GoClient
from tools.servers.lite import LiteServer
from tools.servers.standalone import MilvusStandalone

TITLE = "searches per second by two kinds of clients"
ANSWERS = """\
The question: does the gateway serve clients of another language as it serves Python's? Milvus's Go SDK 2.5.4, in the
load generator k6, and Python programs that send the bytes of one search take turns; each client has a connection and
one search under way: 10 results from 5,000 rows of 50 numbers. A Go client decodes its answers, and a Python one only
counts them. Milliseconds are those of a Go client. Clients, gateway and server share two cores. Medians of the
rounds.
"""

SEED = 0
SEEDS = (SEED,)
ROWS = 5000
CLIENTS = (1, 4)
SECONDS, QUICK_SECONDS = 10.0, 3.0
ROUNDS, QUICK_ROUNDS = 3, 1
TABLE = "Searches per second"


@dataclass(frozen=True)
class Searched:
    """A collection, and the way to it.

    Args:
        way: The engine, and the gateway if it stands before it.
        uri: The address to search at.
        name: The collection.
        query: float32 (1, d).
    """

    way: str
    uri: str
    name: str
    query: np.ndarray


def measure(report: Report, *, quick: bool) -> None:
    """Search on both engines.

    Args:
        report: Gets the table and the target.
        quick: Shorter rounds, and fewer.
    """
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        encoders = {
            "DRQ": write_drq(folder / "drq.onnx", input_dim=DIM, levels=8, sign_bits=128).path,
            "FLOPS_SPARSE": write_flops(folder / "flops.onnx", input_dim=DIM, dim=1024, max_nnz=16).path,
        }
        with MilvusStandalone() as server:
            for searched in _collections("Milvus 2.3.5", server.uri, {"DRQ": encoders["DRQ"]}):
                failed += _compare(report, searched, quick=quick)
        with LiteServer() as lite:
            for searched in _collections("Milvus Lite 2.5", lite.uri, encoders):
                failed += _compare(report, searched, quick=quick)
    report.target("Clients: failed searches", failed, "0", met=not failed)


def _collections(engine: str, uri: str, encoders: dict[str, Path]) -> Iterator[Searched]:
    vectors, query = random_vectors(ROWS, DIM, seed=SEED), random_vectors(1, DIM, seed=SEED + 1)
    with alula.connect(uri) as server, GatewayProgram(uri) as gateway:
        fill_ordinary(server.client, "ordinary", vectors)
        for way, address in ((engine, uri), (f"{engine}, gateway", gateway.uri)):
            yield Searched(way, address, "ordinary", query)
        for index_type, encoder in encoders.items():
            name = index_type.lower()
            filled(server, name, index_type, encoder, vectors)
            yield Searched(f"{engine}, gateway", gateway.uri, name, query)


def _compare(report: Report, searched: Searched, *, quick: bool) -> int:
    """Measure one collection; returns the number of failed searches."""
    request, answer = _request(searched)
    seconds, failed = QUICK_SECONDS if quick else SECONDS, 0
    for clients in CLIENTS:
        python, go = [], []
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            address = searched.uri.removeprefix("http://")
            outcome = press(address, request, answer, clients=clients, at_once=1, seconds=seconds)
            python.append(outcome.answered / outcome.seconds)
            failed += outcome.failed
            client = GoClient(searched.uri)
            go.append(
                client.load(searched.name, searched.query, field=FIELD, limit=K, clients=clients, seconds=seconds)
            )
        report.row(
            TABLE,
            way=searched.way,
            collection=searched.name,
            clients=clients,
            **{
                "Python, searches/s": round(statistics.median(python)),
                "Go, searches/s": round(statistics.median(metrics["iterations"]["rate"] for metrics in go)),
                "Go, p50 ms": statistics.median(metrics["iteration_duration"]["med"] for metrics in go),
                "Go, p95 ms": statistics.median(metrics["iteration_duration"]["p(95)"] for metrics in go),
            },
        )
    return failed


def _request(searched: Searched) -> tuple[bytes, int]:
    """The bytes of a search, and the least length of its answer."""
    request = Prepare.search_requests_with_expr(
        searched.name,
        FIELD,
        {"metric_type": "COSINE", "params": {}},
        K,
        data=searched.query.tolist(),
        output_fields=["id"],
        use_default_consistency=True,  # as the Go SDK asks
    ).SerializeToString()
    with grpc.insecure_channel(searched.uri.removeprefix("http://")) as channel:
        answer = channel.unary_unary(SEARCH)(request)
    found = milvus_pb2.SearchResults.FromString(answer)
    assert not found.status.code, found.status.reason
    assert len(found.results.ids.int_id.data) == K
    (expected,), _ = GoClient(searched.uri).search(searched.name, searched.query, field=FIELD, limit=K)
    assert list(found.results.ids.int_id.data) == expected
    return request, len(answer) * 9 // 10  # a repeated answer may differ by a few bytes of time stamps
