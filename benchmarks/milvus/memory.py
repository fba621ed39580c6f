"""Memory per row: what Linux counts of a restarted server, beside the formula."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
from pymilvus.exceptions import MilvusException
from tenacity import retry, retry_if_exception_type, stop_after_attempt

import alula
from alula.catalog.schema import ScalarField
from alula.errors import ServerError
from alula.evaluation.native import native_collection, wait_until_indexed
from alula.evaluation.row_source import file_rows
from alula.index_types import RowCost, key_cost, native_cost
from alula.milvus.reading import count_rows
from benchmarks.report import Report, say
from tests.tiny_encoders import write_drq
from tools.servers.standalone import MilvusStandalone

TITLE = "memory per row"
ANSWERS = """\
The question: how much memory does one more row take, and does the formula that `alula create`, `describe`, `doctor`,
`evaluate` and the model card print agree with it? Milvus 2.3.5 is restarted with one loaded collection, so that nothing
of the build is left; "MB" is its anonymous resident memory over that of a server restarted empty. Some MB of it
do not grow with the rows, so "by the kernel" is the slope between two numbers of rows. Both figures hold the index, the
INT64 primary key and Milvus's own columns; "of it index" is the part that the commands print first. Random vectors and
an untrained encoder of 128 bits and 256 sign bits: memory does not depend on what a search finds.

