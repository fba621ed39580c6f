"""Milliseconds of searches that take turns, until the figures are stable."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from time import thread_time
from typing import Any, TypeVar

import faiss
import numpy as np

KeyT = TypeVar("KeyT", bound=Hashable)

CHUNK = 20  # queries that one search answers before the next has its turn
LEAST, MOST = 4, 20  # rounds
CHANGE = 0.02  # a round that makes no search faster by more is a calm one ...
CALM = 2  # ... and so many of them in a row end the measurement


def milliseconds(searches: Mapping[KeyT, Callable[[int], Any]], queries: int) -> tuple[dict[KeyT, float], list[KeyT]]:
    """Mean milliseconds of the processor for one query, in the calling thread alone.

    They are milliseconds of the clock where nothing else runs. The least of all rounds counts for every 20 queries:
    what disturbs one round, through the caches, is not the search's.

    Args:
        searches: By name: takes a query's number.
        queries: Number of queries to search for.

    Returns:
        Milliseconds by name, and the names whose figures still fell by more than `CHANGE` in one of the last rounds.
    """
    chunks = [range(start, min(start + CHUNK, queries)) for start in range(0, queries, CHUNK)]
    best = np.full((len(searches), len(chunks)), np.inf)
    changes: list[Any] = []
    with one_thread():
        while len(changes) < MOST and (len(changes) < LEAST or np.max(changes[-CALM:]) > CHANGE):
            before = best.sum(axis=1)
            for number, chunk in enumerate(chunks):
                for place, search in enumerate(searches.values()):
                    search(chunk[0])  # the one before has filled the caches
                    started = thread_time()
                    for query in chunk:
                        search(query)
                    best[place, number] = min(best[place, number], thread_time() - started)
            changes.append(1 - best.sum(axis=1) / before)
    unstable = np.max(changes[-CALM:], axis=0) > CHANGE
    times = best.sum(axis=1) * 1e3 / queries
    return (
        dict(zip(searches, times.tolist(), strict=True)),
        [name for name, moved in zip(searches, unstable, strict=True) if moved],
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep faiss to the calling thread."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
