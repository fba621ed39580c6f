"""The main job, measured: train, export, create, load and search real vectors."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import alula
from alula.encoders import DrqEncoder, FlopsEncoder
from alula.evaluation import exact_neighbours, recall
from alula.index_types import native_cost
from alula.kernels import adc_inner_products, top_k
from alula_exporters import (
    DrqConfig,
    FlopsConfig,
    export_drq,
    export_flops,
    make_training_data,
    train_drq,
    train_flops,
)
from benchmarks.glove import Words, load_words
from benchmarks.milvus.native import K, load_native, native_search, settle
from benchmarks.milvus.settings import index_memory
from benchmarks.report import Report, say
from tools.servers.standalone import MilvusStandalone

TITLE = "the main job"
ANSWERS = """\
The question: what does a search cost inside Milvus with Alula's index types and with Milvus's own, and what does it
find? All 400,000 GloVe word vectors of 50 numbers, cosine, 1,000 of them held out as queries; the encoders are trained
first, in the same run. One client, one query at a time, through gRPC, one index type after another. "rerank 0" ranks by
the codes alone. Bytes are what the native index and the companion columns take of a row in memory, by the formula that
`alula create` prints. Kept vectors come on top: searches read them only to re-rank, but Milvus 2.3 holds them in
memory, in an ARRAY column.
"""
SEED = 0
SEEDS = (SEED,)
FLOPS_BUDGET = 0.28
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """The targets of the figures."""

    flops_recall: float
    drq_recall: dict[int, float]
    reranked: float


# fewer rows are easier to tell apart: the short run has higher bars, not lower ones
FULL = Targets(flops_recall=0.86, drq_recall={32: 0.17, 64: 0.42, 128: 0.73}, reranked=0.99)
QUICK = Targets(flops_recall=0.95, drq_recall={32: 0.30, 64: 0.55, 128: 0.80}, reranked=0.99)


def measure(report: Report, *, quick: bool) -> None:
    """Train both encoders and search in both servers; quick: 30,000 rows, 100 queries."""
    targets = QUICK if quick else FULL
    words = load_words(100 if quick else 1000, SEED, most=30_000 if quick else None)
    say(f"{len(words.rows):,} rows of {words.rows.shape[1]} numbers, {len(words.queries):,} held-out queries")
    truth = exact_neighbours(words.queries, words.rows, K, "COSINE")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        flops = _train_flops(report, words, place / "flops.onnx")
        drq = _train_drq(report, words, place / "drq.onnx")
        _embedded(report, targets, words, truth, place, flops, drq)
        with MilvusStandalone() as server:
            _server(report, words, truth, server.uri, drq)


def _train_flops(report: Report, words: Words, path: Path) -> FlopsEncoder:
    say("\nTraining FLOPS_SPARSE: top-32 of 4,096 dimensions")
    started = time.perf_counter()
    config = FlopsConfig(dim=4096, nnz=32, flops=FLOPS_BUDGET, seed=SEED)
    export_flops(train_flops(make_training_data(words.rows, seed=SEED), config), path)
    _took(report, "train FLOPS_SPARSE", started)
    encoder = alula.load_encoder(path)
    assert isinstance(encoder, FlopsEncoder)
    used = np.zeros(encoder.info.dim)
    fewest = encoder.info.dim
    for start in range(0, len(words.rows), 8192):
        rows = encoder.encode_rows(words.rows[start : start + 8192])
        used += np.bincount(rows.indices, minlength=encoder.info.dim)
        fewest = min(fewest, int(np.diff(rows.indptr).min()))
    n = len(words.rows)
    share = used / n
    # unbiased: a row is not paired with itself
    achieved = float((n * share**2 - share).sum() / (n - 1))
    report.target(
        "FLOPS_SPARSE, FLOPs over all rows",
        achieved,
        f"{FLOPS_BUDGET} +- 10 %",
        abs(achieved / FLOPS_BUDGET - 1) <= 0.1,
    )
    report.target("FLOPS_SPARSE, fewest non-zeros in a row", fewest, ">= 1", fewest >= 1)
    return encoder


def _train_drq(report: Report, words: Words, path: Path) -> DrqEncoder:
    say("\nTraining DRQ: 128 bits")
    started = time.perf_counter()
    trained = train_drq(make_training_data(words.rows, seed=SEED), DrqConfig(levels=16, seed=SEED))
    export_drq(trained, path)
    _took(report, "train DRQ", started)
    encoder = alula.load_encoder(path)
    assert isinstance(encoder, DrqEncoder)
    sample = words.rows[:: max(1, len(words.rows) // 20_000)]
    same = np.all(encoder.encode_rows(sample).codes == _torch_codes(trained, sample), axis=1)
    report.at_least(f"DRQ, ONNX codes equal torch's ({len(sample):,} rows)", float(same.mean()), 0.999)
    return encoder


def _torch_codes(trained: Any, vectors: F32) -> npt.NDArray[np.uint8]:
    import torch

    with torch.no_grad():
        beam = int(trained.training["recipe"]["beam"])
        return trained.model.encode(trained.model.prepare(torch.from_numpy(vectors)), beam).numpy().astype(np.uint8)


def _embedded(
    report: Report,
    targets: Targets,
    words: Words,
    truth: npt.NDArray[Any],
    place: Path,
    flops: FlopsEncoder,
    drq: DrqEncoder,
) -> None:
    table = "Milvus Lite 2.5, embedded"
    with alula.connect(str(place / "bench.db")) as server:
        sparse = _collection(report, table, server, words, flops, "FLOPS_SPARSE", {})
        for candidates in (100, 500, 1000):
            found = _row(report, table, sparse, words, truth, candidates=candidates)
            if candidates == 500:
                report.at_least("FLOPS_SPARSE, recall@10 after re-ranking 500", found, targets.flops_recall)
        sparse.drop()
        adc = _collection(report, table, server, words, drq, "DRQ", {"layout": "adc"})
        for bits, least in targets.drq_recall.items():
            found = _row(report, table, adc, words, truth, bits=bits, rerank=0)
            report.at_least(f"DRQ, recall@10 by {bits}-bit code distance alone", found, least)
        found = _row(report, table, adc, words, truth, bits=128, candidates=1000)
        report.at_least("DRQ, recall@10 after re-ranking 1,000", found, targets.reranked)
        report.at_least("DRQ adc, top 100 equal to numpy's ADC", _adc_overlap(adc, words, drq), 0.999)
        adc.drop()
        hamming = _collection(report, table, server, words, drq, "DRQ", {"layout": "hamming"})
        for options in ({"rerank": 0}, {}, {"candidates": 1000}):
            _row(report, table, hamming, words, truth, **options)
        hamming.drop()
        _native(report, table, server, words, truth, "FLAT", {}, [{}])
        # no IVF_FLAT here: this engine answers alike for any nprobe


def _server(report: Report, words: Words, truth: npt.NDArray[Any], uri: str, drq: DrqEncoder) -> None:
    table = "Milvus 2.3.5, standalone server"
    with alula.connect(uri) as server:
        hamming = _collection(report, table, server, words, drq, "DRQ", {"layout": "hamming"})
        for options in ({"rerank": 0}, {}):
            _row(report, table, hamming, words, truth, **options)
        found = _row(report, table, hamming, words, truth, candidates=1000)
        report.at_least("DRQ hamming on Milvus 2.3.5, recall@10 after re-ranking 1,000", found, 0.98)
        hamming.drop()
        for index_type, params, sweep in (
            ("HNSW", {"M": 16, "efConstruction": 200}, [{"ef": 64}, {"ef": 256}]),
            ("IVF_FLAT", {"nlist": 1024}, [{"nprobe": 32}, {"nprobe": 128}]),
            ("IVF_SQ8", {"nlist": 1024}, [{"nprobe": 32}, {"nprobe": 128}]),
            ("IVF_PQ", {"nlist": 1024, "m": 25, "nbits": 8}, [{"nprobe": 32}, {"nprobe": 128}]),
        ):
            _native(report, table, server, words, truth, index_type, params, sweep)


def _collection(
    report: Report,
    table: str,
    server: alula.Server,
    words: Words,
    encoder: FlopsEncoder | DrqEncoder,
    index_type: str,
    options: dict[str, str],
) -> alula.Collection:
    say(f"\n{table}: loading {index_type} {' '.join(options.values())}")
    collection = alula.Collection.create(
        server,
        "bench",
        encoder=encoder,
        index_type=index_type,
        columns=["word:VARCHAR(512)"],
        options=options,
    )
    started = time.perf_counter()
    collection.insert(words.rows, {"id": np.arange(len(words.rows)), "word": words.words})
    settle(server, "bench")
    _took(report, f"encode, load and build {' '.join((index_type, *options.values()))}: {table}", started)
    return collection


def _row(
    report: Report,
    table: str,
    collection: alula.Collection,
    words: Words,
    truth: npt.NDArray[Any],
    **options: Any,
) -> float:
    """Search all queries one by one, and add recall, time and bytes to the table."""
    hits, p50 = _timed(words.queries, lambda query: [hit.id for hit in collection.search(query, limit=K, **options)[0]])
    found = recall(hits, truth)
    settings = collection.lowering.settings
    report.row(
        table,
        **{
            "index type": " ".join(filter(None, (settings["type"], settings.get("layout")))),
            "search": ", ".join(f"{name} {value}" for name, value in options.items()),
            "recall@10": found,
            "p50 ms": p50,
            "index bytes/row": index_memory(collection),
            "vectors": "not read" if options.get("rerank") == 0 else "200 B/row, exact",
        },
    )
    return found


def _native(
    report: Report,
    table: str,
    server: alula.Server,
    words: Words,
    truth: npt.NDArray[Any],
    index_type: str,
    params: dict[str, Any],
    sweep: list[dict[str, Any]],
) -> None:
    """One of Milvus's own index types on the same vectors."""
    say(f"\n{table}: loading {index_type}")
    started = time.perf_counter()
    load_native(server, "native", words.rows, index_type, params)
    _took(report, f"load and build {index_type}: {table}", started)
    memory = native_cost(index_type, words.rows.shape[1], params, len(words.rows)).memory_bytes
    for search in sweep:
        hits, p50 = _timed(words.queries, native_search(server, "native", search))
        report.row(
            table,
            **{
                "index type": index_type,
                "search": ", ".join(f"{name} {value}" for name, value in search.items()),
                "recall@10": recall(hits, truth),
                "p50 ms": p50,
                "index bytes/row": memory,
                "vectors": "in the index",
            },
        )
    server.client.drop_collection("native")


