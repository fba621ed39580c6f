"""One of many concurrent clients: ``python -m benchmarks.gateway.pressure``.

Standard input carries one line of JSON: address, method, number of concurrent requests, seconds, and the request's
bytes. The result is printed as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import grpc
import grpc.aio

SEARCH = "/milvus.proto.milvus.MilvusService/Search"
CHANNELS = 4


@dataclass(frozen=True)
class Outcome:
    """The result of one client.

    Args:
        answered: Requests that were answered as they should be.
        failed: Requests that were not.
        seconds: Duration of its requests.
    """

    answered: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class Order:
    """The requests of one client.

    Args:
        address: ``host:port``.
        request: The request of a search, as base64.
        answer: The least length of an answer that counts, in bytes.
        at_once: Requests under way at a time.
        seconds: For how long.
    """

    address: str
    request: str
    answer: int
    at_once: int
    seconds: float


def press(address: str, request: bytes, answer: int, *, clients: int, at_once: int, seconds: float) -> Outcome:
    """Ask from several processes at once.

    Args:
        address: ``host:port``.
        request: The request of a search.
        answer: The least length of an answer that counts, in bytes.
        clients: Processes.
        at_once: Requests that each has under way.
        seconds: For how long.
    """
    order = Order(address, base64.b64encode(request).decode(), answer, at_once, seconds)
    command = [sys.executable, "-m", "benchmarks.gateway.pressure"]
    running = []
    for _ in range(clients):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(order)) + "\n")
        process.stdin.flush()
        running.append(process)
    outcomes = [Outcome(**json.loads(process.communicate()[0])) for process in running]
    return Outcome(
        sum(outcome.answered for outcome in outcomes),
        sum(outcome.failed for outcome in outcomes),
        max(outcome.seconds for outcome in outcomes),
    )


async def ask(order: Order) -> Outcome:
    """Ask until the time is over."""
    request, ends = base64.b64decode(order.request), time.monotonic() + order.seconds
    answered = failed = 0
    # a pool of its own for each channel, or all would share one connection
    channels = [
        grpc.aio.insecure_channel(order.address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CHANNELS)
    ]
    calls = [channel.unary_unary(SEARCH) for channel in channels]

    async def one(number: int) -> None:
        nonlocal answered, failed
        call = calls[number % CHANNELS]
        while time.monotonic() < ends:
            try:
                good = len(await call(request, timeout=30)) >= order.answer
            except grpc.aio.AioRpcError:
                good = False
            answered += good
            failed += not good

    started = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(order.at_once)))
    seconds = time.monotonic() - started
    for channel in channels:
        await channel.close()
    return Outcome(answered, failed, seconds)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(ask(Order(**json.loads(sys.stdin.readline())))))))  # noqa: T201
