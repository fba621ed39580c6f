"""The most memory that ``alula load`` takes, for files of growing size."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import alula
from benchmarks.loading.loader import Loader
from benchmarks.report import BUILD, Report
from tests.tiny_encoders import TinyDrq, write_drq
from tools.servers.standalone import MilvusStandalone

TITLE = "memory by size of the source"
ANSWERS = """\
The question: how much memory does the process of `alula load` take at most, when the source grows? "Peak RSS" is the
kernel's own high-water mark, pages of mapped files counted; "anonymous" leaves these out. The rows are vectors of 768
numbers; they are loaded into Milvus 2.3.5 with DRQ, and the vectors are dropped.
"""

SEED = 0
SEEDS = (SEED,)
DIM = 768
GB = 1 << 30
TARGET = 1.0  # GB
LIMIT = 1800.0  # seconds for one load
COLLECTION = "rows"
TABLE = "Memory of alula load"
PIECE = 4096  # rows that are made at a time
SAMPLE_SECONDS = 0.02


def rows_of(size: int) -> int:
    """The number of vectors in a number of bytes."""
    return size // (4 * DIM)


def write_encoder(path: Path) -> TinyDrq:
    """A quantiser of the vectors that `pieces` makes."""
    return write_drq(path, input_dim=DIM, sign_bits=128, metric="L2", scale=1.0, seed=SEED)


def pieces(rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first row's number and the vectors, float32 (n, `DIM`), piece by piece.

    They are sums of the encoder's own codewords: what it was not trained on, it could not find again.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = write_encoder(Path(folder) / "drq.onnx").codewords
    rng = np.random.default_rng(SEED)
    for start in range(0, rows, PIECE):
        codes = rng.integers(0, 256, (min(PIECE, rows - start), len(words)))
        yield start, sum(level[codes[:, t]] for t, level in enumerate(words))


def write_parquet(path: Path, rows: int, group: int) -> None:
    """Write Parquet, uncompressed, with a number of rows per row group."""
    schema = pa.schema([("id", pa.int64()), ("embedding", pa.list_(pa.float32()))])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        held: list[pa.RecordBatch] = []
        for start, vectors in pieces(rows):
            offsets = pa.array(np.arange(0, vectors.size + 1, DIM, dtype=np.int32))
            lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
            ids = pa.array(np.arange(start, start + len(vectors)))
            held.append(pa.record_batch([ids, lists], schema=schema))
            if sum(map(len, held)) >= group:
                writer.write_table(pa.Table.from_batches(held), row_group_size=group)
                held = []
        if held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=group)


def write_json(path: Path, rows: int) -> None:
    """Write JSON lines."""
    with path.open("w") as file:
        for start, vectors in pieces(rows):
            for i, vector in enumerate(np.round(vectors, 4).tolist()):
                file.write(json.dumps({"id": start + i, "embedding": vector}) + "\n")


def write_array(path: Path, rows: int) -> None:
    """Write a NumPy array."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIM))
    for start, vectors in pieces(rows):
        array[start : start + len(vectors)] = vectors
    array.flush()


@dataclass(frozen=True)
class Case:
    """A file to load: its ending, how many GB of vectors, and who writes it."""

    what: str
    ending: str
    size: float
    write: Callable[[Path, int], None]

    @property
    def rows(self) -> int:
        return rows_of(int(self.size * GB))


SMALL, WHOLE = 1 << 15, 1 << 20  # rows in a row group: 100 MB of vectors, and pyarrow's own default
CASES = (
    Case("Parquet, row groups of 32,768", "parquet", 0.25, partial(write_parquet, group=SMALL)),
    Case("Parquet, row groups of 32,768", "parquet", 1, partial(write_parquet, group=SMALL)),
    Case("Parquet, row groups of 32,768", "parquet", 2.5, partial(write_parquet, group=SMALL)),
    Case("Parquet, one row group", "parquet", 1, partial(write_parquet, group=WHOLE)),
    Case("JSON lines", "jsonl", 0.2, write_json),  # written out, five times as much
    Case("NumPy array", "npy", 2, write_array),
)
QUICK_CASES = (
    Case("Parquet, row groups of 32,768", "parquet", 0.1, partial(write_parquet, group=SMALL)),
    Case("Parquet, one row group", "parquet", 0.8, partial(write_parquet, group=WHOLE)),
    Case("NumPy array", "npy", 0.8, write_array),
)


def measure(report: Report, *, quick: bool) -> None:
    """Load all the files into Milvus 2.3.5, the vectors dropped.

    Args:
        report: Gets the table and the targets.
        quick: Load small files.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="loading-memory-", dir=BUILD)).resolve()
    try:
        encoder = write_encoder(place / "drq.onnx").path
        with MilvusStandalone() as server:
            peaks = [_case(report, case, place, encoder, server.uri) for case in (QUICK_CASES if quick else CASES)]
    finally:
        shutil.rmtree(place)
    peak = max(peaks)
    report.target("Memory: the loader's peak resident size, any file, GB", peak, f"< {TARGET:g}", peak < TARGET)


def _case(report: Report, case: Case, place: Path, encoder: Path, uri: str) -> float:
    source = place / f"rows.{case.ending}"
    case.write(source, case.rows)
    with alula.connect(uri) as server:
        if server.has_collection(COLLECTION):
            server.client.drop_collection(COLLECTION)
        alula.Collection.create(server, COLLECTION, encoder=encoder, index_type="DRQ", keep_vectors=False)
    folder = Path(tempfile.mkdtemp(dir=place))
    loader = Loader(folder, COLLECTION, source, encoder, uri)
    started = time.perf_counter()
    loader.launch()
    peak, anonymous = _watch(loader)
    code = loader.wait()
    seconds = time.perf_counter() - started
    report.row(
        TABLE,
        file=case.what,
        **{
            "GB on disk": source.stat().st_size / GB,
            "rows": case.rows,
            "peak RSS, GB": peak / GB,
            "of it anonymous, GB": anonymous / GB,
            "seconds": round(seconds),
            "exit code": code,
        },
    )
    source.unlink()
    if code:
        raise SystemExit(f"alula load ended with {code}: {loader.log.read_text()[-1000:]}")
    return peak / GB


def _watch(loader: Loader) -> tuple[int, int]:
    """Peak resident bytes of a process, and the peak of its anonymous bytes."""
    peak = anonymous = 0
    ends = time.monotonic() + LIMIT
    while loader.alive and time.monotonic() < ends:
        status = dict(_sizes(loader.pid))
        peak = max(peak, status.get("VmHWM", 0))  # the kernel's own high-water mark: no peak falls between samples
        anonymous = max(anonymous, status.get("RssAnon", 0))
        time.sleep(SAMPLE_SECONDS)
    return peak, anonymous


def _sizes(pid: int) -> Iterator[tuple[str, int]]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            yield name, int(value.split()[0]) << 10