def _took(report: Report, what: str, started: float) -> None:
    report.row("Training and loading", **{"step": what, "seconds": time.perf_counter() - started})


def _timed(queries: F32, search: Callable[[F32], list[Any]]) -> tuple[list[list[Any]], float]:
    """Results and the median milliseconds of one search at a time."""
    for query in queries[:5]:
        search(query)
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(search(query))
        times.append(time.perf_counter() - started)
    return found, float(np.median(times) * 1e3)


def _adc_overlap(collection: alula.Collection, words: Words, drq: DrqEncoder) -> float:
    """Share of numpy's ADC top 100 in Milvus's top 100 (layout adc, all bits).

    numpy ranks by the cosine to first order, from the codes, tables and norms themselves.
    """
    parts = [drq.encode_rows(words.rows[start : start + 8192]) for start in range(0, len(words.rows), 8192)]
    codes = np.concatenate([part.codes for part in parts])
    norms = np.concatenate([part.norms[:, -1] for part in parts])
    queries = words.queries[:200]
    encoded = drq.encode_queries(queries)
    found = collection.search(queries, limit=100, candidates=100, rerank=0)
    truth = np.array([top_k(adc_inner_products(codes, lut) - 0.3 * norms**2, 100) for lut in encoded.lut])
    return recall([[hit.id for hit in hits] for hits in found], truth)
