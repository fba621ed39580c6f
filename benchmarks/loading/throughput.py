"""Rows per second of ``alula load`` against a plain script on the same rows.

Two scripts. A inserts row dictionaries that are encoded already: all that it does in its time is `MilvusClient.insert`
in batches of the best of four sizes. B reads the Parquet file and encodes with onnxruntime as it comes, one batch after
another, and inserts them the same way. ``alula load`` reads, encodes, writes, journals, and verifies.
"""

from __future__ import annotations

import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import MilvusClient

import alula
from benchmarks.glove import load_words
from benchmarks.loading.checking import FIELD, companions, count, open_encoder
from benchmarks.loading.loader import Loader
from benchmarks.report import Report, say
from tools.servers.lite import LiteDatabase
from tools.servers.standalone import MilvusStandalone

TITLE = "rows a second against a plain script"
ANSWERS = """\
The question: how fast is the whole of `alula load` (reading, encoding, writing, journal, check at the end) beside the
plainest good script for the same rows and server? Script A inserts row dictionaries that lie encoded in memory: it does
nothing but `MilvusClient.insert`, in batches of the best of four sizes. Script B reads the Parquet file, encodes with
onnxruntime's own number of threads and inserts, one after another. The three take turns; the figures are medians, the
least and the most. Targets are for the time until the last row is acknowledged, as A's time is, and against A, which
has less to do; a quick run's are against B. The fixed cost of a load (starting, flushing, the check at the end) is in
the line "all". The rows are GloVe words of 50 numbers, the encoders are of the README's sizes (FLOPS_SPARSE: 32
non-zeros of 4,096; DRQ: 256 sign bits, which are stored alone, and a code of 128 bits). The bottleneck is the stage
that was busiest, as a share of what it can do at once. "Encoding alone" is the encoder in this process with all rows in
memory: a code, which layout adc and the option code_bits store, is found by a beam search, and sign bits need none.
"""

SEED = 0
SEEDS = (SEED,)
ROWS, QUICK_ROWS = 100_000, 30_000
REPEATS, QUICK_REPEATS = 3, 1
SIZES = (1000, 2000, 4000, 10_000)
SWEEP = 20_000  # rows with which the script's best batch is found
TARGET = 1.5  # over script A
QUICK_TARGET = 1.2  # over script B
COLLECTION = "words"
Row = dict[str, Any]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Words:
    """The rows to load: as a file, and in memory."""

    path: Path
    columns: Mapping[str, Any]

    @property
    def count(self) -> int:
        return len(self.columns["id"])


@dataclass(frozen=True)
class Job:
    """One comparison: an index type in an engine, with the vectors or without."""

    engine: str
    uri: str
    index_type: str
    encoder: Path
    keep_vectors: bool

    @property
    def name(self) -> str:
        return f"{self.index_type}, {self.engine}, vectors {'kept' if self.keep_vectors else 'dropped'}"

    def create(self) -> None:
        """An empty collection, in place of the last one."""
        with alula.connect(self.uri) as server:
            if server.has_collection(COLLECTION):
                server.client.drop_collection(COLLECTION)
            alula.Collection.create(
                server,
                COLLECTION,
                encoder=self.encoder,
                index_type=self.index_type,
                columns=["word:VARCHAR(512)"],
                keep_vectors=self.keep_vectors,
                consistency_level="Strong",
            )


def measure(report: Report, *, quick: bool) -> None:
    """Run all comparisons.

    Args:
        report: Gets the table and the targets.
        quick: Fewer rows, once each and with the vectors, and a lower target.
    """
    place = Path(tempfile.mkdtemp(prefix="alula-throughput-"))
    try:
        words = _words(place / "words.parquet", QUICK_ROWS if quick else ROWS)
        flops, drq = (_encoder(kind, place) for kind in ("flops", "drq"))
        _encode(report, flops, drq, words.columns[FIELD], QUICK_REPEATS if quick else REPEATS)
        with LiteDatabase() as lite, MilvusStandalone() as server:
            for keep in (True,) if quick else (True, False):
                for job in (
                    Job("Milvus Lite 2.5", lite.uri, "FLOPS_SPARSE", flops, keep),
                    Job("Milvus 2.3.5", server.uri, "DRQ", drq, keep),
                ):
                    _compare(report, job, words, quick)
    finally:
        shutil.rmtree(place)


def _encoder(kind: str, place: Path) -> Path:
    """An encoder of the README's size.

    Its training is short: how long it was does not change what encoding costs.
    """
    from alula_exporters import (
        DrqConfig,
        FlopsConfig,
        export_drq,
        export_flops,
        make_training_data,
        train_drq,
        train_flops,
    )

    path = place / f"words-{kind}.onnx"
    data = make_training_data(load_words(1000, SEED, most=20_000).rows, seed=SEED)
    if kind == "flops":
        export_flops(train_flops(data, FlopsConfig(dim=4096, nnz=32, steps=100, seed=SEED)), path)
    else:
        export_drq(train_drq(data, DrqConfig(levels=16, epochs=1, seed=SEED)), path)
    return path


def _encode(report: Report, flops_file: Path, drq_file: Path, vectors: F32, repeats: int) -> None:
    """Rows per second of the encoders alone."""
    flops, drq = alula.load_encoder(flops_file), alula.load_encoder(drq_file)
    ways: dict[str, Callable[[F32], Any]] = {
        "FLOPS_SPARSE": flops.encode_rows,
        "DRQ, sign bits alone": drq.native_rows,
        "DRQ, sign bits and a code of 128 bits": drq.encode_rows,
    }
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(repeats):
        for what, encode in ways.items():
            encode(vectors[:100])
            started = time.perf_counter()
            encode(vectors)
            seconds[what].append(time.perf_counter() - started)
    for what, taken in seconds.items():
        rates = [len(vectors) / one for one in taken]
        figures = {"rows/s": statistics.median(rates), "least": min(rates), "most": max(rates)}
        report.row("Encoding alone", what=what, **figures)


