"""Times of one client's searches through the gateway while another abuses it."""

from __future__ import annotations

import base64
import contextlib
import functools
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus import MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

import alula
from alula.milvus.wire import placeholders
from benchmarks.gateway.latency import CANDIDATES, DIM, FIELD, K, Search, filled, searcher
from benchmarks.report import Report, say
from tests.tiny_encoders import random_vectors, write_drq
from tools.servers.gateway import GatewayProgram
from tools.servers.standalone import MilvusStandalone

TITLE = "a good client beside an abusive one"
ANSWERS = """\
The question: how much longer do one client's searches take while another client abuses the gateway? The good client
searches an index type of Alula's, one query at a time: 10 results among 20,000 rows of 50 numbers, 100 candidates
re-ranked. The abusive one is a process with eight connections that repeats one attack without a pause; it has a lower
priority, as it would run on another machine. Searches alone and beside the attack take turns in one run. Milvus checks
logins. The gateway has its defaults, and shares two cores with Milvus and both clients.
"""

SEED = 0
SEEDS = (SEED,)
TARGET = 3.0  # times the 99th percentile alone
ROWS, QUICK_ROWS = 20_000, 3000
SEARCHES, QUICK_SEARCHES = 200, 60
ROUNDS, QUICK_ROUNDS = 5, 2
WARM_UP = 30
CONNECTIONS = 8
NAME = "abused"
TABLE = "Milliseconds of a search"
Attack = Callable[[grpc.Channel, str], None]


def _login(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", base64.b64encode(name.encode()).decode()),)


GOOD, WRONG = _login("root:Milvus"), _login("root:wrong")


@functools.cache  # as an attacker would: requests are made once
def _search_request(queries: int) -> milvus_pb2.SearchRequest:
    request = milvus_pb2.SearchRequest(collection_name=NAME, nq=queries, dsl_type=common_pb2.DslType.BoolExprV1)
    request.placeholder_group = placeholders.write(random_vectors(queries, DIM, seed=2))
    for key, value in {"anns_field": FIELD, "topk": str(K), "params": "{}"}.items():
        request.search_params.add(key=key, value=value)
    return request


@functools.cache
def _large_message() -> milvus_pb2.InsertRequest:
    return milvus_pb2.InsertRequest(collection_name="x" * 60_000_000)


@functools.cache
def _long_filter() -> milvus_pb2.QueryRequest:
    expression = f"id in [{', '.join(['1234567'] * 11_000)}]"
    return milvus_pb2.QueryRequest(collection_name=NAME, expr=expression, output_fields=["id"])


def _stub(channel: grpc.Channel) -> Any:
    return milvus_pb2_grpc.MilvusServiceStub(channel)


def _wrong_logins(channel: grpc.Channel, _: str) -> None:
    _stub(channel).Search(_search_request(1), metadata=WRONG)


def _large_messages(channel: grpc.Channel, _: str) -> None:
    """60 MB each, without a login."""
    _stub(channel).Insert(_large_message())


def _large_searches(channel: grpc.Channel, _: str) -> None:
    _stub(channel).Search(_search_request(1000), metadata=GOOD)


def _cancelled_searches(channel: grpc.Channel, _: str) -> None:
    call = _stub(channel).Search.future(_search_request(1000), metadata=GOOD)
    time.sleep(0.05)
    call.cancel()


def _long_filters(channel: grpc.Channel, _: str) -> None:
    """100 kB each, which Milvus parses."""
    _stub(channel).Query(_long_filter(), metadata=GOOD)


def _new_connections(_: grpc.Channel, address: str) -> None:
    """20 each, which stay open for a moment."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            one = stack.enter_context(_channel(address))
            _stub(one).GetVersion(milvus_pb2.GetVersionRequest(), metadata=GOOD)


ATTACKS: Mapping[str, Attack] = {
    "wrong logins": _wrong_logins,
    "messages of 60 MB without a login": _large_messages,
    "searches of 1,000 queries": _large_searches,
    "searches of 1,000 queries that are cancelled": _cancelled_searches,
    "filters of 100 kB": _long_filters,
    "new connections": _new_connections,
}


def measure(report: Report, *, quick: bool) -> None:
    """Search alone and beside each attack.

    Args:
        report: Gets the table and the targets.
        quick: Fewer rows, searches and rounds.
    """
    queries = random_vectors(QUICK_SEARCHES if quick else SEARCHES, DIM, seed=SEED + 1)
    with MilvusStandalone(auth=True) as milvus, GatewayProgram(milvus.uri) as gateway:
        login = {"user": milvus.user, "password": milvus.password}
        with alula.connect(milvus.uri, **login) as server, tempfile.TemporaryDirectory() as folder:
            encoder = write_drq(Path(folder) / "drq.onnx", input_dim=DIM, levels=8, sign_bits=128).path
            filled(server, NAME, "DRQ", encoder, random_vectors(QUICK_ROWS if quick else ROWS, DIM, seed=SEED))
        client = MilvusClient(gateway.uri, **login)
        search = searcher(client, NAME, candidates=CANDIDATES)
        _times(search, queries[:WARM_UP])
        for name in ATTACKS:
            alone, beside, done = [], [], 0
            for _ in range(QUICK_ROUNDS if quick else ROUNDS):
                alone.append(_times(search, queries))
                with _attacked(name, gateway.address) as attacks:
                    beside.append(_times(search, queries))
                    done += attacks.value
            say(f"{name}: {done} attacks")
            before, during = np.concatenate(alone), np.concatenate(beside)
            ratio = float(np.quantile(during, 0.99) / np.quantile(before, 0.99))
            report.row(
                TABLE,
                attack=name,
                **{
                    "alone p50": float(np.median(before)),
                    "alone p99": float(np.quantile(before, 0.99)),
                    "beside p50": float(np.median(during)),
                    "beside p99": float(np.quantile(during, 0.99)),
                    "attacks per second": done / float(during.sum() / 1000),
                },
            )
            report.at_most(f"Abuse: {name}, p99 over that alone", ratio, TARGET)
        client.close()


def _times(search: Search, queries: np.ndarray) -> np.ndarray:
    """Milliseconds of each query: float (n,)."""
    milliseconds = np.empty(len(queries))
    for number, query in enumerate(queries):
        started = time.perf_counter()
        ids = search(query)
        milliseconds[number] = (time.perf_counter() - started) * 1e3
        if len(ids) != K:
            raise AssertionError(f"{len(ids)} results instead of {K}")
    return milliseconds


@contextlib.contextmanager
def _attacked(name: str, address: str) -> Iterator[Any]:
    """Run an attack in another process; gives the number of those that ended."""
    context = multiprocessing.get_context("spawn")
    attacks = context.Value("l", 0)
    process = context.Process(target=_attack, args=(name, address, attacks), daemon=True)
    process.start()
    try:
        while not attacks.value and process.is_alive():  # until it has begun
            time.sleep(0.05)
        if not process.is_alive():
            raise AssertionError(f"the attack {name!r} ended")
        yield attacks
    finally:
        process.kill()
        process.join()


def _attack(name: str, address: str, attacks: Any) -> None:
    os.nice(10)
    for _ in range(CONNECTIONS):
        threading.Thread(target=_repeat, args=(ATTACKS[name], address, attacks), daemon=True).start()
    threading.Event().wait()


def _repeat(attack: Attack, address: str, attacks: Any) -> None:
    with _channel(address) as channel:
        while True:
            with contextlib.suppress(grpc.RpcError):  # refusals are what it should get
                attack(channel, address)
            with attacks.get_lock():
                attacks.value += 1


def _channel(address: str) -> grpc.Channel:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(address, options)
