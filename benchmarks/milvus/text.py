"""Judged text search: SPLADE, dense vectors, DRQ, fusions of them, and BM25."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import alula
from alula.evaluation.evaluate import Budget
from alula.evaluation.judged import JudgedSearches, Run, fuse, judge
from alula.evaluation.judgements import DEPTH, MEASURES
from alula.evaluation.row_source import collection_rows
from alula.evaluation.settings import show_settings
from alula.index_types import RowCost
from alula.search import RankedIds
from alula_exporters import DrqConfig, export_drq, make_training_data, train_drq
from alula_exporters.sparse_checkpoints import export_checkpoint
from benchmarks.definitions import Definitions, Queries, load_definitions
from benchmarks.milvus.settings import index_memory
from benchmarks.report import Report
from benchmarks.sentence_models import open_minilm
from benchmarks.splade import save_inference_free, save_splade
from tools.servers.lite import LiteDatabase

TITLE = "text, judged"
ANSWERS = """\
The question: how good are the results of each kind of search over texts, and what do they cost? The rows are 60,000 of
WordNet's definitions, in Milvus Lite 2.5 on this machine; a query is answered by one of them, seldom by several.
*Words* asks with all words of a synset ("kite, sailplane"), *examples* with a sentence that uses one of them. No
definition has a word of its query's synset in it, and the examples are no part of the rows, so whatever matches words
alone has little to match. The models are those that package registries carry: SPLADE of BERT-tiny (4.4 million
parameters), MiniLM-L6 in 8 bits (22 million). "Inference-free" has SPLADE's rows, and as its queries the idf of their
tokens, untrained. DRQ is trained on the rows' MiniLM vectors and re-ranks by them. BM25 is `bm25s` in this process,
with stemming and stop words. Fusions take 100 rows of each side, by reciprocal ranks or by weights as Milvus has them;
the weights and the two parameters of BM25 are those that find most on other queries.

Intervals are of 95 %: of the mean over the queries, or of the difference from exact dense search by the paired
bootstrap. Milliseconds are medians of one query alone for 100 rows, without encoding it (the second table), and for
fusions the sum of both; those of BM25 have no call to a server in them. Bytes are of the index for one row, without
kept vectors: for SPLADE 8 for each non-zero of a thousand of these rows.

**What such queries can show:** which of the searches brings a known text back, and whether an index loses what exact
search by the same vectors finds. **What they cannot show:** how useful results are to people. One row is relevant and
its neighbours are not judged, though many would serve; definitions are of a dozen words, so nothing here speaks of long
documents; and where queries share words with the texts, as they do in most collections, BM25 and SPLADE gain.
"""
SEED = 0
SEEDS = (SEED,)
ROWS, QUICK_ROWS = 60_000, 4_000
QUERIES, QUICK_QUERIES = 1_000, 100
CHUNK = 1_000  # texts that are embedded at once: a SPLADE vector has 30,522 numbers
WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of DRQ in a weighted fusion
CHOSEN_BY = 300  # other queries of each kind, most, that parameters and weights are chosen by
BM25 = [{"k1": k1, "b": b} for k1 in (0.6, 0.9, 1.2, 1.5) for b in (0.2, 0.4, 0.75)]
MOST_LOST = 0.02  # nDCG@10 that DRQ may lose against exact search

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Side:
    """A collection of the rows, and the encoding of its queries.

    Args:
        name: The system.
        collection: The collection.
        encode: Texts to what the collection is searched with, float32 (q, d).
        size: Bytes of the index in memory for one row.
    """

    name: str
    collection: alula.Collection
    encode: Callable[[Sequence[str]], F32]
    size: float

    def run(self, queries: Queries) -> Run:
        """Search each query alone with the collection's defaults."""
        (run,) = self.searches(queries).learned()
        return replace(run, name=self.name, settings={}, sizes=(RowCost({"index": self.size}),))

    def searches(self, queries: Queries) -> JudgedSearches:
        """The searches of `alula.evaluation.judged` with these queries."""
        kept = self.collection.lowering.field.storage != "dropped"
        rows = collection_rows(self.collection) if kept else None
        vectors = self.encode(queries.texts)
        return JudgedSearches(self.collection, vectors, rows, self.collection.count(), Budget())


