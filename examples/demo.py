"""The whole job on real data, as a user types it: ``make demo``.

100,000 GloVe word vectors (``ROWS=400000 make demo`` takes all) become a FLOPS_SPARSE and a DRQ collection in an
embedded Milvus Lite, are measured beside exact search in the same engine, and then loaded into a Milvus 2.3.5 server.
Everything lands in ``build/demo``, the figures in ``build/demo/report.json``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import DataType, MilvusClient

import alula
from alula.evaluation.results import machine
from alula.index_types import check_options
from benchmarks.glove import Words, load_words
from tools.servers.standalone import MilvusStandalone

F32 = npt.NDArray[np.float32]
FOLDER = Path("build/demo")
ROWS = int(os.environ.get("ROWS") or 100_000)
QUERIES, TIMED, K = 1_000, 100, 10
BITS = (32, 64, 128)
COLLECTIONS = {"FLOPS_SPARSE": ("words_sparse", "words-flops.onnx"), "DRQ": ("words_drq", "words-drq.onnx")}


def main() -> None:
    """Run the demo."""
    started = time.perf_counter()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    words = load_words(QUERIES, seed=0, most=ROWS)
    say(f"{len(words.rows):,} GloVe word vectors of {words.rows.shape[1]} dimensions, {QUERIES:,} held out as queries.")
    write_table(words, FOLDER / "words.parquet")
    figures: dict[str, Any] = {name: {} for name in COLLECTIONS}

    say("\n1. Train two encoders: about a minute each on two cores, no GPU, no labels.")
    figures["FLOPS_SPARSE"]["train_s"] = run("train flops words.parquet --out words-flops.onnx")
    figures["DRQ"]["train_s"] = run("train drq words.parquet --out words-drq.onnx --epochs 4")

    say("\n2. Create and load two collections in an embedded Milvus Lite.")
    for index_type, (name, encoder) in COLLECTIONS.items():
        at = f"--uri words.db --encoder {encoder}"
        run(f"create {name} --index-type {index_type} --schema-from words.parquet {at}")
        seconds = run(f"load {name} words.parquet {at}")
        figures[index_type]["load_rows_per_s"] = len(words.rows) / seconds
    run("search words_drq --id violin -o rank --limit 5 --uri words.db --encoder words-drq.onnx")
    rare = "--filter 'rank > 20000' -o rank --limit 5"
    run(f"search words_sparse --id sushi {rare} --uri words.db --encoder words-flops.onnx")
    run("describe words_drq --uri words.db")

    say("\n3. Measure both beside FLAT, Milvus's exact search, in the same engine.")
    report = {"rows": len(words.rows), "queries": len(words.queries), "machine": machine(), **figures}
    measure(words, report)

    say("\n4. The same in a real Milvus server.")
    with MilvusStandalone() as server:
        at = f"--uri {server.uri} --encoder words-drq.onnx"
        run(f"doctor --uri {server.uri}")
        run(f"create words --index-type DRQ --schema-from words.parquet {at}")
        run(f"load words words.parquet {at}")
        run(f"search words --id violin -o rank --limit 5 {at}")
        run(f"drop words --yes --uri {server.uri}")

    say("\n5. Results\n")
    show(report)
    (FOLDER / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    say(f"\nDone in {time.perf_counter() - started:.0f} s. {FOLDER} has the encoders, words.db and report.json.")


def write_table(words: Words, path: Path) -> None:
    """Write id, rank and vector of each word."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(words.rows.ravel()), words.rows.shape[1])
    ranks = pa.array(np.arange(len(words.words)))
    pq.write_table(pa.table({"id": words.words, "rank": ranks, "vector": vectors}), path)


