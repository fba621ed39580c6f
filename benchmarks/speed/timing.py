"""Contenders are tuned on some queries and timed on others."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

K = 10
CHUNK = 50  # queries that one contender answers before the next has its turn
MARGIN = 0.001  # of recall on the tuning queries, so that others reach the target too


class Contender(ABC):
    """A way to search with one knob, the effort; the name states its other settings."""

    efforts: Sequence[int]

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def search(self, query: int, effort: int) -> npt.NDArray[np.integer]:
        """The ids of the k best rows for one query, by the library's ordinary call."""

    def prepare(self, effort: int) -> None:  # noqa: B027 (most need nothing)
        """Set what is set once for many searches."""


def ladder(least: int, most: int) -> list[int]:
    """Efforts of which each is 5 % more than the one before."""
    return sorted({round(least * 1.05**step) for step in range(int(np.log(most / least) / np.log(1.05)) + 1)})


def recall(contender: Contender, effort: int, queries: Sequence[int], truth: I64) -> float:
    """Recall@10 over some queries.

    Args:
        contender: Who searches.
        effort: The value of the knob.
        queries: Numbers of queries.
        truth: int64 (all queries, 10).
    """
    contender.prepare(effort)
    return float(np.mean([np.isin(truth[query], contender.search(query, effort)).mean() for query in queries]))


def tune(contender: Contender, target: float, queries: Sequence[int], truth: I64) -> int | None:
    """The least effort whose recall reaches a target, None if none does."""
    low, high = 0, len(contender.efforts)
    while low < high:
        middle = (low + high) // 2
        if recall(contender, contender.efforts[middle], queries, truth) >= target + MARGIN:
            high = middle
        else:
            low = middle + 1
    return contender.efforts[low] if low < len(contender.efforts) else None


def milliseconds(settings: Sequence[tuple[Contender, int]], queries: Sequence[int], rounds: int) -> list[float]:
    """Mean milliseconds for one query, of each contender at its effort, taking turns.

    The least of several rounds counts for every 50 queries: what disturbs one round is not the contender's.

    Args:
        settings: Contenders and their efforts.
        queries: Numbers of queries.
        rounds: Number of searches per query.
    """
    chunks = [queries[start : start + CHUNK] for start in range(0, len(queries), CHUNK)]
    best = np.full((len(settings), len(chunks)), np.inf)
    for _ in range(rounds):
        for number, chunk in enumerate(chunks):
            for place, (contender, effort) in enumerate(settings):
                contender.prepare(effort)
                contender.search(chunk[0], effort)  # the one before has filled the caches
                started = time.perf_counter()
                for query in chunk:
                    contender.search(query, effort)
                best[place, number] = min(best[place, number], time.perf_counter() - started)
    return [float(total) * 1e3 / len(queries) for total in best.sum(axis=1)]
