"""Index types with settings of a search, asked in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import alula
from alula.index_types import KEPT, native_cost
from alula.index_types.base import vector_spec
from benchmarks.milvus.native import K, load_native, native_search
from benchmarks.report import Report, say

STEPS = "Training and loading"  # a table
F32 = npt.NDArray[np.float32]
Search = Mapping[str, int]


@dataclass(frozen=True)
class Setting:
    """An index type with a search setting.

    Args:
        name: The index type.
        search: The setting, in words.
        memory: Bytes in memory for one row, as `index_memory`.
        disk: Bytes of one row's kept vector, which a server may map.
        find: The search of one query.
    """

    name: str
    search: str
    memory: float
    disk: float
    find: Callable[[F32], list[int]]


@dataclass(frozen=True)
class Native:
    """One of Milvus's own index types.

    Args:
        name: Its name.
        params: Parameters of the index.
        searches: Parameters of the searches.
    """

    name: str
    params: Search
    searches: Sequence[Search] = ({},)


def index_memory(collection: alula.Collection) -> float:
    """Bytes in memory for one row by the product's formula: the index alone."""
    return sum(size for part, size in collection.spec.cost.memory.items() if part != KEPT)


def encoded_settings(name: str, collection: alula.Collection, searches: Iterable[Search]) -> Iterator[Setting]:
    """The searches of a filled collection."""
    memory = index_memory(collection)
    kept = vector_spec(collection.lowering.field)
    disk = kept.bytes_per_row if kept else 0
    for given in searches:

        def find(query: F32, options: Mapping[str, Any] = given) -> list[int]:
            return [hit.id for hit in collection.search(query, limit=K, **options)[0]]

        yield Setting(name, _words(given) or "default", memory, disk, find)


def native_settings(report: Report, server: alula.Server, rows: F32, types: Iterable[Native]) -> Iterator[Setting]:
    """Collections of Milvus's own index types, filled, and their searches."""
    for native in types:
        say(f"\nLoading {native.name}")
        started = time.perf_counter()
        load_native(server, native.name.lower(), rows, native.name, dict(native.params))
        report.row(STEPS, step=f"load and build {native.name}", seconds=time.perf_counter() - started)
        memory = native_cost(native.name, rows.shape[1], native.params, len(rows)).memory_bytes
        for search in native.searches:
            find = native_search(server, native.name.lower(), dict(search))
            yield Setting(native.name, _words(search), memory, 0, find)


def _words(search: Search) -> str:
    return ", ".join(f"{key} {value}" for key, value in search.items())


def in_turns(settings: list[Setting], queries: F32) -> tuple[list[list[list[int]]], list[float]]:
    """The results of each setting, and its median milliseconds."""
    found: list[list[list[int]]] = [[] for _ in settings]
    times: list[list[float]] = [[] for _ in settings]
    for one in settings:
        one.find(queries[0])
    say(f"\nSearching {len(settings)} settings in turns")
    for query in queries:
        for number, one in enumerate(settings):
            started = time.perf_counter()
            found[number].append(one.find(query))
            times[number].append(time.perf_counter() - started)
    return found, [1e3 * float(np.median(one)) for one in times]