def measure(report: Report, *, quick: bool) -> None:
    """Load all collections and search with both kinds of queries; quick: 4,000 rows."""
    texts = load_definitions(QUICK_ROWS if quick else ROWS, QUICK_QUERIES if quick else QUERIES, SEED)
    with tempfile.TemporaryDirectory() as place, LiteDatabase() as database, alula.connect(database.uri) as server:
        folder = Path(place)
        with report.part("DRQ of MiniLM"):
            dense = dense_side(server, texts, folder)
        with report.part("SPLADE and inference-free SPLADE"):
            save_splade(folder / "splade")
            save_inference_free(folder / "splade", folder / "free", texts.texts)
            names = {"splade": "SPLADE", "free": "SPLADE, inference-free"}
            paths = {folder / f"{one}.onnx": name for one, name in names.items()}
            for path in paths:
                export_checkpoint(path.with_suffix(""), path)
            sparse = list(sparse_sides(server, texts, paths))
        with report.part("Choosing BM25's parameters and the weights of fusions"):
            bm25 = Bm25(texts)
            weights = [choose_weight(dense, other, texts) for other in (sparse[0], bm25)]
        for side in (dense, *sparse):
            report.row("Encoding a query", model=side.name, **{"p50 ms": _milliseconds(side.encode, texts)})
        for kind, queries in texts.judged.items():
            with report.part(f"Searches with {kind}"):
                _search(report, kind, queries, dense, sparse, bm25, weights)


def dense_side(server: alula.Server, texts: Definitions, folder: Path) -> Side:
    """DRQ of the rows' MiniLM vectors, which are kept."""
    vectors = texts.vectors()
    path = folder / "drq.onnx"
    export_drq(train_drq(make_training_data(vectors, seed=SEED), DrqConfig(levels=8, seed=SEED)), path)
    collection = alula.Collection.create(server, "drq", encoder=path, index_type="DRQ")
    collection.insert(vectors, {"id": np.arange(len(vectors))})
    return Side("DRQ of MiniLM", collection, open_minilm(), index_memory(collection))


