"""Index types inside Milvus Lite 3: time of a search, and of its index.

Milvus Lite 3 runs in a process of its own here, because the other benchmarks use version 2.5:
``python -m benchmarks.speed.lite3 FOLDER`` measures what lies in a folder and leaves ``figures.json`` there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.report import Report
from tools.servers import lite3

TITLE = "inside Milvus Lite 3"
ANSWERS = """\
The question: the cost of a search through MilvusClient in Milvus Lite 3 with its own index types and with Alula's, and
the share of the index in it. Milvus Lite itself computes for every search which rows are valid, in Python;
`cache_masks` caches that. Each index type has the cheapest setting, found on other queries, that reaches the recall.
One segment, one client, one query at a time, all index types in turn. Nothing is promised here: most of a search is
Milvus Lite's own.
"""
SEEDS = (0,)
TABLE = "Milvus Lite 3.2.2: median ms of a search"
LEVELS = (0.95, 0.98)
FIELD, LIMIT = "embedding", 10

F32 = npt.NDArray[np.float32]

# What is built, and the settings that are tried: as many for each.
BUILDS: dict[str, dict[str, Any]] = {
    "FLAT": {},
    "HNSW": {"M": 16, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 1024},
    "FLOPS_SPARSE": {"encoder": "flops.onnx"},
    "DRQ": {"encoder": "drq.onnx"},
}
SETTINGS: dict[str, list[dict[str, int]]] = {
    "FLAT": [{}],
    "HNSW": [{"ef": ef} for ef in (16, 32, 64, 96, 128, 192, 256, 512)],
    "IVF_FLAT": [{"nprobe": nprobe} for nprobe in (8, 16, 32, 48, 64, 96, 128, 256)],
    "FLOPS_SPARSE": [{"candidates": r} for r in (200, 300, 500, 700, 1000, 1500, 2000, 3000)],
    "DRQ": [{"bits": bits, "candidates": r} for bits in (64, 128) for r in (30, 60, 120, 250)],
}


def measure(report: Report, *, quick: bool) -> None:
    """Compare on words, with encoders trained on all of them."""
    from benchmarks.speed.data import (  # torch, which the process that measures does without
        encoder_file,
        load_data,
    )

    data = load_data("GloVe")
    rows = np.random.default_rng(SEEDS[0]).permutation(data.rows)[: 20_000 if quick else 100_000]
    with report.part("index types in Milvus Lite 3"):
        compare(report, rows, data.queries[-400:], {kind: encoder_file("GloVe", kind) for kind in ("flops", "drq")})


def compare(report: Report, rows: F32, queries: F32, encoders: Mapping[str, Path]) -> None:
    """Add a table of all index types on the same rows.

    Args:
        report: Where to.
        rows: float32 (n, d), at most as many as Milvus Lite makes one segment of (100,000).
        queries: float32 (q, d): the first half to choose settings on, the second to measure.
        encoders: A cosine encoder file for ``flops`` and one for ``drq``.
    """
    with tempfile.TemporaryDirectory(prefix="alula-lite3-") as place:
        folder = Path(place)
        np.save(folder / "rows.npy", rows)
        np.save(folder / "queries.npy", queries)
        for kind, file in encoders.items():
            (folder / f"{kind}.onnx").symlink_to(file.resolve())
        command = [sys.executable, "-m", "benchmarks.speed.lite3", str(folder)]
        subprocess.run(command, env=lite3.environment(), check=True)
        for row in json.loads((folder / "figures.json").read_text()):
            report.row(TABLE, **row)


@dataclass
class Timed:
    """An index of Milvus Lite that takes the time of its searches."""

    index: Any
    seconds: float = 0.0

    def search(self, *args: Any, **kwargs: Any) -> Any:
        """As the index does it."""
        started = time.perf_counter()
        found = self.index.search(*args, **kwargs)
        self.seconds = time.perf_counter() - started
        return found


@dataclass
class Bench:
    """A database of one collection for each index type."""

    folder: Path
    rows: F32
    queries: F32
    build: dict[str, dict[str, float]] = field(default_factory=dict)
    timed: dict[str, Timed] = field(default_factory=dict)

    def fill(self) -> None:
        """Make the collections, all of the same rows, and build their indexes."""
        from milvus_lite.server_manager import server_manager_instance
        from pymilvus import DataType, MilvusClient

        path = str(self.folder / "bench.db")
        self.client = MilvusClient(path)
        schema = self.client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=self.rows.shape[1])
        self.client.create_collection("rows", schema=schema)
        for start in range(0, len(self.rows), 5000):
            block = self.rows[start : start + 5000]
            self.client.insert("rows", [{"id": start + i, FIELD: row} for i, row in enumerate(block)])
        self.client.flush("rows")
        database = server_manager_instance._servers[path][1]
        database.create_snapshot("rows", "whole")
        for index_type, params in BUILDS.items():
            collection = database.restore_snapshot("rows", "whole", index_type)
            collection.release()
            if "encoder" in params:
                params["encoder"] = str(self.folder / params["encoder"])
            started = time.perf_counter()
            collection.create_index(FIELD, {"index_type": index_type, "metric_type": "COSINE", "params": params})
            collection.load()
            seconds = time.perf_counter() - started
            files = (self.folder / "bench.db" / "collections" / index_type).rglob("*.idx")
            self.build[index_type] = {"s": seconds, "MB": sum(file.stat().st_size for file in files) / 1e6}
            (segment,) = collection._segment_cache.values()
            self.timed[index_type] = segment.indexes[FIELD] = Timed(segment.indexes[FIELD])

    def search(self, index_type: str, setting: dict[str, int], query: F32) -> tuple[set[int], float, float]:
        """The ids found, the seconds of the search, and those of the index."""
        started = time.perf_counter()
        (hits,) = self.client.search(index_type, [query], limit=LIMIT, search_params={"params": setting})
        return {hit["id"] for hit in hits}, time.perf_counter() - started, self.timed[index_type].seconds

    def measure(
        self, settings: list[tuple[str, dict[str, int]]], queries: F32, exact: list[set[int]]
    ) -> list[tuple[float, float, float]]:
        """Recall and median ms of search and index for each setting, interleaved."""
        found: list[list[tuple[float, float, float]]] = [[] for _ in settings]
        for query, truth in zip(queries, exact, strict=True):
            for results, (index_type, setting) in zip(found, settings, strict=True):
                ids, whole, index = self.search(index_type, setting, query)
                results.append((len(ids & truth) / LIMIT, 1e3 * whole, 1e3 * index))
        return [
            (float(np.mean([r for r, *_ in results])), *np.median([t for _, *t in results], axis=0).tolist())
            for results in found
        ]


def exact_neighbours(rows: F32, queries: F32) -> list[set[int]]:
    """The nearest rows of each query by cosine."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return [set(np.argpartition(-(unit @ query), LIMIT)[:LIMIT].tolist()) for query in queries]


