"""The inverted index of sparse rows against faiss's HNSW, scipy and Seismic, at equal recall@10.

Each contender is tuned on some queries (the least effort that reaches the recall, in each of its ways of being set),
and the fastest of these is timed on others, one query at a time in one thread, taking turns. HNSW is given unit
vectors, M = 16 and 32, efConstruction 200. Candidates of sparse searches are ranked by the exact vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from scipy import sparse

from alula.encoders import FlopsEncoder, load_encoder, read_linear_head
from alula.kernels import InvertedIndex, LinearQueries, top_k, warm_up
from alula_exporters import FlopsConfig, export_flops, make_training_data, train_flops
from tests.benchmarks.glosses import load_glosses
from tests.benchmarks.glove import load_words
from tests.benchmarks.papers.datasets import unit
from tests.benchmarks.report import Report, say
from tests.benchmarks.speed.timing import I64, Contender, K, ladder, milliseconds, recall, tune

RECALLS = (0.95, 0.98, 0.99)
TUNING = 1_000
REPORTED = 1_000
SPLIT = 0
ROUNDS = 5
SLOW = 50  # queries that contenders of many milliseconds are tuned and timed on
CUTS = (0.0, 0.05, 0.1, 0.15)
CONNECTIONS = (16, 32)
CONSTRUCTION = 200

F32 = npt.NDArray[np.float32]

OURS = "alula"
ENCODED = "alula, with encoding"
HNSW = "HNSW"
HNSW_SQ8 = "HNSW SQ8 + re-rank"
SCIPY = "scipy + re-rank"
SEISMIC = "Seismic + re-rank"


@dataclass(frozen=True)
class Targets:
    """How many times the rival's time ours must be at most, at each of `RECALLS`; None where nothing is promised.

    Args:
        search: HNSW's time over ours.
        encoded: The same, with the query's encoding in ours.
        sq8: The time of HNSW over bytes and exact re-ranking over ours.
        build: HNSW's time to build over ours, without the encoding of the rows.
    """

    search: tuple[float, ...]
    encoded: tuple[float, ...]
    sq8: tuple[float, ...] | None
    build: float


FULL = {
    "MiniLM": Targets((2, 2.5, 2.5), (1, 1.2, 1.5), (1.6, 1.6, 1.6), 30),
    "GloVe": Targets((1.5, 2, 2), (1.3, 1.8, 1.8), None, 30),
}
# fewer rows: HNSW's time grows with their logarithm only
QUICK = {
    "MiniLM": Targets((1.5, 1.5, 1.5), (1, 1, 1), (1.2, 1.2, 1.2), 10),
    "GloVe": Targets((1.5, 1.5, 1.5), (1, 1, 1), None, 10),
}


@dataclass(frozen=True)
class Data:
    """What is searched.

    Args:
        name: Whose vectors.
        rows: float32 (n, d), of unit length.
        queries: float32 (q, d), of unit length, neither among the rows nor trained on: first those to tune on.
        truth: int64 (q, 10): the nearest rows.
        encoder: A sparse encoder trained on the rows.
    """

    name: str
    rows: F32
    queries: F32
    truth: I64
    encoder: FlopsEncoder

    @property
    def tuning(self) -> range:
        return range(len(self.queries) // 2)

    @property
    def reported(self) -> range:
        return range(len(self.queries) // 2, len(self.queries))


def load_data(quick: bool, folder: Path) -> Iterator[Data]:
    """The glosses and the words, with encoders trained now.

    Args:
        quick: A part of the rows.
        folder: Where encoder files may lie.
    """
    held_out = TUNING + REPORTED
    glosses = load_glosses(12_000 if quick else 50_000)
    order = np.random.default_rng(SPLIT).permutation(len(glosses))
    config = FlopsConfig(dim=4_096, nnz=64, flops=1.0, seed=0)
    yield make_data(
        "MiniLM",
        glosses[order[held_out:]],
        glosses[order[:held_out]],
        _train(glosses[order[held_out:]], config, folder / "minilm.onnx"),
    )
    words = load_words(held_out, SPLIT, most=50_000 if quick else None)
    config = FlopsConfig(dim=4_096, nnz=32, flops=0.28, seed=0)
    yield make_data("GloVe", words.rows, words.queries, _train(words.rows, config, folder / "glove.onnx"))


def _train(rows: F32, config: FlopsConfig, path: Path) -> FlopsEncoder:
    say(f"\nTraining {path.name} ...")
    export_flops(train_flops(make_training_data(rows, seed=0), config), path, force=True)
    encoder = load_encoder(path, threads=1)
    assert isinstance(encoder, FlopsEncoder)
    return encoder


def make_data(name: str, rows: F32, queries: F32, encoder: FlopsEncoder) -> Data:
    rows, queries = unit(rows), unit(queries)
    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    return Data(name, rows, queries, exact.search(queries, K)[1], encoder)


class Ours(Contender):
    efforts = ladder(20, 10_000)

    def __init__(self, data: Data, index: InvertedIndex, queries: Sequence[Any], name: str, cut: float) -> None:
        super().__init__(f"{name}, cut {cut:g}")
        self._index, self._queries, self._cut = index, queries, cut
        self._vectors = [data.queries[i : i + 1] for i in range(len(data.queries))]

    def search(self, query: int, effort: int) -> npt.NDArray[np.integer]:
        return self._index.search(
            self._queries[query], K, vectors=self._vectors[query], candidates=effort, cut=self._cut
        ).positions[0]


class Hnsw(Contender):
    efforts = ladder(10, 3_000)

    def __init__(self, data: Data, index: Any, name: str) -> None:
        super().__init__(name)
        self._index = index
        self._vectors = [data.queries[i : i + 1] for i in range(len(data.queries))]

    def prepare(self, effort: int) -> None:
        self._index.hnsw.efSearch = effort

    def search(self, query: int, effort: int) -> npt.NDArray[np.integer]:
        return self._index.search(self._vectors[query], K)[1][0]


class HnswSq8(Hnsw):
    """Over bytes; the factor says how many times k are ranked by their vectors."""

    def __init__(self, data: Data, index: Any, vectors: Any, name: str, factor: float) -> None:
        super().__init__(data, index, f"{name}, factor {factor:g}")
        self._refined = faiss.IndexRefine(index, vectors)
        self._refined.k_factor = factor

    def search(self, query: int, effort: int) -> npt.NDArray[np.integer]:
        return self._refined.search(self._vectors[query], K)[1][0]


class Reranked(Contender):
    """A library that finds sparse candidates; the effort is how many."""

    efforts = ladder(20, 10_000)

    def __init__(self, data: Data, index: InvertedIndex, name: str) -> None:
        super().__init__(name)
        assert index.vectors is not None
        self._queries, self._exact = data.queries, index.vectors

    def search(self, query: int, effort: int) -> npt.NDArray[np.integer]:
        return self._exact.best(self._queries[query], self.candidates(query, effort), K)[0]

    def candidates(self, query: int, effort: int) -> I64:
        raise NotImplementedError


class Scipy(Reranked):
    def __init__(self, data: Data, index: InvertedIndex, rows: Any, queries: Sequence[Any]) -> None:
        super().__init__(data, index, SCIPY)
        self._rows, self._columns = rows, [query.T.tocsc() for query in queries]

    def candidates(self, query: int, effort: int) -> I64:
        return top_k((self._rows @ self._columns[query]).toarray().ravel(), effort)


class Seismic(Reranked):
    def __init__(
        self, data: Data, index: InvertedIndex, found: Any, queries: Sequence[Any], setting: tuple[int, float]
    ) -> None:
        import seismic

        super().__init__(data, index, f"{SEISMIC}, {setting[0]} terms, heap factor {setting[1]:g}")
        self._index, self._setting = found, setting
        kind = seismic.get_seismic_string()
        self._terms = [(query.indices.astype(str).astype(kind), query.data) for query in queries]

    def candidates(self, query: int, effort: int) -> I64:
        found = self._index.search("q", *self._terms[query], effort, *self._setting)
        return np.array([int(name) for _, _, name in found], np.int64)


def build_hnsw(data: Data, seconds: dict[str, float], kinds: Sequence[str] = (HNSW, HNSW_SQ8)) -> dict[str, Any]:
    """faiss's indexes by name; the processor's seconds that each took are added."""
    dim, built = data.rows.shape[1], {}
    for kind in kinds:
        for connections in CONNECTIONS:
            if kind == HNSW:
                index = faiss.IndexHNSWFlat(dim, connections, faiss.METRIC_INNER_PRODUCT)
            else:
                quantised = faiss.ScalarQuantizer.QT_8bit
                index = faiss.IndexHNSWSQ(dim, quantised, connections, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = CONSTRUCTION
            name = f"{kind}, M {connections}"
            started = time.process_time()
            index.train(data.rows)
            index.add(data.rows)
            seconds[name] = time.process_time() - started
            built[name] = index
            say(f"  {name}: built in {seconds[name]:.1f} s")
    return built


def build_seismic(rows: Any) -> Any:
    """Seismic's index, built as it does by default; None where it is not installed."""
    try:
        import seismic
    except ImportError:
        say("  Seismic is not installed (pip install pyseismic-lsr), so it takes no part.")
        return None
    dataset = seismic.SeismicDataset(rows.shape[1])
    names = [str(row) for row in range(rows.shape[0])]
    dataset.add_documents_by_id(names, rows.indices.astype(np.int64), rows.data, rows.indptr.astype(np.int64))
    return seismic.SeismicIndex.build_from_dataset(dataset, num_threads=1)


