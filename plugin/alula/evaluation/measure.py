"""Measure one search setting: recall, latency and throughput."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from alula.evaluation.ground_truth import Queries, Searcher
from alula.evaluation.recall import RecallEstimate, estimate_recall
from alula.evaluation.row_source import F32, Key

Answer = TypeVar("Answer")
Asked = TypeVar("Asked", F32, list[str])
WARM_UP = 3  # queries that are not timed: the first ones load and connect


@dataclass(frozen=True)
class Point:
    """One setting, measured.

    Args:
        settings: The search options.
        recall: Share of the true neighbours found, over all queries.
        p50: Median latency of one query in milliseconds, without concurrent ones.
        p95: 95th percentile of them.
        p99: 99th percentile of them.
        qps: Queries a second of one client.
        clients: Concurrent clients of the throughput test.
        qps_clients: Queries a second of all clients together; None without that test.
    """

    settings: Mapping[str, Any]
    recall: RecallEstimate
    p50: float
    p95: float
    p99: float
    qps: float
    clients: int = 1
    qps_clients: float | None = None


def send_each(
    search: Callable[[Asked, int], Answer], queries: Asked, limit: int, progress: Callable[[int], None] | None = None
) -> tuple[list[Answer], list[float]]:
    """Send each query alone, after some that are not timed.

    Args:
        search: Searches with a query, float32 (1, d) or a list of one text, and a limit.
        queries: float32 (q, d), or q texts.
        limit: Results per query.
        progress: Called with the number of queries sent.

    Returns:
        The answer to each query, and its seconds.
    """
    for i in range(min(WARM_UP, len(queries))):
        search(queries[i : i + 1], limit)
    answers, times = [], []
    for i in range(len(queries)):
        started = time.perf_counter()
        answers.append(search(queries[i : i + 1], limit))
        times.append(time.perf_counter() - started)
        if progress:
            progress(i + 1)
    return answers, times


def measure(
    search: Searcher,
    queries: Queries,
    settings: Mapping[str, Any],
    *,
    seconds: float = 0.0,
    clients: int = 1,
) -> tuple[Point, list[list[Key]]]:
    """Measure one setting; returns also the keys found for each query.

    Each query is sent and timed alone, as the latency that a user sees.

    Args:
        search: Searches with the setting.
        queries: The queries and their true neighbours.
        settings: The setting, for the record.
        seconds: Duration of the throughput test.
        clients: Concurrent clients of the throughput test; 1 to skip it.
    """
    answers, times = send_each(search, queries.vectors, queries.limit)
    found = [keys for i, answer in enumerate(answers) for keys in queries.without_own(i, answer)]
    p50, p95, p99 = np.percentile(times, [50, 95, 99]) * 1e3
    together = _together(search, queries, clients, seconds) if clients > 1 else None
    recall = estimate_recall(found, queries.ground_truth, queries.ties)
    qps = len(times) / sum(times)
    return Point(settings, recall, float(p50), float(p95), float(p99), qps, clients, together), found


def _together(search: Searcher, queries: Queries, clients: int, seconds: float) -> float:
    """Queries a second of concurrent clients."""
    numbers, stopped = itertools.count(), threading.Event()
    began = time.perf_counter()

    def one(_: int) -> int:
        done = 0
        while time.perf_counter() - began < seconds and not stopped.is_set():
            i = next(numbers) % len(queries)
            search(queries.vectors[i : i + 1], queries.limit)
            done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        try:
            done = sum(pool.map(one, range(clients)))
        finally:
            stopped.set()  # an interrupt ends the other clients too
    return done / (time.perf_counter() - began)


def time_in_turns(searchers: Sequence[Searcher], queries: Queries, rounds: int) -> list[float]:
    """Median milliseconds of each searcher.

    The searchers take turns, so that other load on the machine slows all of them alike.
    """
    times: list[list[float]] = [[] for _ in searchers]
    for i in range(rounds):
        query = queries.vectors[i % len(queries) :][:1]
        for search, taken in zip(searchers, times, strict=True):
            started = time.perf_counter()
            search(query, queries.limit)
            taken.append(time.perf_counter() - started)
    return [float(np.median(taken) * 1e3) for taken in times]
