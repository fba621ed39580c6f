"""What an evaluation found, as plain data: for the terminal, for JSON, for the report."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alula.evaluation.measure import Point
from alula.evaluation.sizes import Sizes

_PACKAGES = ("alula", "pymilvus", "milvus-lite", "numpy", "onnxruntime")


def machine() -> str:
    """The machine in words: cores, processor, memory."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB memory, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Versions of the packages that figures depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Subject:
    """One index, measured with several settings.

    Args:
        name: The index type with what tells it from others.
        sizes: Its bytes per row.
        points: What was measured, one for each setting.
        encoder: The encoder file; "" for Milvus's own.
        build: Its build parameters, or its settings.
        load_seconds: Time for encoding, writing and indexing the rows; None if they were there.
        notes: What to know of the figures.
    """

    name: str
    sizes: Sizes
    points: Sequence[Point]
    encoder: str = ""
    build: Mapping[str, Any] = field(default_factory=dict)
    load_seconds: float | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Neighbour:
    """One neighbour in a sample.

    Args:
        key: The row.
        hit: Of a true neighbour whether it was found; of a found one whether it is true, or as near as
            the last true one.
        columns: Its scalar columns.
    """

    key: Any
    hit: bool
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One query with its true neighbours and what one setting found.

    Args:
        query: What to call it.
        columns: Its scalar columns, where it is a row itself.
        true: The true neighbours, nearest first.
        found: What was found, best first.
        by: Index and setting that found it.
    """

    query: str
    columns: Mapping[str, Any]
    true: Sequence[Neighbour]
    found: Sequence[Neighbour]
    by: str


@dataclass(frozen=True)
class Evaluation:
    """An evaluation.

    Args:
        title: What was evaluated.
        metric: The metric.
        k: Neighbours per query.
        rows: RowSource searched.
        dim: Their dimension.
        queries: Number of queries.
        queries_from: Where they are from.
        truth_from: Where their true neighbours are from.
        server: The server in words.
        seed: Of what was drawn at random.
        subjects: What was measured.
        refused: For what could not be measured, why.
        samples: Queries with their neighbours.
        date: When it ended, ISO 8601 in UTC.
        machine: The machine that searched.
        versions: Versions of the software.
    """

    title: str
    metric: str
    k: int
    rows: int
    dim: int
    queries: int
    queries_from: str
    truth_from: str
    server: str
    seed: int
    subjects: Sequence[Subject]
    refused: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    machine: str = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)

    def as_json(self) -> dict[str, Any]:
        """As nested dictionaries and lists that JSON can hold."""
        return {"format": 1, **dataclasses.asdict(self)}
