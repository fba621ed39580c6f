"""Sentence vectors of 384 numbers inside a Milvus server, searched in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import alula
from alula.evaluation import exact_neighbours, recall
from alula_exporters import DrqConfig, export_drq, make_training_data, train_drq
from benchmarks.glosses import load_glosses
from benchmarks.milvus.native import K, settle
from benchmarks.milvus.settings import STEPS, Native, Setting, encoded_settings, in_turns, native_settings
from benchmarks.report import Report, say
from tools.servers.standalone import MilvusStandalone

TITLE = "sentence vectors of 384 numbers"
ANSWERS = """\
The question: at the length of a small text model's vectors, what does a search in a Milvus 2.3.5 server cost, and what
does it find? 116,659 MiniLM vectors of WordNet's glosses, cosine; 500 others are queries. Every query is asked of every
index type and setting in turn, one client, through gRPC, so that other work on the machine meets all alike: compare the
times with each other. DRQ is trained first, on the same rows: with 256 sign bits, the default at this length, and a
code of 512 bits; with 512 sign bits; and with 384, which take the bytes of IVF_PQ's codes. Where the vectors are kept,
the code is not stored. "Dropped" are collections without the vectors, where sign bits alone or the code ranks. MRR is
the mean of 1 / rank of the nearest row, 0 where it is not among the ten. Memory is that of the index for a row, by the
formula that `alula create` prints and the part on memory holds against a server; a primary key takes 39 bytes more
beside any of them. Disk is a kept vector: this server has it in memory all the same, in an ARRAY column, and newer ones
map it from disk.
"""
SEED = 0
SEEDS = (SEED,)
QUERIES = 500
F32 = npt.NDArray[np.float32]
Sweep: TypeAlias = "tuple[dict[str, int], ...]"
# searches by sign bits and by the code bits of a collection without vectors, None for one that keeps them
Sweeps: TypeAlias = "dict[int, dict[int | None, Sweep]]"
CODE_BITS = 512
SWEEPS: Sweeps = {
    256: {
        None: (
            {},
            {"oversample": 5},
            {"candidates": 100},
            {"candidates": 300},
            {"candidates": 1000, "oversample": 20},
        ),
        0: ({}, {"candidates": 1000}),
        CODE_BITS: ({"candidates": 100}, {}, {"candidates": 500}, {"bits": 256}),
    },
    384: {0: ({},)},  # the bytes of IVF_PQ
    512: {
        None: ({}, {"candidates": 50}, {"candidates": 100}, {"candidates": 100, "oversample": 5}),
        0: ({}, {"candidates": 1000}),
    },
}
MOST_SECONDS = 600.0  # to train a code of 512 bits
MOST_TIMES_HNSW = 5.0
WANTED = 0.97
# by recall@10: how many times DRQ's memory of a row those of other index types are to be
TIMES_MEMORY = {0.95: {"IVF_SQ8": 10, "HNSW": 40}, 0.99: {"IVF_SQ8": 6, "HNSW": 25}}


@dataclass(frozen=True)
class Measured:
    """Name, memory, recall@10, MRR of the nearest row and p50 ms of a setting."""

    name: str
    memory: float
    recall: float
    reciprocal_rank: float
    milliseconds: float


def measure(report: Report, *, quick: bool) -> None:
    """See `measure_sentences`."""
    measure_sentences(report, "minilm", SWEEPS, quick=quick)


def measure_sentences(report: Report, model: str, sweeps: Sweeps, *, quick: bool) -> None:
    """Train DRQ, fill all index types, search in turns; quick: 19,000 rows."""
    vectors = load_glosses(20_000 if quick else None, model=model)
    order = np.random.default_rng(SEED).permutation(len(vectors))
    count = 100 if quick else QUERIES
    queries, rows = vectors[order[:count]], vectors[np.sort(order[2 * QUERIES :])]
    truth = exact_neighbours(queries, rows, K, "COSINE")
    with tempfile.TemporaryDirectory() as folder, MilvusStandalone() as server, alula.connect(server.uri) as connected:
        settings = [
            *(one for sweep in sweeps.items() for one in _drq(report, connected, rows, *sweep, Path(folder), quick)),
            *native_settings(report, connected, rows, _native(rows.shape[1])),
        ]
        found, times = in_turns(settings, queries)
    measured = []
    for one, hits, time_ in zip(settings, found, times, strict=True):
        reached, reciprocal = recall(hits, truth), _reciprocal_rank(hits, truth)
        measured.append(Measured(one.name, one.memory, reached, reciprocal, time_))
        row = {"index type": one.name, "search": one.search, "recall@10": reached, "MRR": reciprocal, "p50 ms": time_}
        report.row("Milvus 2.3.5", **row, **{"memory bytes/row": round(one.memory), "disk bytes/row": one.disk})
    _targets(report, measured)


def _reciprocal_rank(found: list[list[int]], truth: npt.NDArray[Any]) -> float:
    """The mean of 1 / rank of the nearest row."""
    nearest = [int(one[0]) for one in truth]
    ranks = [hits.index(best) + 1 if best in hits else np.inf for hits, best in zip(found, nearest, strict=True)]
    return float(np.mean(1 / np.array(ranks)))


def _drq(
    report: Report,
    server: alula.Server,
    rows: F32,
    bits: int,
    sweeps: dict[int | None, Sweep],
    folder: Path,
    quick: bool,
) -> Iterator[Setting]:
    """DRQ with a number of sign bits, with kept and with dropped vectors."""
    longest = max(code_bits or 0 for code_bits in sweeps)
    say(f"\nTraining DRQ with {bits} sign bits on {len(rows):,} rows of {rows.shape[1]} numbers")
    started = time.perf_counter()
    short = {"epochs": 1} if quick or not longest else {}  # a code that is not stored is not trained
    config = DrqConfig(levels=max(longest, 8) // 8, sign_bits=bits, seed=SEED, **short)
    path = folder / f"{bits}.onnx"
    export_drq(train_drq(make_training_data(rows, seed=SEED), config), path)
    seconds = time.perf_counter() - started
    step = f"train DRQ, {bits} sign bits, code of {8 * config.levels} bits"
    report.row(STEPS, step=step, seconds=seconds)
    if longest:
        what = f"Seconds to train a code of {longest} bits on {len(rows):,} rows"
        report.at_most(what, seconds, MOST_SECONDS)
    for code_bits, sweep in sweeps.items():
        code = f" and a code of {code_bits}" if code_bits else ""
        name = f"DRQ, {bits} sign bits{code}{'' if code_bits is None else ', dropped'}"
        say(f"\nLoading {name}")
        started = time.perf_counter()
        made = f"{'kept' if code_bits is None else f'dropped_{code_bits}'}_{bits}"
        options = {} if code_bits is None else {"code_bits": code_bits}
        opened = {"encoder": path, "index_type": "DRQ", "keep_vectors": code_bits is None, "options": options}
        collection = alula.Collection.create(server, made, **opened)
        collection.insert(rows, {"id": np.arange(len(rows))})
        settle(server, collection.name)
        report.row(STEPS, step=f"load and build {name}", seconds=time.perf_counter() - started)
        yield from encoded_settings(name, collection, sweep)


def _native(dim: int) -> Iterator[Native]:
    hnsw, ivf = {"M": 16, "efConstruction": 200}, {"nlist": 512}
    yield Native("HNSW", hnsw, [{"ef": ef} for ef in (16, 32, 64, 128)])
    yield Native("IVF_SQ8", ivf, [{"nprobe": probes} for probes in (16, 64, 128)])
    yield Native("IVF_PQ", {**ivf, "m": dim // 8, "nbits": 8}, [{"nprobe": probes} for probes in (64, 128)])
    yield Native("FLAT", {})


def _targets(report: Report, measured: Sequence[Measured]) -> None:
    def fastest(kind: str) -> float:
        reached = [one.milliseconds for one in measured if one.name.startswith(kind) and one.recall >= WANTED]
        return min(reached, default=float("inf"))

    ratio = fastest("DRQ") / fastest("HNSW")
    what = f"DRQ's p50 at recall@10 of {WANTED}, times that of HNSW"
    report.at_most(what, ratio, MOST_TIMES_HNSW)
    memory = {one.name: one.memory for one in measured}
    for reached, times in TIMES_MEMORY.items():
        found = [one.memory for one in measured if "DRQ" in one.name and one.recall >= reached]
        for kind, wanted in times.items():
            what = f"{kind}'s memory of a row, times that of DRQ at recall@10 of {reached}"
            report.at_least(what, memory[kind] / min(found, default=float("inf")), wanted)

    def best(words: str, figure: Callable[[Measured], float]) -> float:
        return max(figure(one) for one in measured if words in one.name)

    figures: dict[str, Callable[[Measured], float]] = {
        "recall@10": lambda one: one.recall,
        "MRR": lambda one: one.reciprocal_rank,
    }
    for name in (one for one in memory if "dropped" in one):
        for what, figure in figures.items():
            gain = best(name, figure) - best("IVF_PQ", figure)
            sizes = f"{memory[name]:.0f} bytes: over IVF_PQ of {memory['IVF_PQ']:.0f}"
            report.at_least(f"{name}, {sizes}, {what}", gain, 0.0)
    if any("and a code of" in one.name for one in measured):
        for what, figure in figures.items():
            gain = best("and a code of", figure) - best("512 sign bits, dropped", figure)
            report.at_least(f"With dropped vectors, a code of {CODE_BITS} bits over 512 sign bits, {what}", gain, 0.0)
