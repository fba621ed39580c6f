"""Sentence vectors of 384 numbers inside Milvus Lite, searched in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

import alula
from alula.evaluation import exact_neighbours, recall
from alula_exporters import (
    DrqConfig,
    FlopsConfig,
    export_drq,
    export_flops,
    make_training_data,
    train_drq,
    train_flops,
)
from benchmarks.glosses import load_glosses
from benchmarks.milvus.native import K
from benchmarks.milvus.settings import STEPS, Native, Setting, encoded_settings, in_turns, native_settings
from benchmarks.report import Report, say

TITLE = "sentence vectors of 384 numbers in Milvus Lite"
ANSWERS = """\
The question: is an index type of Alula's faster than FLAT in Milvus Lite 2.5, at the length of a small text model's
vectors? IVF_FLAT is the only other index type for dense vectors there. 116,659 MiniLM vectors of WordNet's glosses,
cosine; 500 others are queries. Every query is asked of every index type and setting in turn, one client, in the process
that holds the database: compare the times with each other. All vectors are kept and score the candidates. Bytes are of
the index, by structure, without the vectors of 1,536 bytes, which for FLAT and IVF_FLAT are the index.
"""
SEED = 0
SEEDS = (SEED,)
QUERIES, QUICK_QUERIES = 500, 100
QUICK_ROWS = 20_000
WANTED = 0.95
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """An encoder and the searches through it.

    Args:
        name: The index type and what it stores.
        index_type: Its name.
        config: The encoder's training.
        searches: Search options.
    """

    name: str
    index_type: str
    config: DrqConfig | FlopsConfig
    searches: tuple[dict[str, int], ...] = field(default=({},))


CASES = (
    # the code is not stored, so it is hardly trained
    Case(
        "DRQ, 256 sign bits",
        "DRQ",
        DrqConfig(levels=1, sign_bits=256, epochs=1, seed=SEED),
        ({"candidates": 50}, {"candidates": 100}, {}, {"candidates": 300}),
    ),
    Case(
        "DRQ, 512 sign bits",
        "DRQ",
        DrqConfig(levels=1, sign_bits=512, epochs=1, seed=SEED),
        ({"candidates": 30}, {"candidates": 50}, {"candidates": 100}, {}),
    ),
    Case(
        "FLOPS_SPARSE, 16 non-zeros",
        "FLOPS_SPARSE",
        FlopsConfig(nnz=16, seed=SEED),
        ({"candidates": 200}, {}, {"candidates": 1000}, {"candidates": 1200}, {"candidates": 1500}),
    ),
)


def measure(report: Report, *, quick: bool) -> None:
    """Train, fill and search in turns; quick: 19,000 rows, DRQ with 256 bits."""
    vectors = load_glosses(QUICK_ROWS if quick else None)
    order = np.random.default_rng(SEED).permutation(len(vectors))
    queries, rows = vectors[order[: QUICK_QUERIES if quick else QUERIES]], vectors[np.sort(order[2 * QUERIES :])]
    truth = exact_neighbours(queries, rows, K, "COSINE")
    cases = CASES[:1] if quick else CASES
    with tempfile.TemporaryDirectory() as folder, alula.connect(str(Path(folder) / "sentences.db")) as server:
        settings = [
            *(one for case in cases for one in _filled(report, server, rows, case, folder)),
            *native_settings(report, server, rows, _native()),
        ]
        found, times = in_turns(settings, queries)
    reached = [recall(hits, truth) for hits in found]
    for one, share, milliseconds in zip(settings, reached, times, strict=True):
        report.row(
            "Milvus Lite 2.5",
            **{"index type": one.name, "search": one.search, "recall@10": share, "p50 ms": milliseconds},
            **{"index bytes/row": round(one.memory)},
        )
    for kind in dict.fromkeys(case.index_type for case in cases):
        fast = [
            milliseconds
            for one, share, milliseconds in zip(settings, reached, times, strict=True)
            if one.name.startswith(kind) and share >= WANTED
        ]
        ratio = min(fast, default=float("inf")) / times[-1]
        report.target(f"{kind}'s p50 at recall@10 of {WANTED}, times that of FLAT", ratio, "< 1", ratio < 1)


def _filled(report: Report, server: alula.Server, rows: F32, case: Case, folder: str) -> Iterator[Setting]:
    say(f"\nTraining and loading {case.name}")
    started = time.perf_counter()
    data, path = make_training_data(rows, seed=SEED), Path(folder) / f"{case.name}.onnx"
    if isinstance(case.config, DrqConfig):
        export_drq(train_drq(data, case.config), path)
    else:
        export_flops(train_flops(data, case.config), path)
    report.row(STEPS, step=f"train {case.name}", seconds=time.perf_counter() - started)
    started = time.perf_counter()
    name = case.name.lower().replace(" ", "_").replace(",", "").replace("-", "_")
    collection = alula.Collection.create(server, name, encoder=path, index_type=case.index_type)
    collection.insert(rows, {"id": np.arange(len(rows))})
    report.row(STEPS, step=f"load and build {case.name}", seconds=time.perf_counter() - started)
    yield from encoded_settings(case.name, collection, case.searches)


def _native() -> Iterator[Native]:
    yield Native("IVF_FLAT", {"nlist": 512}, [{"nprobe": probes} for probes in (1, 4, 16, 64)])
    yield Native("FLAT", {})  # last: all are held against it
