"""Searches in one process against faiss's HNSW, scipy and Seismic at equal recall."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from scipy import sparse

from alula.encoders import read_linear_head
from alula.kernels import InvertedIndex, LinearQueries, top_k, warm_up
from benchmarks.report import Report, say
from benchmarks.speed.data import F32, NAMES, SEED, Data, in_batches, load_data, load_flops
from benchmarks.speed.drq import WORDS, Drq, load_codes
from benchmarks.speed.timing import I64, Contender, K, ladder, milliseconds, recall, tune

TITLE = "searches in one process against HNSW"
ANSWERS = """\
The question: when the index lies in the process that searches, is Alula's faster than faiss's HNSW at the same recall?

Every contender is tuned on one half of the queries, in each of its ways of being set, to the least effort that
reaches the recall; the fastest of these is timed on the other half, one query at a time in one thread, by its ordinary
call from Python, all in turn, and its recall there is shown. HNSW is given unit vectors as float32, M = 16 and 32,
efConstruction 200; "SQ8 + re-rank" is HNSW over bytes, re-ranked by the exact vectors. FLOPS_SPARSE and DRQ re-rank by
the exact vectors as well. "With encoding" is the whole way from the query's vector: the sparse encoder, or DRQ's
look-up tables. A "cut" is where the inverted index leaves a posting list, "visits" is how many of 256 first codewords'
rows are scanned. scipy multiplies all sparse rows, Seismic (pyseismic-lsr) is an inverted index for sparse rows; they
get the same rows, and the same re-ranking. Who is not in a table does not reach the recall. Building counts what is
done with rows that are encoded already.