def main(folder: Path) -> None:
    """Measure what lies in a folder."""
    import alula.lite

    alula.lite.register(cache_masks=True)
    rows, queries = np.load(folder / "rows.npy"), np.load(folder / "queries.npy")
    exact = exact_neighbours(rows, queries)
    half = len(queries) // 2
    bench = Bench(folder, rows, queries)
    bench.fill()
    every = [(index_type, setting) for index_type, settings in SETTINGS.items() for setting in settings]
    bench.measure(every, queries[:5], exact[:5])  # warms up
    tuned = bench.measure(every, queries[:half], exact[:half])
    chosen: list[tuple[float, str, dict[str, int]]] = []
    for level in LEVELS:
        for index_type in SETTINGS:
            reached = [
                (index, setting)
                for (name, setting), (recall, _, index) in zip(every, tuned, strict=True)
                if name == index_type and recall >= level
            ]
            if reached:
                chosen.append((level, index_type, min(reached, key=lambda pair: pair[0])[1]))
    settings = [(index_type, setting) for _, index_type, setting in chosen]
    cached = bench.measure(settings, queries[half:], exact[half:])
    alula.lite.register(cache_masks=False)
    few = max(10, half // 10)  # a search takes tens of milliseconds
    plain = bench.measure(settings, queries[half:][:few], exact[half:][:few])
    figures = [
        {
            "recall wanted": level,
            "index type": index_type,
            "setting": " ".join(f"{name} {value}" for name, value in setting.items()),
            "recall@10": recall,
            "search ms": plain_ms,
            "search ms, cache_masks": cached_ms,
            "of which the index": index_ms,
            "build s": bench.build[index_type]["s"],
            "index MB on disk": bench.build[index_type]["MB"],
        }
        for (level, index_type, setting), (recall, cached_ms, index_ms), (_, plain_ms, _) in zip(
            chosen, cached, plain, strict=True
        )
    ]
    (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
