"""VectorDBBench, unchanged: HNSW directly, DRQ through a gateway with a policy."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import DataType

import alula
from alula import encoder_store
from alula.evaluation import exact_neighbours
from alula_exporters import DrqConfig, export_drq, make_training_data, train_drq
from benchmarks.fetch import cache
from benchmarks.glosses import load_glosses
from benchmarks.report import Report, say
from tools.servers.gateway import GatewayProgram
from tools.servers.standalone import MilvusStandalone

TITLE = "VectorDBBench, unchanged"
ANSWERS = """\
The question: what does VectorDBBench, which cannot name an index type of Alula's, say of one? Its case of a data set of
one's own (`vectordbbench milvushnsw --case-type PerformanceCustomDataset`) runs from its package, in an environment of
its own, and asks for HNSW (M 16, efConstruction 200) each time: directly, and through a gateway whose policy makes HNSW
a DRQ index with 256 sign bits and kept vectors. 19,500 MiniLM vectors of WordNet's glosses, cosine; 500 others are
queries. The runs alternate; figures are the medians of the rounds, all by VectorDBBench. The recall and the 99th
percentile are those of one client, searches/s those of one and of two at a time. Client, gateway and server share two
cores, and this server keeps the vectors of DRQ in an ARRAY column.
"""
SEED = 0
SEEDS = (SEED,)
# 1.0.0, because 2.0.0 waits before its searches for a state of segments that Milvus 2.3 does not report
PACKAGE = "vectordb-bench==1.0.0"
BESIDE = ("pymilvus==2.6.17", "ujson==6.1.0")  # the first, which it asks for, no longer brings the second
ROWS, QUERIES = 20_000, 500
NEIGHBOURS = 100
EF = {10: 64, 100: 128}  # by k, the default of VectorDBBench last
AT_ONCE = (1, 2)
SECONDS, QUICK_SECONDS = 15, 5
ROUNDS, QUICK_ROUNDS = 2, 1
ENCODER, DATA = "glosses", "glosses"
COLLECTION = "VectorDBBenchCollection"
POLICY = f"""
[[rules]]
collection = "{COLLECTION}"
instead_of = ["HNSW"]
index_type = "DRQ"
encoder = "{ENCODER}"
"""

F32 = npt.NDArray[np.float32]


def measure(report: Report, *, quick: bool) -> None:
    """Run it directly and through the gateway, in turns; quick: one round of k 10."""
    program = _installed()
    vectors = load_glosses(ROWS)
    order = np.random.default_rng(SEED).permutation(len(vectors))
    rows, queries = vectors[np.sort(order[QUERIES:])], vectors[order[:QUERIES]]
    with tempfile.TemporaryDirectory() as name, MilvusStandalone() as server:
        folder = Path(name)
        _write_data(folder / DATA / DATA, rows, queries)
        _push_encoder(folder / "glosses.onnx", rows, server.uri)
        (folder / "policy.toml").write_text(POLICY)
        with GatewayProgram(server.uri, "--policy", str(folder / "policy.toml")) as gateway:
            uris = {"HNSW, directly": server.uri, "DRQ, through the gateway": gateway.uri}
            for k in list(EF)[:1] if quick else EF:
                found: dict[str, list[dict[str, Any]]] = {label: [] for label in uris}
                for number in range(QUICK_ROUNDS if quick else ROUNDS):
                    for label, uri in uris.items():
                        say(f"VectorDBBench, k {k}, round {number + 1}: {label}")
                        found[label].append(_run(program, folder, uri, k, QUICK_SECONDS if quick else SECONDS))
                        _check_type(server.uri, label)
                for label, rounds in found.items():
                    report.row("VectorDBBench 1.0.0 on Milvus 2.3.5", **_row(label, k, rounds))


def _installed() -> Path:
    """The program, in an environment of its own for its version of pymilvus."""
    folder = cache() / PACKAGE
    program = folder / "bin" / "vectordbbench"
    if not program.exists():
        say(f"Installing {PACKAGE} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", PACKAGE, *BESIDE], check=True)
    return program


def _write_data(folder: Path, rows: F32, queries: F32) -> None:
    """The three files of a data set of VectorDBBench."""
    folder.mkdir(parents=True)
    truth = exact_neighbours(queries, rows, NEIGHBOURS, "COSINE")
    tables = {"train": ("emb", rows), "test": ("emb", queries), "neighbors": ("neighbors_id", truth)}
    for name, (column, values) in tables.items():
        table = pa.table({"id": np.arange(len(values)), column: list(np.asarray(values))})
        pq.write_table(table, folder / f"{name}.parquet")


def _push_encoder(path: Path, rows: F32, uri: str) -> None:
    """Train DRQ, with the shortest code, which is not stored, and push its encoder."""
    export_drq(train_drq(make_training_data(rows, seed=SEED), DrqConfig(levels=1, sign_bits=256, seed=SEED)), path)
    with alula.connect(uri) as server:
        encoder_store.push(server, path, name=ENCODER)


def _run(program: Path, folder: Path, uri: str, k: int, seconds: int) -> dict[str, Any]:
    """The metrics of one run."""
    with tempfile.TemporaryDirectory() as results:
        case = {"case-name": DATA, "dataset-name": DATA, "dataset-dir": DATA, "dataset-size": ROWS - QUERIES}
        case |= {"dataset-dim": 384, "dataset-metric-type": "COSINE", "dataset-file-count": 1}
        given = {"uri": uri, "case-type": "PerformanceCustomDataset", "k": k, "m": 16, "ef-construction": 200}
        given |= {"ef-search": EF[k], "num-concurrency": ",".join(map(str, AT_ONCE)), "concurrency-duration": seconds}
        given |= {f"custom-{name}": value for name, value in case.items()}
        places = {"DATASET_LOCAL_DIR": str(folder), "RESULTS_LOCAL_DIR": results, "LOG_PATH": results}
        done = subprocess.run(
            [program, "milvushnsw", *(str(part) for name, value in given.items() for part in (f"--{name}", value))],
            cwd=results,
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            check=False,
        )
        files = list(Path(results).rglob("result_*.json"))
        (run,) = json.loads(files[0].read_text())["results"] if files else ({"label": "no results"},)
        if run["label"] != ":)":  # its word for success
            raise SystemExit(f"VectorDBBench failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        metrics: dict[str, Any] = run["metrics"]
        return metrics


def _check_type(uri: str, label: str) -> None:
    """Raise unless the collection has the index type of its label.

    A policy that fits nothing changes nothing.
    """
    with alula.connect(uri) as server:
        types = [DataType(field["type"]).name for field in server.client.describe_collection(COLLECTION)["fields"]]
    if ("BINARY_VECTOR" in types) != label.startswith("DRQ"):
        raise SystemExit(f"The run {label!r} was one of a collection with the fields {', '.join(types)}.")


def _row(label: str, k: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    def median(name: str, place: int | None = None) -> float:
        return statistics.median(one[name] if place is None else one[name][place] for one in rounds)

    return {
        "index type": label,
        "k": k,
        "ef": EF[k] if label.startswith("HNSW") else "",
        "recall": median("recall"),
        "p99 ms": 1000 * median("serial_latency_p99"),
        "searches/s, one client": median("conc_qps_list", 0),
        "searches/s, two": median("conc_qps_list", 1),
        "load and index, s": median("load_duration"),
        "rounds": len(rounds),
    }