To read it: as HNSW has the better of its two M in each row, a target counts the faster of Alula's two index types,
and names it; the table has both. FLOPS_SPARSE suits long vectors, of which an inverted index compares only a few
candidates in full. Short vectors (GloVe's have 50 numbers) need more candidates than that pays for, and there a scan of
DRQ's codes is faster; on long ones DRQ's look-up tables cost as much as HNSW's whole search.
"""
SEEDS = (SEED,)
RECALLS = (0.95, 0.98, 0.99)
ROUNDS = 5
SLOW = 25  # queries that contenders of many milliseconds are tuned and timed on
CUTS = (0.0, 0.05, 0.1, 0.15)
LEVELS = (8, 12, 16)
CONNECTIONS = (16, 32)
CONSTRUCTION = 200

OURS = ("FLOPS_SPARSE", "DRQ")
ENCODED = ", with encoding"
HNSW = "HNSW"
HNSW_SQ8 = "HNSW SQ8 + re-rank"
SCIPY = "scipy + re-rank"
SEISMIC = "Seismic + re-rank"


@dataclass(frozen=True)
class Targets:
    """Least ratio of the rival's time to ours at each of `RECALLS`; None: no target.

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


class Flops(Contender):
    """The inverted index; the effort is how many candidates are re-ranked."""

    efforts = ladder(20, 10_000)

    def __init__(self, data: Data, index: InvertedIndex, queries: Sequence[Any], cut: float) -> None:
        super().__init__(f"FLOPS_SPARSE, cut {cut:g}")
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
    """Faiss's indexes by name; the processor's seconds that each took are added."""
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


def measure(report: Report, *, quick: bool) -> None:
    """Both data sets."""
    faiss.omp_set_num_threads(1)
    warm_up()
    for name in NAMES:
        data, targets, seconds = load_data(name), (QUICK if quick else FULL)[name], dict[str, float]()
        with report.part(f"{data}: HNSW"):
            hnsw = build_hnsw(data, seconds, (HNSW, HNSW_SQ8) if targets.sq8 else (HNSW,))
        ways = _sparse_ways(report, data, seconds) | _drq_ways(report, data, seconds) | _hnsw_ways(data, hnsw)
        for place, wanted in enumerate(RECALLS):
            with report.part(f"{data}: recall {wanted}"):
                times = _at_recall(report, str(data), ways, data, wanted)
            _check(report, f"{data.name}, recall@10 {wanted}", times, targets, place)
        for what, spent in seconds.items():
            report.row("Build, seconds of one core", data=str(data), what=what, seconds=spent)
        best = min(seconds[key] for key in hnsw if key.startswith(f"{HNSW},"))
        report.at_least(f"{data.name}: HNSW's build time over FLOPS_SPARSE's", best / seconds[OURS[0]], targets.build)


def _sparse_ways(report: Report, data: Data, seconds: dict[str, float]) -> dict[str, list[Contender]]:
    """The inverted index and rivals on the same sparse rows, with build seconds."""
    encoder = load_flops(data.name)
    started = time.process_time()
    rows = sparse.vstack(in_batches(encoder.encode_rows, data.rows), format="csr")
    seconds["encoding the rows, FLOPS_SPARSE"] = time.process_time() - started
    started = time.process_time()
    index = InvertedIndex(encoder.info.dim, "COSINE", data.rows.shape[1])
    index.add(rows, data.rows)
    seconds[OURS[0]] = time.process_time() - started
    encoded = encoder.encode_queries(data.queries)
    queries = [encoded[[i]] for i in range(len(data.queries))]
    ready = [[(query.indices.astype(np.int64), query.data)] for query in queries]  # as the index takes one of them
    head = read_linear_head(encoder)
    assert head is not None
    linear = LinearQueries(head.weight, head.bias, nnz=head.nnz, floor=head.floor, scale=head.scale)
    lazy = [linear.of(data.queries[i : i + 1]) for i in range(len(data.queries))]
    size = sum(index.nbytes[part] for part in ("postings", "levels")) / len(data.rows)
    report.row("Bytes of a row beside its vector", data=str(data), what=OURS[0], bytes=size)
    ways: dict[str, list[Contender]] = {
        OURS[0]: [Flops(data, index, ready, cut) for cut in CUTS],
        OURS[0] + ENCODED: [Flops(data, index, lazy, cut) for cut in CUTS],
        SCIPY: [Scipy(data, index, rows, queries)],
    }
    seismic = build_seismic(rows)
    if seismic is not None:
        most = encoder.info.max_nnz
        settings = [(terms, factor) for terms in (most // 2, most) for factor in (0.8, 1.0)]
        ways[SEISMIC] = [Seismic(data, index, seismic, queries, setting) for setting in settings]
    return ways


def _drq_ways(report: Report, data: Data, seconds: dict[str, float]) -> dict[str, list[Contender]]:
    codes = load_codes(data.name)
    ways: dict[str, list[Contender]] = {OURS[1]: [], OURS[1] + ENCODED: []}
    for levels in LEVELS:
        started = time.process_time()
        index = codes.index(levels)
        index.search(codes.words[:1, : 256 * levels].reshape(1, -1, 256), np.ones(1, np.float32), 1, probes=1)
        seconds[f"DRQ {8 * levels} bit"] = time.process_time() - started
        size = sum(bytes_ for part, bytes_ in index.nbytes.items() if not part.startswith("vector")) / len(data.rows)
        report.row("Bytes of a row beside its vector", data=str(data), what=f"DRQ {8 * levels} bit", bytes=size)
        ways[OURS[1]] += [Drq(data, codes, index, visits, encoded=True) for visits in WORDS]
        ways[OURS[1] + ENCODED] += [Drq(data, codes, index, visits) for visits in WORDS]
    return ways


def _hnsw_ways(data: Data, hnsw: Mapping[str, Any]) -> dict[str, list[Contender]]:
    ways: dict[str, list[Contender]] = {
        HNSW: [Hnsw(data, hnsw[key], key) for key in hnsw if key.startswith(f"{HNSW},")],
        HNSW_SQ8: [
            HnswSq8(data, hnsw[key], _flat(data.rows), key, factor)
            for key in hnsw
            if key.startswith(HNSW_SQ8)
            for factor in (1, 2, 4)
        ],
    }
    return {kind: some for kind, some in ways.items() if some}


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
        visits = getattr(contender, "visits", None)
        report.row(
            "Search",
            **{
                "data": name,
                "tuned to": wanted,
                "contender": kind,
                "set": contender.name + (f", visits {visits}" if visits else ""),
                "candidates or efSearch": effort,
                "recall@10": recall(
                    contender, effort, data.reported if kind in fast else data.reported[:SLOW], data.truth
                ),
                "ms": times[kind],
                "HNSW's time over it": times[HNSW] / times[kind],
            },
        )
    return times


def _check(report: Report, what: str, times: Mapping[str, float], targets: Targets, place: int) -> None:
    for rival, kinds, least in (
        (HNSW, OURS, targets.search[place]),
        (HNSW, tuple(ours + ENCODED for ours in OURS), targets.encoded[place]),
        (HNSW_SQ8, OURS, targets.sq8[place] if targets.sq8 else None),
    ):
        if least is not None:
            reaching = [kind for kind in kinds if kind in times]
            ours = min(reaching, key=times.__getitem__) if reaching else kinds[0]
            ratio = times[rival] / times[ours] if reaching else 0.0
            report.at_least(f"{what}: {rival}'s time over that of {ours}", ratio, least)
    for rival in (SCIPY, SEISMIC):
        if rival in times:
            report.at_least(f"{what}: {rival}'s time over that of {OURS[0]}", times[rival] / times[OURS[0]], 1)
