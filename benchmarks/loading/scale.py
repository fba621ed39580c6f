"""The cost of a billion rows, from measured rates; a script for docs/scale.md.

Times are processor seconds of one core, which other programs on the machine disturb far less than they disturb the
clock. Sizes are by the formula that `alula create` prints.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import alula
from alula.encoders import DrqEncoder, EncoderInfo, FlopsEncoder, load_encoder
from alula.encoders.encoder import SLICE_ROWS
from alula.index_types import VectorField, index_type, key_cost, lowering_cost, vector_spec
from alula.index_types.drq.hamming import AUTO
from alula.ingest.duplicates import duplicate_rows
from alula.ingest.journal import Acknowledgement, Journal
from alula.ingest.target import BATCH_ROWS
from alula_exporters.drq.graph import build_graph as drq_graph
from alula_exporters.drq.variants import QUANTIZERS
from alula_exporters.flops.export import build_graph as flops_graph
from alula_exporters.flops.model import SparseEncoder
from alula_exporters.onnx_export import export_encoder
from benchmarks.report import BUILD, Report, markdown, say
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.standalone import MilvusStandalone

TITLE = "what a billion rows take"
ANSWERS = None  # the tables are on a page of their own, docs/scale.md
SEED = 0
SEEDS = (SEED,)
PAGE = Path("docs/scale.md")
GOAL = 10**9
DIMS = (50, 384, 768)
LEVELS, SIGN_BITS, BEAM, NNZ = 16, 256, 5, 32
FLOPS_DIMS = (1024, 4096)
ROWS, QUICK_ROWS = 100_000, 8_000
TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.05  # of a core: then Milvus has nothing more to do
USABLE = 0.7  # of a node's memory
NODES = (64, 256)  # GB
COLLECTION = "scale"


def write_encoder(kind: str, dim: int, outputs: int, path: Path) -> Path:
    """An exported encoder with random weights, which do not change its speed."""
    generator = torch.Generator().manual_seed(SEED)
    if kind == "drq":
        model: Any = QUANTIZERS["default"](dim, LEVELS, SIGN_BITS, "COSINE", 1.0)
        info = EncoderInfo("drq", "COSINE", dim, True, scale=1.0, levels=LEVELS, sign_bits=SIGN_BITS)
    else:
        model = SparseEncoder(dim, outputs, NNZ)
        info = EncoderInfo("flops", "COSINE", dim, True, scale=1.0, dim=outputs, max_nnz=NNZ)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dtype.is_floating_point and not tensor.any():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    graph = drq_graph(model, BEAM) if kind == "drq" else flops_graph(model)
    export_encoder(graph, info, path, check=lambda _: {}, force=True)
    return path


def measure(report: Report, *, quick: bool) -> None:
    """Measure the rates, and work out what a billion rows take.

    Args:
        report: Gets the tables.
        quick: Fewer rows, and one dimension to write.
    """
    rows = QUICK_ROWS if quick else ROWS
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=BUILD) as folder:
        place = Path(folder)
        with report.part("encoding"):
            _encoding(report, place, rows)
        with report.part("writing into Milvus"), MilvusStandalone() as server:
            idle = _rate(server, 10.0)
            for dim in DIMS[:1] if quick else DIMS:
                for keep in (False, True):
                    _writing(report, place, server, idle, dim, keep, rows)
        with report.part("sizes"):
            _sizes(report, place)
        with report.part("keys and journal"):
            _bookkeeping(report, place, 100 * rows)


def _encoding(report: Report, place: Path, rows: int) -> None:
    """Processor seconds for a row, by encoder and dimension."""
    for dim in DIMS:
        vectors = random_vectors(SLICE_ROWS, dim, seed=SEED)
        for name, kind, outputs, code_bits in (
            ("DRQ", "drq", LEVELS, 0),
            (f"DRQ, with a code of {8 * LEVELS} bits", "drq", LEVELS, 8 * LEVELS),
            *((f"FLOPS_SPARSE, D = {outputs:,}", "flops", outputs, 0) for outputs in FLOPS_DIMS),
        ):
            path = write_encoder(kind, dim, outputs, place / f"{kind}-{dim}.onnx")
            lowering = _lowering(load_encoder(path, threads=1), dim, "hamming", "field", code_bits=str(code_bits))
            lowering.encode_rows(vectors)
            best = math.inf
            for _ in range(3):
                began, slices = time.process_time(), max(1, rows // 5 // SLICE_ROWS)
                for _ in range(slices):
                    lowering.encode_rows(vectors)
                best = min(best, (time.process_time() - began) / slices / SLICE_ROWS)
            report.row(
                "Encoding",
                encoder=name,
                dimension=dim,
                **{
                    "rows/s on a core": round(1 / best),
                    "core-hours for 10^9": best * GOAL / 3600,
                    "hours on 64 cores": best * GOAL / 3600 / 64,
                },
            )


def _lowering(encoder: FlopsEncoder | DrqEncoder, dim: int, layout: str, storage: Any, *, code_bits: str = AUTO) -> Any:
    kind = index_type("DRQ" if isinstance(encoder, DrqEncoder) else "FLOPS_SPARSE")
    settings = {"type": kind.name, "layout": layout, "binary_index": "BIN_FLAT", "code_bits": code_bits}
    return kind.lowering(VectorField("embedding", dim, "COSINE", storage), encoder, settings)


def _writing(
    report: Report,
    place: Path,
    server: MilvusStandalone,
    idle: float,
    dim: int,
    keep: bool,
    rows: int,
) -> None:
    """Load rows as they would be loaded, and count the processor time of both sides."""
    file = place / f"{dim}.parquet"
    if not file.exists():
        vectors = random_vectors(rows, dim, seed=SEED)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
        pq.write_table(pa.table({"id": np.arange(rows), "embedding": column}), file)
    encoder = load_encoder(place / f"drq-{dim}.onnx", threads=1)
    for mode in ("insert", "upsert"):
        with alula.connect(server.uri) as connected:
            collection = alula.Collection.create(
                connected, COLLECTION, encoder=encoder, index_type="DRQ", keep_vectors=keep
            )
            before, own = _server_seconds(server), time.process_time()
            done = collection.load(file, mode=mode)
            own, during = time.process_time() - own, _server_seconds(server) - before
            after = _until_quiet(server, idle)
            collection.drop()
        per_million = 1e6 / rows
        report.row(
            "Writing",
            dimension=dim,
            vectors="kept" if keep else "dropped",
            mode=mode,
            **{
                "rows/s here": round(rows / done.seconds),
                "loader": own * per_million,
                "Milvus, while writing": during * per_million,
                "Milvus, afterwards": after * per_million,
                "core-hours for 10^9, loader": own * per_million / 3.6,
                "core-hours for 10^9, Milvus": (during + after) * per_million / 3.6,
                "loader cores to a core of Milvus": own / during,
            },
        )


def _server_seconds(server: MilvusStandalone) -> float:
    """Processor seconds that the server has used."""
    user, system = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / TICKS


def _until_quiet(server: MilvusStandalone, idle: float, most: float = 120.0) -> float:
    """Processor seconds of flush and index building, without idling."""
    before, began = _server_seconds(server), time.monotonic()
    while _rate(server, 3.0) > idle + QUIET and time.monotonic() < began + most:
        pass
    return max(0.0, _server_seconds(server) - before - idle * (time.monotonic() - began))


def _rate(server: MilvusStandalone, seconds: float) -> float:
    """The number of cores that the server uses."""
    before = _server_seconds(server)
    time.sleep(seconds)
    return (_server_seconds(server) - before) / seconds


def _sizes(report: Report, place: Path) -> None:
    """Bytes by structure, and the nodes that hold them."""
    key = key_cost("INT64").memory_bytes
    for name, encoder, layout, storage in _layouts(place):
        size = lowering_cost(_lowering(load_encoder(encoder), 8, layout, storage), maps=True).memory_bytes
        total = (size + key) * GOAL / 1e9
        nodes = {f"nodes of {memory} GB": math.ceil(total / memory / USABLE) for memory in NODES}
        report.row("Memory", **{"index type": name, "bytes/row": round(size), "GB for 10^9": round(total)}, **nodes)
    for dim in DIMS:
        spec = vector_spec(VectorField("embedding", dim, "COSINE", "field"))
        assert spec is not None
        report.row(
            "Vectors",
            dimension=dim,
            **{"bytes/row": spec.bytes_per_row, "GB for 10^9": round(spec.bytes_per_row * GOAL / 1e9)},
        )


def _layouts(place: Path) -> Iterator[tuple[str, Path, str, str]]:
    """Names of lowerings, their encoders, layouts, and whether vectors are kept."""
    sizes = place / "sizes.onnx"
    yield f"FLOPS_SPARSE, {NNZ} non-zeros", write_flops(sizes, dim=64, max_nnz=NNZ).path, "", "field"
    for bits in (128, 256, 512):
        yield f"DRQ hamming, {bits} sign bits", write_drq(sizes, sign_bits=bits).path, "hamming", "field"
    for bits in (256, 512):
        path = write_drq(sizes, levels=bits // 8, sign_bits=256).path
        yield f"DRQ hamming, 256 sign bits and a code of {bits}, vectors dropped", path, "hamming", "dropped"
    for bits in (64, 128, 256):
        yield f"DRQ adc, {bits} bits", write_drq(sizes, levels=bits // 8).path, "adc", "field"


def _bookkeeping(report: Report, place: Path, rows: int) -> None:
    """The search for equal keys, and the journal."""
    keys = [pa.array(np.arange(i, i + 65536) * 7919) for i in range(0, rows, 65536)]
    began = time.process_time()
    duplicate_rows(keys, place, most=0)
    per_row = (time.process_time() - began) / 65536 / len(keys)
    report.row(
        "Bookkeeping",
        what="search for equal keys",
        **{"disk for 10^9": "24 GB, until the first row is written", "core-hours for 10^9": per_row * GOAL / 3600},
    )
    path = place / "journal"
    journal = Journal(path)
    journal.begin({"collection": COLLECTION}, 0)
    journal.begin_run()
    batches = max(200, rows // BATCH_ROWS)
    sample = [(i, bytes(4 * DIMS[-1])) for i in range(8)]
    began = time.process_time()
    for i in range(batches):
        span = (i * BATCH_ROWS, (i + 1) * BATCH_ROWS - 1)
        journal.sending(span)
        journal.acknowledge(i, Acknowledgement(span, BATCH_ROWS, sample=sample))
    per_row = (time.process_time() - began) / batches / BATCH_ROWS
    size = sum(Path(f"{path}{suffix}").stat().st_size for suffix in ("", "-wal"))
    journal.close()
    report.row(
        "Bookkeeping",
        what=f"journal, measured after {batches * BATCH_ROWS:,} rows",
        **{"disk for 10^9": f"{size / 1e6:.1f} MB, as after any number", "core-hours for 10^9": per_row * GOAL / 3600},
    )


def write_page(figures: dict[str, Any]) -> None:
    """Replace the page's tables and the description of their measurement."""
    text = PAGE.read_text()
    short = ", a short run (QUICK=1)" if figures["quick"] else ""
    about = f"Measured {figures['date']} on {figures['machine']}, seed {figures['seeds'][0]}{short}."
    blocks = {"About": about, **{name: markdown(rows) for name, rows in figures["tables"].items()}}
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{block}\n\n{end}{rest.split(end, 1)[1]}"
    PAGE.write_text(text)


if __name__ == "__main__":
    found = [path for path in (BUILD / "loading-scale.json", BUILD / "loading-scale-quick.json") if path.exists()]
    if not found:
        raise SystemExit('There are no figures yet: make bench-load PARTS="scale".')
    write_page(json.loads(found[0].read_text()))
    say(f"{PAGE} from {found[0]}.")
