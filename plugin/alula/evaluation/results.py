"""The results of an evaluation as plain data, for terminal, JSON and report."""

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
from alula.evaluation.settings import show_settings
from alula.index_types import RowCost
from alula.notebook import html_table

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


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of the packages that affect the figures."""
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
        name: The index type with the parameters that differ between subjects.
        sizes: Bytes per row.
        points: The measurements, one for each setting.
        encoder: The encoder file; "" for Milvus's index types.
        build: Build parameters, or settings of the Alula index.
        load_seconds: Time for encoding, writing and indexing the rows; None for an existing collection.
        notes: Remarks on the figures.
    """

    name: str
    sizes: RowCost
    points: Sequence[Point]
    encoder: str = ""
    build: Mapping[str, Any] = field(default_factory=dict)
    load_seconds: float | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Neighbour:
    """One neighbour in a sample.

    Args:
        key: Key of the row.
        hit: For a true neighbour, True if it was found; for a found row, True if it is a true neighbour or a tie.
        columns: Scalar columns of the row.
    """

    key: Any
    hit: bool
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One query with its true neighbours and the results of one setting.

    Args:
        query: A label: the text, or the number of the row or query.
        columns: Scalar columns, if the query is a row itself.
        true: The true neighbours, nearest first.
        found: The results, best first.
        by: Index and setting of the results.
    """

    query: str
    columns: Mapping[str, Any]
    true: Sequence[Neighbour]
    found: Sequence[Neighbour]
    by: str


@dataclass(frozen=True)
class Evaluation:
    """All results of an evaluation.

    Args:
        title: The collection, or the files.
        metric: The metric.
        k: Neighbours per query.
        rows: Number of rows searched.
        dim: Their dimension.
        queries: Number of queries.
        queries_from: Source of the queries.
        truth_from: Source of their true neighbours.
        server: Product and version of the server.
        seed: Seed of the random draws.
        subjects: The measured indexes.
        refused: Index types that the server rejected, with the reason.
        samples: Queries with their neighbours.
        date: Time of the end, ISO 8601 in UTC.
        machine: The machine that ran the searches.
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
    date: str = field(default_factory=now)
    machine: str = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)

    def _repr_html_(self) -> str:
        """The measurements as a table, for notebooks."""
        heads = ("index", "search options", f"recall@{self.k}", "p50 ms", "QPS", "bytes/row in memory", "on disk")
        rows = [
            (
                subject.name,
                show_settings(point.settings),
                str(point.recall),
                f"{point.p50:.2f}",
                f"{point.qps:.0f}",
                f"{subject.sizes.memory_bytes:.0f}",
                f"{subject.sizes.disk_bytes:.0f}",
            )
            for subject in self.subjects
            for point in sorted(subject.points, key=lambda point: point.p50)
        ]
        caption = f"{self.title}: {self.rows:,} rows, {self.dim} dimensions, {self.metric}; {self.server}"
        return html_table(caption, heads, rows)

    def as_json(self) -> dict[str, Any]:
        """As nested dictionaries and lists for JSON."""
        return {"format": 1, **dataclasses.asdict(self)}