Two things would make a reading depend on its moment, and are left out: the heap of Go, which holds no rows and swings
by some MB with its garbage, and pages that Milvus's allocator has freed and not yet returned: a thread of its own
returns them (`MALLOC_CONF=background_thread:true`, which images of later versions set). "As started" is the slope
without that thread, as the package of Milvus 2.3.5 starts: what loading a segment freed is kept until other segments
need it.
"""
SEED = 0
SEEDS = (SEED,)
TABLE = "Memory of a row in Milvus 2.3.5, bytes"
TOLERANCE = 0.15
WORKERS = 5  # servers at a time
PIECE = 20_000  # rows of an insert
KEY = ScalarField("id", "INT64")
PURGING = {"MALLOC_CONF": "background_thread:true"}
STEADY = 0.5e6  # bytes between readings that count as no change
READINGS = 2  # of no change
DEADLINE = 180.0  # seconds, to be loaded or steady again
BUILD_TIMEOUT = 1800.0  # seconds
MAPPING = re.compile(r"([0-9a-f]+)-[0-9a-f]+ ")  # the first line of a mapping in smaps
GO_HEAP = range(0xC000000000, 0xD000000000)  # where Go's runtime has its heap on 64-bit Linux


@dataclass(frozen=True)
class Case:
    """An index type, and the numbers of rows between which the slope is taken.

    Args:
        name: Its name in the table.
        index_type: One of Milvus's own types, or DRQ.
        params: Its build parameters, where they are not those of ``alula evaluate``.
        dims_per_code: For IVF_PQ: dimensions that a code encodes.
        counts: Two numbers of rows: further apart for types that take little, whose slope noise would hide.
        keep: For DRQ: True to keep the vectors.
    """

    name: str
    index_type: str
    params: Mapping[str, int] = field(default_factory=dict)
    dims_per_code: int = 0
    counts: tuple[int, int] = (25_000, 75_000)
    keep: bool = False


APART = (50_000, 150_000)
CASES = (
    Case("FLAT", "FLAT"),
    Case("HNSW, M=16", "HNSW", {"efConstruction": 40}),  # a quick build: the graph's size is the same
    Case("IVF_FLAT", "IVF_FLAT"),
    Case("IVF_SQ8", "IVF_SQ8", {"nlist": 512}, counts=APART),
    # codes of 4 bits are trained in a tenth of the time of 8, for as many bytes
    Case("IVF_PQ, m = d / 4, 4 bits", "IVF_PQ", {"nlist": 128, "nbits": 4}, 4, counts=APART),
    Case("DRQ hamming, vectors kept (ARRAY)", "DRQ", keep=True),
    Case("DRQ hamming, vectors dropped", "DRQ", counts=APART),
)
QUICK_CASES = tuple(replace(case, counts=(5_000, 25_000)) for case in CASES if case.index_type in ("HNSW", "DRQ"))


def measure(report: Report, *, quick: bool) -> None:
    """Restart Milvus 2.3.5 with each collection; quick: few rows of three cases.

    Each case has a process and a server, some of them side by side: that disturbs times, and no memory.
    """
    dims, cases = ((384,), QUICK_CASES) if quick else ((384, 768), CASES)
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        empty = pool.submit(_empty)
        futures = [(case, dim, pool.submit(_reading, case, dim)) for dim in dims for case in cases]
        for case, dim, future in futures:
            _show(report, case, dim, future.result(), empty.result())


@dataclass(frozen=True)
class Reading:
    """The figures of one case.

    Args:
        resident: Bytes by the case's numbers of rows.
        as_started: Bytes without the allocator's thread; empty where they are not measured.
        index: Bytes of the whole index by formula.
    """

    resident: list[int] = field(default_factory=list)
    as_started: list[int] = field(default_factory=list)
    index: list[float] = field(default_factory=list)


def _show(report: Report, case: Case, dim: int, reading: Reading, empty: int) -> None:
    few, many = case.counts

    def slope(figures: Sequence[float]) -> float:
        return (figures[1] - figures[0]) / (many - few)

    kernel, index = slope(reading.resident), slope(reading.index)
    formula = index + key_cost(KEY.data_type).memory_bytes
    report.row(
        TABLE,
        **{
            "index type": case.name,
            "dimensions": dim,
            "rows": f"{few:,} and {many:,}",
            "MB": " and ".join(f"{(size - empty) / 1e6:.1f}" for size in reading.resident),
            "by the kernel": round(kernel),
            "by formula": round(formula),
            "of it index": round(index),
            "formula / kernel": formula / kernel,
            "as started": round(slope(reading.as_started)) if reading.as_started else "",
        },
    )
    met = abs(formula / kernel - 1) <= TOLERANCE
    what = f"Memory of a row, formula / kernel: {case.name}, {dim} dimensions"
    report.target(what, formula / kernel, "1 +- 0.15", met)


def _empty() -> int:
    """Resident bytes of a server without collections."""
    with tempfile.TemporaryDirectory() as folder, _server(folder) as server:
        return _restarted(server, PURGING)


@retry(retry=retry_if_exception_type((ServerError, MilvusException)), stop=stop_after_attempt(3), reraise=True)
def _reading(case: Case, dim: int) -> Reading:
    """Measure a case on a server of its own; again where that ends.

    Milvus ends itself where it is too short of processor time to renew its session.
    """
    reading = Reading()
    with tempfile.TemporaryDirectory() as folder, _server(folder) as server:
        for rows in case.counts:
            vectors = Path(folder) / "vectors.npy"
            np.save(vectors, np.random.default_rng(SEED).standard_normal((rows, dim), dtype=np.float32))
            with _collection(case, server.uri, vectors) as (name, cost):
                if case.keep:
                    reading.as_started.append(_restarted(server, {}, name))
                reading.resident.append(_restarted(server, PURGING, name))
            reading.index.append(rows * cost.memory_bytes)  # of all rows, because they share centroids and tables
            say(f"{case.name}, {dim} dimensions, {rows:,} rows: {reading.resident[-1] / 1e6:.1f} MB")
    return reading


def _server(folder: str) -> MilvusStandalone:
    return MilvusStandalone(Path(folder) / "milvus")


@contextmanager
def _collection(case: Case, uri: str, vectors: Path) -> Iterator[tuple[str, RowCost]]:
    """A collection that is indexed, compacted and loaded; dropped at the end."""
    rows = np.load(vectors, mmap_mode="r")
    count, dim = rows.shape
    with alula.connect(uri) as server:
        if case.index_type == "DRQ":
            encoder = write_drq(vectors.with_name("drq.onnx"), input_dim=dim, levels=16, sign_bits=256)
            made = alula.Collection.create(
                server, "drq", encoder=encoder.path, index_type="DRQ", keep_vectors=case.keep, options={}
            )
            for start in range(0, count, PIECE):
                made.insert(rows[start : start + PIECE], {"id": np.arange(start, min(count, start + PIECE))})
            _settle(server, made.name)
            yield made.name, made.spec.cost
            made.drop()
            return
        params = {**case.params, **({"m": dim // case.dims_per_code} if case.dims_per_code else {})}
        source = file_rows(str(vectors), None, dim)
        about = {"metric": "COSINE", "dim": dim, "count": count, "build_timeout": BUILD_TIMEOUT}
        with native_collection(server, source, KEY, case.index_type, params, **about) as built:
            _settle(server, built.name)
            yield built.name, native_cost(case.index_type, dim, built.params, count)


def _settle(server: alula.Server, name: str) -> None:
    """Compact, so that no segment is in memory twice, and wait for the indexes."""
    wait_until_indexed(server, name, "building", BUILD_TIMEOUT)
    job = server.client.compact(name)
    deadline = time.monotonic() + DEADLINE
    while server.client.get_compaction_state(job) != "Completed" and time.monotonic() < deadline:
        time.sleep(0.5)
    wait_until_indexed(server, name, "building", BUILD_TIMEOUT)


def _restarted(server: MilvusStandalone, environment: Mapping[str, str], name: str | None = None) -> int:
    """Resident bytes of a server after a restart, with a loaded collection if any."""
    server.stop()
    with mock.patch.dict(os.environ, environment):
        server.start()
    if name is not None:
        with alula.connect(server.uri) as client:
            _until_loaded(client, name)
    return _resident(server)


def _until_loaded(server: alula.Server, name: str) -> None:
    """Wait until a server that was restarted answers for a collection."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            count_rows(server, name)
        except ServerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _resident(server: MilvusStandalone) -> int:
    """Anonymous resident bytes of a server without Go's heap, once they are steady."""
    assert server.pid is not None
    deadline = time.monotonic() + DEADLINE
    unchanged, last = 0, -1
    while unchanged < READINGS and time.monotonic() < deadline:
        time.sleep(2)
        now = _outside_go(server.pid)
        unchanged, last = (unchanged + 1 if abs(now - last) < STEADY else 0), now
    return last


def _outside_go(pid: int) -> int:
    """Anonymous bytes of a process in mappings that are not of Go's heap."""
    total, counted = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if mapping := MAPPING.match(line):
            counted = int(mapping[1], 16) not in GO_HEAP
        elif counted and line.startswith("Anonymous:"):
            total += int(line.split()[1]) << 10
    return total