def _words(path: Path, most: int) -> Words:
    found = load_words(1000, SEED, most=most + 1000)
    columns = {"id": list(range(len(found.rows))), "word": found.words, FIELD: found.rows}
    pq.write_table(pa.table({**columns, FIELD: list(found.rows)}), path)
    return Words(path, columns)


def _interpreter_start() -> float:
    """Seconds that the command takes to do nothing, now."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "alula.cli", "load", "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def _compare(report: Report, job: Job, words: Words, quick: bool) -> None:
    say(f"\n{job.name}: {words.count:,} rows")
    encoded = _dictionaries(words.columns, job, open_encoder(job.encoder))
    size = _best_size(job, encoded)
    gc.collect()
    gc.freeze()  # or the script would be slowed by the collector's walks over all these rows
    rates: dict[str, list[float]] = {}
    last: dict[str, Any] = {}
    for _ in range(QUICK_REPEATS if quick else REPEATS):
        runs: dict[str, Callable[[], float]] = {
            "A": lambda: _timed(job, lambda client: _insert(client, encoded, size)),
            "B": lambda: _timed(job, lambda client: _read_encode_insert(client, words.path, job, size)),
        }
        for name, run in runs.items():
            job.create()
            rates.setdefault(name, []).append(words.count / run())
        job.create()
        start = _interpreter_start()
        wall, last = _load(job, words)
        rates.setdefault("load", []).append(words.count / (wall - start))
        rates.setdefault("report", []).append(last["rows_per_second"])
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, what in (
        ("A", f"script A: insert rows encoded before, {size:,} at a time"),
        ("B", f"script B: read, encode, insert, {size:,} at a time"),
        ("load", "alula load: all, less the interpreter's start"),
        ("report", "alula load: by its own report, until all is written"),
    ):
        report.row(
            f"Throughput: {job.name}",
            what=what,
            **{"rows/s": median[name], "least": min(rates[name]), "most": max(rates[name])},
            **{"over A": median[name] / median["A"], "over B": median[name] / median["B"]},
        )
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in last["busy"].items())
    report.figures[f"bottleneck: {job.name}"] = f"{last['bottleneck']} ({busy})"
    say(f"  bottleneck: {last['bottleneck']} ({busy})")
    script, target = ("B", QUICK_TARGET) if quick else ("A", TARGET)
    what = f"{job.name}: rows/s of alula load over script {script}"
    report.at_least(what, median["report"] / median[script], target)


def _dictionaries(columns: Mapping[str, Any], job: Job, session: onnxruntime.InferenceSession) -> list[Row]:
    """Rows as pymilvus takes them."""
    fields = {"id": columns["id"], "word": columns["word"], **companions(session, columns[FIELD])}
    if job.keep_vectors:
        # Milvus 2.3.5 keeps them as an ARRAY, which pymilvus takes as a list
        fields[FIELD] = columns[FIELD] if job.engine == "Milvus Lite 2.5" else columns[FIELD].tolist()
    names = list(fields)
    values = [field.tolist() if getattr(field, "ndim", 0) == 1 else field for field in fields.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _best_size(job: Job, encoded: list[Row]) -> int:
    """The batch with which the script is fastest."""
    seconds = {}
    for size in SIZES:
        job.create()
        seconds[size] = _timed(job, lambda client, size=size: _insert(client, encoded[:SWEEP], size))
    say("  script, rows/s by batch: " + ", ".join(f"{size}: {SWEEP / taken:,.0f}" for size, taken in seconds.items()))
    return min(seconds, key=lambda size: seconds[size])


def _timed(job: Job, work: Callable[[MilvusClient], None]) -> float:
    """Seconds of some work with a connected client."""
    with alula.connect(job.uri) as server:
        started = time.perf_counter()
        work(server.client)
        return time.perf_counter() - started


def _insert(client: MilvusClient, rows: list[Row], size: int) -> None:
    for start in range(0, len(rows), size):
        client.insert(COLLECTION, rows[start : start + size])


def _read_encode_insert(client: MilvusClient, path: Path, job: Job, size: int) -> None:
    session = open_encoder(job.encoder)
    for batch in _batches(path, size):
        client.insert(COLLECTION, _dictionaries(batch, job, session))


def _batches(path: Path, size: int) -> Iterator[Mapping[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(size):
        vectors = batch.column(FIELD)
        dim = len(vectors.flatten()) // len(vectors)
        yield {
            "id": batch.column("id").to_pylist(),
            "word": batch.column("word").to_pylist(),
            FIELD: vectors.flatten().to_numpy().reshape(-1, dim).astype("float32"),
        }


def _load(job: Job, words: Words) -> tuple[float, dict[str, Any]]:
    """Run ``alula load``: seconds of the whole process, and its own report."""
    with tempfile.TemporaryDirectory() as folder:
        loader = Loader(Path(folder), COLLECTION, words.path, job.encoder, job.uri)
        started = time.perf_counter()
        loader.launch()
        code = loader.wait()
        wall = time.perf_counter() - started
        lines = loader.log.read_text().splitlines()
    if code:
        raise SystemExit(f"alula load ended with {code}: {lines[-1]}")
    with alula.connect(job.uri) as server:
        there = count(server.client, COLLECTION)
    if there != words.count:
        raise SystemExit(f"alula load left {there} rows of {words.count}")
    return wall, next(json.loads(line) for line in reversed(lines) if '"done"' in line)
