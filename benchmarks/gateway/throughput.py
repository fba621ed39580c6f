"""Searches per second through a gateway, and the cost of each in core time."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2

import alula
from benchmarks.gateway.pressure import SEARCH, Outcome, press
from benchmarks.gateway.usage import usage
from benchmarks.loading.checking import count
from benchmarks.report import Report
from tests.plain_collections import create_plain, plain_rows
from tests.tiny_encoders import random_vectors
from tools.servers.cache import ServerError
from tools.servers.gateway import GatewayProgram, opens
from tools.servers.standalone import LOOPBACK, MilvusStandalone, free_ports

TITLE = "searches that pass through, per second of a core"
ANSWERS = """\
The question: how many searches of ordinary collections does one gateway process pass on, and how much of a core does
each cost it? Client processes keep a fixed number of searches under way (10 results with three fields, from 5,000 rows
of 8 numbers). With the real server the server is the bottleneck on two cores. So most rows are measured in front of a
program that replays the real server's answer to the same bytes. "Per second of a
core" are the searches divided by the seconds of processor time, of all cores, user's and kernel's, that the gateway's
process has spent, by the kernel's own account: what a core would pass that did nothing else. Medians of the rounds.
"""

SEED = 0
SEEDS = (SEED,)
TARGET = 1000.0
CLIENTS = 2
SECONDS, QUICK_SECONDS = 10.0, 4.0
ROUNDS, QUICK_ROUNDS = 3, 2
AT_ONCE = (1, 8, 32, 128)  # of each client
COLLECTION = "ordinary"
TABLE = "Searches that pass through"


@dataclass(frozen=True)
class Rate:
    """Searches per second of wall time, and per second of the gateway's core time."""

    wall: float
    core: float
    busy: float
    failed: int


def measure(report: Report, *, quick: bool) -> None:
    """Pass searches to a recorded server and to the real one.

    Args:
        report: Gets the table and the targets.
        quick: Shorter rounds, and fewer.
    """
    with MilvusStandalone() as server:
        request, answer = _search(server)
        upstream = f"{LOOPBACK}:{server.port}"
        with recorded(upstream) as stub, GatewayProgram(f"http://{stub}") as gateway:
            best = max(
                _rates(report, "recorded answers", gateway, request, answer, at_once, quick=quick)
                for at_once in (AT_ONCE[2:3] if quick else AT_ONCE)
            )
        with GatewayProgram(server.uri) as gateway:
            _rates(report, "Milvus 2.3.5", gateway, request, answer, 8, quick=quick)
        _without(report, upstream, request, answer, quick=quick)
    report.at_least("Throughput: searches that pass per second of a core", best, TARGET)


def _rates(
    report: Report, upstream: str, gateway: GatewayProgram, request: bytes, answer: int, at_once: int, *, quick: bool
) -> float:
    press(gateway.address, request, answer, clients=1, at_once=1, seconds=0.5)  # connections, recorded answers
    rates = []
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        before = usage(gateway.pid).cpu
        outcome = _press(gateway.address, request, answer, at_once, quick=quick)
        spent = usage(gateway.pid).cpu - before
        rates.append(
            Rate(outcome.answered / outcome.seconds, outcome.answered / spent, spent / outcome.seconds, outcome.failed)
        )
    failed = sum(rate.failed for rate in rates)
    core = statistics.median(rate.core for rate in rates)
    report.row(
        TABLE,
        upstream=upstream,
        **{
            "under way": CLIENTS * at_once,
            "searches/s": round(statistics.median(rate.wall for rate in rates)),
            "cores that the gateway took": statistics.median(rate.busy for rate in rates),
            "searches/s of a core": round(core),
            "failed": failed,
        },
    )
    if failed:
        report.target(f"Throughput: failed searches, {upstream}, {CLIENTS * at_once} under way", failed, "0", met=False)
    return core


def _without(report: Report, upstream: str, request: bytes, answer: int, *, quick: bool) -> None:
    outcome = _press(upstream, request, answer, 8, quick=quick)
    report.row(
        TABLE,
        upstream="Milvus 2.3.5, no gateway",
        **{"under way": CLIENTS * 8, "searches/s": round(outcome.answered / outcome.seconds), "failed": outcome.failed},
    )


def _press(address: str, request: bytes, answer: int, at_once: int, *, quick: bool) -> Outcome:
    seconds = QUICK_SECONDS if quick else SECONDS
    return press(address, request, answer, clients=CLIENTS, at_once=at_once, seconds=seconds)


def _search(server: MilvusStandalone) -> tuple[bytes, int]:
    """The bytes of a search of a new ordinary collection, and how long its answer is."""
    with alula.connect(server.uri) as connected:
        create_plain(connected, COLLECTION, plain_rows(range(5000)))
        count(connected.client, COLLECTION)  # a strongly consistent one: what it sees, all later searches do
    request = Prepare.search_requests_with_expr(
        COLLECTION,
        "vec",
        {"metric_type": "COSINE", "params": {"ef": 64}},
        10,
        data=random_vectors(1, seed=SEED + 1).tolist(),
        output_fields=["word", "score", "flag"],
        # a strongly consistent search waits for the server's clock, a fifth of a second
        consistency_level="Eventually",
        use_default_consistency=False,
    ).SerializeToString()
    with grpc.insecure_channel(f"{LOOPBACK}:{server.port}") as channel:
        answer = channel.unary_unary(SEARCH)(request)
    found = milvus_pb2.SearchResults.FromString(answer)
    assert found.status.code == 0
    assert len(found.results.ids.int_id.data) == 10
    return request, len(answer) * 9 // 10  # a repeated answer may differ by a few bytes of time stamps


@contextlib.contextmanager
def recorded(upstream: str) -> Iterator[str]:
    """The address of a program that answers as the upstream did."""
    port = free_ports(["recorded"])["recorded"]
    command = [sys.executable, "-m", "benchmarks.gateway.recorded", str(port), upstream]
    process = subprocess.Popen(command)
    try:
        if not opens(port, process):
            raise ServerError(f"The program {' '.join(command)} did not open its port.")
        yield f"{LOOPBACK}:{port}"
    finally:
        process.kill()
        process.wait()