def measure(report: Report, data: Data, targets: Targets, hnsw: Mapping[str, Any], seconds: dict[str, float]) -> None:
    """Tune, time and report all contenders on one data set.

    Args:
        report: Rows, targets and figures go here.
        data: What is searched.
        targets: What is promised.
        hnsw: As `build_hnsw` returns it.
        seconds: Of the processor, by what was built with them.
    """
    name = f"{data.name} {len(data.rows):,} x {data.rows.shape[1]}"
    warm_up()
    started = time.process_time()
    rows = sparse.vstack(
        [data.encoder.encode_rows(data.rows[at : at + 4_096]) for at in range(0, len(data.rows), 4_096)], format="csr"
    )
    seconds["encoding the rows"] = time.process_time() - started
    started = time.process_time()
    index = InvertedIndex(data.encoder.info.dim, "COSINE", data.rows.shape[1])
    index.add(rows, data.rows)
    seconds[OURS] = time.process_time() - started
    encoded = data.encoder.encode_queries(data.queries)
    queries = [encoded[[i]] for i in range(len(data.queries))]
    head = read_linear_head(data.encoder)
    assert head is not None
    linear = LinearQueries(head.weight, head.bias, nnz=head.nnz, floor=head.floor, scale=head.scale)
    lazy = [linear.of(data.queries[i : i + 1]) for i in range(len(data.queries))]

    ways: dict[str, list[Contender]] = {
        OURS: [Ours(data, index, queries, OURS, cut) for cut in CUTS],
        ENCODED: [Ours(data, index, lazy, ENCODED, cut) for cut in CUTS],
        HNSW: [Hnsw(data, hnsw[key], key) for key in hnsw if key.startswith(f"{HNSW},")],
        HNSW_SQ8: [
            HnswSq8(data, hnsw[key], _flat(data.rows), key, factor)
            for key in hnsw
            if key.startswith(HNSW_SQ8)
            for factor in (1, 2, 4)
        ],
        SCIPY: [Scipy(data, index, rows, queries)],
    }
    seismic = build_seismic(rows)
    if seismic is not None:
        most = data.encoder.info.max_nnz
        settings = [(terms, factor) for terms in (most // 2, most) for factor in (0.8, 1.0)]
        ways[SEISMIC] = [Seismic(data, index, seismic, queries, setting) for setting in settings]
    bytes_per_row = sum(index.nbytes[part] for part in ("postings", "levels")) / len(data.rows)
    report.figures[f"{name}: bytes per row of postings and levels"] = bytes_per_row
    for target_place, wanted in enumerate(RECALLS):
        times = _at_recall(report, name, ways, data, wanted)
        _check(report, f"{data.name}, recall@10 {wanted}", times, targets, target_place)
    best = min(seconds[key] for key in hnsw if key.startswith(f"{HNSW},"))
    for what, spent in seconds.items():
        report.row("Build, seconds of one core", data=name, what=what, seconds=spent)
    report.at_least(f"{data.name}: HNSW's build time over ours", best / seconds[OURS], targets.build)


def _flat(rows: F32) -> Any:
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return flat


def _at_recall(
    report: Report, name: str, ways: Mapping[str, Sequence[Contender]], data: Data, wanted: float
) -> dict[str, float]:
    """Milliseconds of the fastest way of each kind of contender that reaches a recall."""
    chosen: dict[str, tuple[Contender, int]] = {}
    for kind, contenders in ways.items():
        slow = kind in (SCIPY, SEISMIC)
        queries = data.tuning[:SLOW] if slow else data.tuning
        tuned = [(contender, tune(contender, wanted, queries, data.truth)) for contender in contenders]
        reaching = [(contender, effort) for contender, effort in tuned if effort is not None]
        if reaching:
            spent = milliseconds(reaching, queries[:SLOW] if slow else queries[:500], 1 if slow else 3)
            chosen[kind] = reaching[int(np.argmin(spent))]
    fast = [kind for kind in chosen if kind not in (SCIPY, SEISMIC)]
    times = dict(zip(fast, milliseconds([chosen[kind] for kind in fast], data.reported, ROUNDS), strict=True))
    for kind in chosen.keys() - times.keys():
        times[kind] = milliseconds([chosen[kind]], data.reported[:SLOW], 2)[0]
    for kind, (contender, effort) in chosen.items():
        reached = recall(contender, effort, data.reported[:SLOW] if kind not in fast else data.reported, data.truth)
        report.row(
            "Search",
            **{
                "data": name,
                "recall@10 wanted": wanted,
                "contender": contender.name,
                "candidates or efSearch": effort,
                "recall@10": reached,
                "ms": times[kind],
                "times ours": times[kind] / times[OURS],
            },
        )
    return times


def _check(report: Report, what: str, times: Mapping[str, float], targets: Targets, place: int) -> None:
    report.at_least(f"{what}: HNSW's time over ours", times[HNSW] / times[OURS], targets.search[place])
    report.at_least(
        f"{what}: HNSW's time over ours with encoding", times[HNSW] / times[ENCODED], targets.encoded[place]
    )
    if targets.sq8 and HNSW_SQ8 in times:
        report.at_least(f"{what}: {HNSW_SQ8}'s time over ours", times[HNSW_SQ8] / times[OURS], targets.sq8[place])
    for rival in (SCIPY, SEISMIC):
        if rival in times:
            report.at_least(f"{what}: {rival}'s time over ours", times[rival] / times[OURS], 1)


def run(report: Report, quick: bool, folder: Path) -> None:
    """Both data sets.

    Args:
        report: What is found goes here.
        quick: Fewer rows, and targets of their own.
        folder: Where encoder files may lie.
    """
    faiss.omp_set_num_threads(1)
    for data in load_data(quick, folder):
        targets = (QUICK if quick else FULL)[data.name]
        seconds: dict[str, float] = {}
        with report.part(f"{data.name}: HNSW"):
            hnsw = build_hnsw(data, seconds, (HNSW, HNSW_SQ8) if targets.sq8 else (HNSW,))
        with report.part(f"{data.name}: searches"):
            measure(report, data, targets, hnsw, seconds)
