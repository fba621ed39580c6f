"""Queries with their true neighbours, found by scoring every row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from alula.errors import DataError, UsageError
from alula.evaluation.recall import Nearest, NearestSoFar
from alula.evaluation.row_source import F32, Key, RowSource
from alula.progress import Progress, silent

# Anything to measure, in this process or behind a server: (queries float32 (q, d), limit) -> the keys found for each
# query, best first.
Searcher = Callable[[F32, int], Sequence[Sequence[Key]]]


@dataclass(frozen=True)
class Queries:
    """Queries with their true neighbours.

    Args:
        vectors: float32 (q, d).
        ground_truth: For each query the keys of its k true neighbours, nearest first.
        own: For queries that are rows themselves, their keys, which do not count as results; else None.
        labels: A name for each query; None to number them.
        ties: For each query the keys of other rows as near as its k-th neighbour, which count as found too.
    """

    vectors: F32
    ground_truth: Sequence[Sequence[Key]]
    own: Sequence[Key] | None = None
    labels: Sequence[str] | None = None
    ties: Sequence[Sequence[Key]] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def k(self) -> int:
        """Neighbours per query."""
        return len(self.ground_truth[0])

    @property
    def limit(self) -> int:
        """Results to request: k, and one more where the query's own row is dropped."""
        return self.k if self.own is None else self.k + 1

    def without_own(self, start: int, found: Sequence[Sequence[Key]]) -> list[list[Key]]:
        """Drop the own rows of the queries from `start` on: at most k results each."""
        own = [None] * len(found) if self.own is None else self.own[start : start + len(found)]
        return [[key for key in keys if key != mine][: self.k] for keys, mine in zip(found, own, strict=True)]

    def part(self, start: int, stop: int) -> Queries:
        """The queries from `start` to before `stop`."""
        span = slice(start, stop)
        own = None if self.own is None else self.own[span]
        labels = None if self.labels is None else self.labels[span]
        return Queries(self.vectors[span], self.ground_truth[span], own, labels, self.ties[span])

    def relevant(self, i: int) -> set[Key]:
        """The keys that count as found: the query's true neighbours and their ties."""
        return {*self.ground_truth[i], *(self.ties[i] if self.ties else ())}


def find_ground_truth(
    rows: RowSource,
    queries: F32,
    k: int,
    metric: str,
    *,
    own: Sequence[Key] | None = None,
    progress: Progress = silent,
) -> list[Nearest]:
    """Score all rows for the true neighbours of each query and their ties.

    The queries are divided among one thread per core; each block of rows is read once.

    Args:
        rows: The rows.
        queries: float32 (q, d).
        k: Neighbours per query.
        metric: ``COSINE``, ``IP`` or ``L2``.
        own: For queries that are rows themselves, their keys, which do not count as neighbours.
        progress: Called with the number of rows scored.

    Raises:
        UsageError: If there are fewer rows than neighbours.
        DataError: If rows have another dimension than the queries.
    """
    workers = min(os.cpu_count() or 1, len(queries))
    wanted = k if own is None else k + 1
    shares = [NearestSoFar(part, wanted, metric) for part in np.array_split(queries, workers)]
    with ThreadPoolExecutor(workers) as pool:
        for keys, vectors in rows.blocks(progress, "true neighbours"):
            if vectors.shape[1] != queries.shape[1]:
                raise DataError(
                    f"The queries have {queries.shape[1]} dimensions, and the rows of {rows.source.name} have "
                    f"{vectors.shape[1]}."
                )
            for done in [pool.submit(share.see, keys, vectors) for share in shares]:
                done.result()
    nearest = [one for share in shares for one in share.nearest]
    if own is not None:
        nearest = [one.without(mine) for one, mine in zip(nearest, own, strict=True)]
    least = min(len(one.keys) for one in nearest)
    if least < k:
        beside = " beside the query's own" if own is not None else ""
        raise UsageError(
            f"There are {least:,} rows{beside} and no {k:,} neighbours; lower k=..., the neighbours per query."
        )
    return [one.first(k) for one in nearest]