def measure(words: Words, report: dict[str, Any]) -> None:
    """Fill the report with recall, latency, bytes, speed and some neighbours."""
    units = words.rows / np.linalg.norm(words.rows, axis=1, keepdims=True)
    nearest = np.argsort(-(words.queries @ units.T), axis=1)[:, :K]
    truth = [[words.words[i] for i in row] for row in nearest]
    examples = list(range(0, QUERIES, QUERIES // 4))
    report["examples"] = {"exact": [truth[i][:5] for i in examples]}
    searches: dict[str, Callable[[F32], object]] = {}
    with alula.connect(str(FOLDER / "words.db")) as server:
        flat_search = flat(server.client, words)
        searches["flat"] = flat_search
        for index_type, (name, encoder) in COLLECTIONS.items():
            collection = alula.Collection.open(server, name, encoder=FOLDER / encoder)
            entry = report[index_type]
            for key, arguments in (("recall_at_10", {}), ("recall_at_10_unranked", {"rerank": 0})):
                say(f"   {index_type}: {key}")
                hits = collection.search(words.queries, limit=K, **arguments)
                found = [[hit.id for hit in row] for row in hits]
                entry[key] = recall(found, truth)
                if not arguments:
                    report["examples"][index_type] = [found[i][:5] for i in examples]
            entry["bytes_per_row"] = int(collection.lowering.settings["bytes_per_row"])
            entry["encoder_sha256"] = collection.lowering.encoder.sha256
            entry["encode_rows_per_s"] = encoding_rate(collection, words.rows[:20_000])
            searches[index_type] = lambda query, open_=collection: open_.search(query, limit=K)
            if index_type == "DRQ":
                entry["recall_at_10_by_bits"] = by_code_alone(collection, words, truth)
        say(f"   p50 of {TIMED} queries, one at a time, the three in turn")
        times = {name: [] for name in searches}
        for query in words.queries[:TIMED]:
            for name, search in searches.items():
                began = time.perf_counter()
                search(query[np.newaxis])
                times[name].append(time.perf_counter() - began)
    for name, seconds in times.items():
        report.setdefault(name, {})["p50_ms"] = 1_000 * float(np.median(seconds))


def by_code_alone(collection: alula.Collection, words: Words, truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall of codes in this process, by their bits; Milvus has sign bits alone."""
    encoder, kind = collection.lowering.encoder, collection.index_type
    index = kind.local(encoder, "COSINE", keep_vectors=False)
    index.add(encoder.encode_rows(words.rows))
    found = {}
    for bits in BITS:
        options = check_options(kind.local_options, {"bits": bits}, kind.name)
        positions = index.search(words.queries, K, options).positions
        found[str(bits)] = recall([[words.words[i] for i in row] for row in positions], truth)
    return found


def flat(client: MilvusClient, words: Words) -> Callable[[F32], object]:
    """Load the raw vectors into a FLAT index; the search of it."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=words.rows.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("words_flat", schema=schema, index_params=index)
    for start in range(0, len(words.rows), 5_000):
        block = words.rows[start : start + 5_000]
        client.insert("words_flat", [{"id": start + i, "vector": row} for i, row in enumerate(block)])
    return lambda query: client.search("words_flat", data=list(query), limit=K)


def encoding_rate(collection: alula.Collection, vectors: F32) -> float:
    """Rows per second that one process encodes."""
    began = time.perf_counter()
    collection.lowering.encode_rows(vectors)
    return len(vectors) / (time.perf_counter() - began)


def recall(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """The share of the true K neighbours among the found ones."""
    return sum(len(set(f) & set(t)) for f, t in zip(found, truth, strict=True)) / (K * len(truth))


def show(report: dict[str, Any]) -> None:
    """Print the nearest words side by side, and a table per index type."""
    examples = report.pop("examples")
    say(f"   {'exact':<52}{'FLOPS_SPARSE':<52}DRQ")
    for exact, sparse, drq in zip(examples["exact"], examples["FLOPS_SPARSE"], examples["DRQ"], strict=True):
        say(f"   {', '.join(exact):<52}{', '.join(sparse):<52}{', '.join(drq)}")
    say(f"\n   {'':<34}{'FLOPS_SPARSE':>14}{'DRQ':>14}{'FLAT':>14}")
    lines = {
        "recall@10, exactly re-ranked": ("recall_at_10", ".3f"),
        "recall@10 before re-ranking": ("recall_at_10_unranked", ".3f"),
        "p50 of a search, ms": ("p50_ms", ".1f"),
        "bytes per row, without the vectors": ("bytes_per_row", ",d"),
        "training, s": ("train_s", ".0f"),
        "encoding, rows/s": ("encode_rows_per_s", ",.0f"),
        "whole 'alula load', rows/s": ("load_rows_per_s", ",.0f"),
    }
    exact = {"recall_at_10": 1.0, "p50_ms": report["flat"]["p50_ms"], "bytes_per_row": 200}
    for label, (key, form) in lines.items():
        cells = [source.get(key) for source in (report["FLOPS_SPARSE"], report["DRQ"], exact)]
        say(f"   {label:<34}" + "".join(f"{'' if cell is None else format(cell, form):>14}" for cell in cells))
    by_bits = report["DRQ"]["recall_at_10_by_bits"]
    say(f"   DRQ by code alone: {', '.join(f'{bits} bits {value:.3f}' for bits, value in by_bits.items())}")


def run(command: str) -> float:
    """Run one command in the demo's folder; return its whole seconds."""
    say(f"\n$ alula {command}")
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("alula"), *shlex.split(command)], cwd=FOLDER, check=True)
    return time.perf_counter() - began


def say(text: str) -> None:
    """Print a line at once, so that it precedes the output of the next command."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
