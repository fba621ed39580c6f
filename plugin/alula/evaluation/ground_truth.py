"""Queries and their true neighbours: found by scoring every row, in blocks and in parallel, and kept in a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.errors import DataError, UsageError
from alula.evaluation.recall import Nearest, NearestSoFar
from alula.evaluation.row_source import F32, Key, Progress, Rows, silent

# Anything that can be measured: queries float32 (q, d), how many results -> the keys found for each, best first. An
# index in this process is as welcome as one behind a server.
Searcher = Callable[[F32, int], Sequence[Sequence[Key]]]


@dataclass(frozen=True)
class Questions:
    """Queries with their true neighbours.

    Args:
        vectors: float32 (q, d).
        truth: For each query the keys of its true neighbours, nearest first: k of them.
        own: For queries that are rows themselves, their keys, which are no answers; else None.
        labels: What to call each of them; None to number them.
        ties: For each query the keys of other rows that are as near as its k-th neighbour, and as good to find.
    """

    vectors: F32
    truth: Sequence[Sequence[Key]]
    own: Sequence[Key] | None = None
    labels: Sequence[str] | None = None
    ties: Sequence[Sequence[Key]] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def k(self) -> int:
        """Neighbours per query."""
        return len(self.truth[0])

    @property
    def limit(self) -> int:
        """How many results to ask for, so that k are left without the query's own row."""
        return self.k if self.own is None else self.k + 1

    def answers(self, start: int, found: Sequence[Sequence[Key]]) -> list[list[Key]]:
        """What was found for queries from `start` on, without their own rows: at most k each."""
        own = [None] * len(found) if self.own is None else self.own[start : start + len(found)]
        return [[key for key in keys if key != mine][: self.k] for keys, mine in zip(found, own, strict=True)]

    def part(self, start: int, stop: int) -> Questions:
        """Some of the queries."""
        span = slice(start, stop)
        own = None if self.own is None else self.own[span]
        labels = None if self.labels is None else self.labels[span]
        return Questions(self.vectors[span], self.truth[span], own, labels, self.ties[span])

    def good(self, i: int) -> set[Key]:
        """The keys that are right answers to a query: its true neighbours, and rows as near as the last of them."""
        return {*self.truth[i], *(self.ties[i] if self.ties else ())}


def find_truth(
    rows: Rows,
    queries: F32,
    k: int,
    metric: str,
    *,
    own: Sequence[Key] | None = None,
    progress: Progress = silent,
) -> list[Nearest]:
    """The true neighbours of each query, and the rows as near as its k-th, by scoring all rows.

    The queries are dealt out to as many threads as there are cores; each block of rows is read once.

    Args:
        rows: The rows.
        queries: float32 (q, d).
        k: Neighbours per query.
        metric: ``COSINE``, ``IP`` or ``L2``.
        own: Keys of the rows that the queries are, which are not their neighbours.
        progress: Told of the rows scored.

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
        raise UsageError(f"There are {least:,} rows{beside} and no {k:,} neighbours; give a smaller --k.")
    return [one.first(k) for one in nearest]


def fingerprint(queries: F32, metric: str, rows: Rows | None) -> str:
    """What changes when true neighbours do: the queries, the metric, and the files (their paths, sizes and times)."""
    digest = hashlib.sha256(f"{metric} {queries.shape} {rows.source.fingerprint if rows else ''}".encode())
    digest.update(np.ascontiguousarray(queries).tobytes())
    return digest.hexdigest()


def cached_truth(path: Path | None, print_: str, k: int, find: Callable[[], list[Nearest]]) -> list[Nearest]:
    """True neighbours out of a file, or found now and written there; a file that cannot be written is no error.

    Args:
        path: The file; None to find them anyway.
        print_: The `fingerprint` that the file must have.
        k: Neighbours per query.
        find: Finds them.
    """
    if path is not None and path.exists():
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as held:
            if str(held["fingerprint"]) == print_ and held["k"] >= k:
                return _unpacked(held["keys"], held["scores"], held["counts"], k)
    truth = find()
    if path is not None:
        held = {
            "keys": np.array([key for one in truth for key in one.keys]),
            "scores": np.concatenate([one.scores for one in truth]),
            "counts": np.array([len(one.keys) for one in truth]),  # more than k where there are ties
            "k": np.array(k),
            "fingerprint": np.array(print_),
        }
        with contextlib.suppress(OSError), path.open("wb") as file:
            np.savez_compressed(file, **held)
    return truth


def _unpacked(keys: npt.NDArray[Any], scores: F32, counts: npt.NDArray[Any], k: int) -> list[Nearest]:
    """Of each query's keys and scores, which lie one query behind the other, the first k and their ties."""
    ends = np.cumsum(counts)[:-1]
    rows = zip(np.split(keys, ends), np.split(scores, ends), strict=True)
    return [Nearest(some.tolist(), values).first(k) for some, values in rows]


def read_truth(path: Path, queries: int, k: int, key_type: type[Key]) -> list[Nearest]:
    """True neighbours that the user has: a ``.npy`` array (queries, k or more) of keys, nearest first, or our file.

    An array does not tell which rows are equally near, and each of its keys counts as nearer than the next.

    Args:
        path: The file.
        queries: Number of queries.
        k: Neighbours per query.
        key_type: What the rows' keys are.

    Raises:
        DataError: If the file is none, or is for other queries, or its keys are of another type.
    """
    try:
        held: Any = np.load(path)
        if isinstance(held, np.lib.npyio.NpzFile):
            keys, scores, counts, most = held["keys"], held["scores"], held["counts"], int(held["k"])
        elif held.ndim == 2:
            counts, most = np.full(len(held), held.shape[1]), held.shape[1]
            keys, scores = held.ravel(), np.tile(-np.arange(most, dtype=np.float32), len(held))
        else:
            raise ValueError
        if keys.dtype.kind not in "iuU":
            raise ValueError
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise DataError(
            f"{path} holds no true neighbours; give a .npy array (queries, k) of the rows' keys, nearest first."
        ) from None
    if (keys.dtype.kind == "U") != (key_type is str):
        are, given = ("strings", "integers") if key_type is str else ("integers", "strings")
        raise DataError(f"{path} holds {given}, and the rows' keys are {are}; give the true neighbours by these keys.")
    if len(counts) != queries or most < k:
        raise DataError(
            f"{path} has {most:,} neighbours of {len(counts):,} queries, and {k:,} of {queries:,} are needed; "
            "check --k and --queries."
        )
    return _unpacked(keys, scores, counts, k)
