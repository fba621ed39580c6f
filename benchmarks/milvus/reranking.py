"""Two ways of exact re-ranking: fetched vectors, or a second search in Milvus."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import alula
import alula.search.searcher
from benchmarks.report import Report
from tests.tiny_encoders import random_vectors, write_drq

TITLE = "how exact re-ranking gets its vectors"
ANSWERS = """\
The question: is it faster to fetch the candidates' vectors with the search and score them in the client, or to let
Milvus score the candidates by a second search? Few bytes are fetched, many are left where they are: the bound is
`alula.search.searcher.FETCH_BYTES`, and "Alula takes" is what it chooses. Both ways in turn, the same queries; only
time is measured, so the encoder is an untrained one.
"""
SEED = 0
SEEDS = (SEED,)
TABLE = "Re-ranking on Milvus Lite 2.5: p50 ms of a search"


def measure(report: Report, *, quick: bool) -> None:
    """Add a table of both ways, interleaved, by vector length and candidates."""
    rows = 10_000 if quick else 50_000
    repeats = 15 if quick else 40
    limit = alula.search.searcher.FETCH_BYTES
    with tempfile.TemporaryDirectory() as folder, alula.connect(str(Path(folder) / "rerank.db")) as server:
        for dim in (50, 384):
            encoder = write_drq(Path(folder) / f"rerank-{dim}.onnx", input_dim=dim, levels=4, sign_bits=256)
            collection = alula.Collection.create(server, f"rerank_{dim}", encoder=encoder.path, index_type="DRQ")
            collection.insert(random_vectors(rows, dim, SEED), {"id": np.arange(rows)})
            queries = random_vectors(repeats, dim, SEED + 1)
            for candidates in (100, 500, 1000):
                times: dict[str, list[float]] = {"fetched": [], "second search": []}
                for query in queries:
                    for way, most in (("fetched", 1 << 40), ("second search", 0)):
                        alula.search.searcher.FETCH_BYTES = most
                        started = time.perf_counter()
                        collection.search(query, candidates=candidates)
                        times[way].append(1e3 * (time.perf_counter() - started))
                alula.search.searcher.FETCH_BYTES = limit
                fetched, second = (float(np.median(times[way])) for way in times)
                size = 4 * dim * candidates
                chosen = "fetched" if size <= limit else "second search"
                report.row(
                    TABLE,
                    **{
                        "dimensions": dim,
                        "candidates": candidates,
                        "bytes of vectors": size,
                        "fetched": fetched,
                        "second search": second,
                        "Alula takes": chosen,
                    },
                )
            collection.drop()