def sparse_sides(server: alula.Server, texts: Definitions, paths: dict[Path, str]) -> Iterator[Side]:
    """Collections of text encoders, by the files and the systems' names."""
    for path, name in paths.items():
        collection = alula.Collection.create(
            server, path.stem, encoder=path, index_type="FLOPS_SPARSE", keep_vectors=False
        )
        encoder = collection.lowering.encoder
        for start in range(0, len(texts.texts), CHUNK):
            some = list(texts.texts[start : start + CHUNK])
            collection.insert(some, {"id": np.arange(start, start + len(some))})
        sample = list(texts.texts[:: -(-len(texts.texts) // CHUNK)])
        non_zeros = encoder.encode_rows(encoder.embed(sample)).nnz / len(sample)

        def encode(queries: Sequence[str], encoder: Any = encoder) -> F32:
            return encoder.embed(list(queries), queries=True)

        yield Side(name, collection, encode, 8 * non_zeros)


def to_choose_by(texts: Definitions) -> list[Queries]:
    """Queries of each kind that do not judge."""
    return [queries.part(range(min(CHOSEN_BY, len(queries.texts)))) for queries in texts.others.values()]


def quality(run: Run, queries: Queries) -> float:
    """The first measure of a system."""
    return judge([run], queries.relevance, SEED)[0].measures[MEASURES[0]].value


def choose_weight(first: Side, second: Side | Bm25, texts: Definitions) -> float:
    """The weight of the first in a fusion that finds most on other queries."""
    some = [(first.run(queries), second.run(queries), queries) for queries in to_choose_by(texts)]
    return max(WEIGHTS, key=lambda weight: np.mean([quality(fuse(*pair, weight), queries) for *pair, queries in some]))


class Bm25:
    """BM25 in this process, with the parameters that find most on other queries."""

    def __init__(self, texts: Definitions) -> None:
        import bm25s
        import Stemmer

        self._stem = Stemmer.Stemmer("english")
        self._made = bm25s.BM25
        self._tokens = lambda some: bm25s.tokenize(some, stopwords="en", stemmer=self._stem, show_progress=False)
        rows = self._tokens(list(texts.texts))
        some = to_choose_by(texts)
        best = -1.0
        for params in BM25:
            index = self._made(**params)
            index.index(rows, show_progress=False)
            reached = float(np.mean([quality(self._run(index, queries, params), queries) for queries in some]))
            if reached > best:
                best, self._index, self._params = reached, index, params
        arrays = self._index.scores
        self._size = sum(arrays[name].nbytes for name in ("data", "indices")) / len(texts.texts)

    def run(self, queries: Queries) -> Run:
        """Search each query alone."""
        return replace(self._run(self._index, queries, self._params), sizes=(RowCost({"index": self._size}),))

    def _run(self, index: Any, queries: Queries, params: dict[str, float]) -> Run:
        rankings, times = [], []
        for text in queries.texts:
            tokens = self._tokens([text])
            started = time.perf_counter()
            rows, scores = index.retrieve(tokens, k=DEPTH, show_progress=False, n_threads=0)
            times.append(1e3 * (time.perf_counter() - started))
            found = scores[0] > 0
            rankings.append(RankedIds(rows[0][found].tolist(), scores[0][found].astype(np.float32), exact=True))
        return Run("BM25", params, rankings, times, metric="BM25")


def _search(
    report: Report,
    kind: str,
    queries: Queries,
    dense: Side,
    sparse: list[Side],
    bm25: Bm25,
    weights: Sequence[float],
) -> None:
    (flat,) = dense.searches(queries).native("FLAT", {})
    flat = replace(flat, name="MiniLM, exact (FLAT)", settings={})
    drq, lexical = dense.run(queries), bm25.run(queries)
    learned = [side.run(queries) for side in sparse]
    others = zip((learned[0], lexical), weights, strict=True)
    hybrid = [fuse(drq, other, weight) for other, chosen in others for weight in (None, chosen)]
    systems = judge([flat, drq, *learned, lexical, *hybrid], queries.relevance, SEED)
    for system in systems:
        report.row(f"Queries of {kind}", **cells(system))
    lost = systems[1].differences[MEASURES[0]]
    report.at_least(f"{kind}: {MEASURES[0]} of DRQ less that of exact dense search", lost.value, -MOST_LOST)
    best = max(systems[2:], key=lambda one: one.measures[MEASURES[0]].value)
    gained = best.differences[MEASURES[0]]
    what = f"{kind}: {MEASURES[0]} of the best other search ({best.name}) less that of exact dense search, lower end"
    report.at_least(what, gained.low, 0.0)


def cells(system: Any) -> dict[str, Any]:
    """A system's cells of a table."""
    difference = system.differences.get(MEASURES[0])
    return {
        "search": system.name,
        "options": show_settings(system.settings) if system.settings else "",
        **{name: str(measured) for name, measured in system.measures.items()},
        f"{MEASURES[0]} less exact": "" if difference is None else difference.signed,
        "p50 ms": system.p50,
        "bytes/row": system.memory,
    }


def _milliseconds(encode: Callable[[Sequence[str]], F32], texts: Definitions) -> float:
    """Median time to encode a query alone."""
    times = []
    for text in texts.others["words"].texts[:100]:
        started = time.perf_counter()
        encode([text])
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))
