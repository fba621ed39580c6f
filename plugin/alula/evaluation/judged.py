"""Evaluate ranking quality with relevance judgements.

Searched are collections, exactly and by their indexes, by BM25 of the server and by Milvus's own index types, and
fusions of two of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alula.collection import Collection
from alula.errors import ServerError, UsageError
from alula.evaluation.bm25 import METRIC, Bm25
from alula.evaluation.evaluate import Budget, without_defaults
from alula.evaluation.ground_truth import Searcher, find_ground_truth
from alula.evaluation.judged_queries import JudgedQueries, embedded, missing_rows, read_judged_queries
from alula.evaluation.judgements import DEPTH, F64, MEASURES, Interval, Relevance, read_qrels, scores
from alula.evaluation.measure import send_each
from alula.evaluation.native import native_collection
from alula.evaluation.native_types import NATIVE, Params, native_name
from alula.evaluation.results import machine, now, versions
from alula.evaluation.row_source import F32, RowSource
from alula.evaluation.settings import Settings, given_sweep, show_settings
from alula.index_types import RowCost, native_cost
from alula.milvus import version
from alula.notebook import html_table
from alula.progress import Progress, silent
from alula.search import RankedIds
from alula.search.fusion import Fusion

EQUAL = 0.5  # weight of each of two systems


@dataclass(frozen=True)
class Run:
    """The rankings of one system.

    Args:
        name: The index type, or what else ranked the rows.
        settings: The search options.
        rankings: For each query the rows found.
        milliseconds: Latency of each query; empty if not measured.
        sizes: Bytes per row of the systems used, empty if unknown.
        metric: Metric of the scores.
        note: A remark on the figures.
    """

    name: str
    settings: Mapping[str, Any]
    rankings: Sequence[RankedIds]
    milliseconds: Sequence[float] = ()
    sizes: Sequence[RowCost] = ()
    metric: str = ""
    note: str = ""


@dataclass(frozen=True)
class System:
    """The figures of one system.

    Args:
        name: The index type, or what else ranked the rows.
        settings: The search options.
        measures: `alula.evaluation.judgements.MEASURES`, means over the queries.
        differences: The same less those of the baseline, by the paired bootstrap; empty for the baseline.
        p50: Median latency of one query in milliseconds, without embedding it; None if not measured.
        p95: 95th percentile of it.
        memory: Bytes per row in memory by formula; None if unknown.
        disk: Bytes per row on disk.
    """

    name: str
    settings: Mapping[str, Any]
    measures: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    p50: float | None
    p95: float | None
    memory: float | None
    disk: float | None


@dataclass(frozen=True)
class JudgedEvaluation:
    """All results of an evaluation with judgements.

    Args:
        title: The collections.
        rows: Number of rows searched.
        queries: Number of queries.
        queries_from: Source of the queries and judgements.
        server: Product and version of the server.
        seed: Seed of the bootstrap.
        systems: The figures; the first is the baseline of the differences.
        notes: Remarks on all figures.
        refused: Index types that the server rejected, with the reason.
        date: Time of the end, ISO 8601 in UTC.
        machine: The machine that ran the searches.
        versions: Versions of the software.
    """

    title: str
    rows: int
    queries: int
    queries_from: str
    server: str
    seed: int
    systems: Sequence[System]
    notes: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    date: str = field(default_factory=now)
    machine: str = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)

    def _repr_html_(self) -> str:
        """The figures as a table, for notebooks."""
        heads = ("searched by", "search options", *MEASURES, "p50 ms", "bytes/row in memory")
        rows = [
            (
                system.name,
                show_settings(system.settings) if system.settings else "",
                *(str(system.measures[name]) for name in MEASURES),
                "" if system.p50 is None else f"{system.p50:.2f}",
                "" if system.memory is None else f"{system.memory:.0f}",
            )
            for system in self.systems
        ]
        return html_table(f"{self.title}: {self.rows:,} rows, {self.queries:,} queries; {self.server}", heads, rows)

    def as_json(self) -> dict[str, Any]:
        """As nested dictionaries and lists for JSON."""
        return {"format": 1, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class JudgedSearches:
    """The searches of one collection's rows with the vectors of the judged queries.

    Args:
        collection: The collection.
        vectors: float32 (q, d): the queries.
        rows: The rows' vectors; None if they cannot be read.
        count: The number of rows.
        budget: The sweep of search options, and the seconds to wait for the build of an index.
        progress: Called with each stage and its progress.
    """

    collection: Collection
    vectors: F32
    rows: RowSource | None
    count: int
    budget: Budget
    progress: Progress = silent

    def learned(self) -> Iterator[Run]:
        """Search with the collection's defaults, or with each setting of the sweep.

        Raises:
            UsageError: If the index type lacks an option of the sweep, or rejects a value.
            ServerError: If Milvus fails.
        """
        collection, sweep = self.collection, self.budget.sweep
        stored, cost = collection.lowering.settings, collection.spec.cost
        name = " ".join(filter(None, (collection.name, stored["type"], stored.get("layout"))))
        searched = without_defaults(collection) if sweep else collection
        for settings in given_sweep(collection, sweep) if sweep else [{}]:

            def search(queries: F32, limit: int, settings: Settings = settings) -> RankedIds:
                (hits,) = searched.search(queries, limit=limit, **settings)
                return RankedIds([hit.id for hit in hits], np.array([hit.score for hit in hits], np.float32), False)

            rankings, times = self._time(search, f"{name}: {show_settings(settings)}")
            shown = settings or dict(collection.defaults)
            yield Run(name, shown, rankings, times, (cost,), collection.lowering.field.metric, cost.note)

    def exact(self) -> Iterator[Run]:
        """Score every row by its vector, if the vectors can be read.

        Raises:
            DataError: If rows have another dimension than the queries.
        """
        if self.rows is None:
            return
        metric, k = self.collection.lowering.field.metric, min(DEPTH, self.count)
        nearest = find_ground_truth(self.rows, self.vectors, k, metric, progress=self.progress)
        rankings = [RankedIds(one.keys[:DEPTH], one.scores[:DEPTH], exact=True) for one in nearest]
        yield Run(f"{self.collection.name}, exact {metric} of every row", {}, rankings, metric=metric)

    def native(self, index_type: str, params: Params) -> Iterator[Run]:
        """Search one of Milvus's index types in a temporary collection of the vectors.

        Raises:
            ServerError: If the server rejects it, or does not build it in time.
        """
        collection, field, count = self.collection, self.collection.lowering.field, self.count
        if self.rows is None:
            return
        given: Any = {"metric": field.metric, "dim": field.dim, "count": count, "progress": self.progress}
        given["build_timeout"] = self.budget.build_timeout
        name = native_name(index_type, params)
        where = (collection.server, self.rows, collection.primary_key)
        with native_collection(*where, index_type, params, **given) as native:
            sizes = native_cost(index_type, field.dim, native.params, count)
            for settings in NATIVE[index_type].sweep(native.params, DEPTH):
                rankings, times = self._time(
                    _keys_only(native.searcher(settings)), f"{name}: {show_settings(settings)}"
                )
                yield Run(name, settings, rankings, times, (sizes,), field.metric, sizes.note)

    def _time(self, search: Callable[[F32, int], RankedIds], stage: str) -> tuple[list[RankedIds], list[float]]:
        """Send each query alone; returns also the milliseconds of each."""
        total = len(self.vectors)
        rankings, seconds = send_each(search, self.vectors, DEPTH, lambda done: self.progress(stage, done, total))
        return rankings, [1e3 * one for one in seconds]


def _keys_only(search: Searcher) -> Callable[[F32, int], RankedIds]:
    def searched(queries: F32, limit: int) -> RankedIds:
        (keys,) = search(queries, limit)
        return RankedIds(keys, np.zeros(len(keys), np.float32), exact=True)

    return searched


@dataclass(frozen=True)
class JudgedFiles:
    """The user's files of judged queries.

    Args:
        queries: The queries.
        column: Their column.
        qrels: The judgements.
    """

    queries: Path
    column: str | None
    qrels: Path


def evaluate_judged(
    collections: Sequence[tuple[Collection, RowSource | None]],
    files: JudgedFiles,
    budget: Budget,
    *,
    rivals: Sequence[tuple[str, Params]] = (),
    bm25: Bm25 | None = None,
    weights: Sequence[float] = (EQUAL,),
    seed: int = 0,
    progress: Progress = silent,
) -> JudgedEvaluation:
    """Search collections with judged queries; fuse the rankings of each two.

    Args:
        collections: The collections, which hold the same rows, and the vectors of each, if they can be read.
        files: The judged queries.
        budget: The sweep, and the seconds to wait for the build of an index.
        rivals: Milvus's own index types to measure on the vectors.
        bm25: A collection of the same rows to search by the queries' texts.
        weights: Of the first of two systems in their weighted fusions.
        seed: Seed of the bootstrap.
        progress: Called with each stage and its progress.

    Raises:
        UsageError, DataError: If a file cannot be used, or does not belong to the collections.
        ServerError: If Milvus fails.
    """
    judged = read_qrels(files.qrels)
    encoders = [collection.lowering.encoder for collection, _ in collections]
    asked = [read_judged_queries(files.queries, files.column, encoder, judged) for encoder in encoders]
    lexical = [] if bm25 is None else [_by_bm25(bm25, files, asked, progress)]
    exact: list[Run] = []
    learned: list[list[Run]] = []
    native: list[Run] = []
    notes: list[str] = []
    refused: dict[str, str] = {}
    for (collection, rows), queries in zip(collections, asked, strict=True):
        vectors, milliseconds = embedded(collection.lowering.encoder, queries)
        notes += _notes(collection, rows, queries, milliseconds)
        searches = JudgedSearches(collection, vectors, rows, collection.count(), budget, progress)
        learned.append(list(searches.learned()))
        exact += searches.exact()
        for rival, params in rivals:
            try:
                native += searches.native(rival, params)
            except ServerError as error:
                refused[native_name(rival, params)] = str(error)
    pairs = itertools.combinations([*(runs[0] for runs in learned), *lexical], 2)
    hybrid = [fuse(*pair, weight) for pair in pairs for weight in (None, *weights)]
    runs = [*exact, *itertools.chain(*learned), *lexical, *hybrid, *native]
    notes += dict.fromkeys(f"{run.name}: {run.note}" for run in runs if run.note)
    if queries.left_out:
        notes.append(f"{queries.left_out:,} further queries of {files.queries.name} have no relevant row")
    return JudgedEvaluation(
        title=f"Collection {', '.join(collection.name for collection, _ in collections)}",
        rows=collections[0][0].count(),
        queries=len(queries.ids),
        queries_from=f"{files.queries.name} with the judgements of {files.qrels.name}",
        server=version(collections[0][0].server),
        seed=seed,
        systems=judge(runs, queries.relevance, seed),
        notes=notes,
        refused=refused,
    )


def _by_bm25(bm25: Bm25, files: JudgedFiles, asked: Sequence[JudgedQueries], progress: Progress) -> Run:
    texts = next((queries.texts for queries in asked if queries.texts), None)
    if texts is None:
        raise UsageError(f"BM25 searches by texts; add the column 'text' to the queries of {files.queries.name}.")
    name = f"{bm25.collection}, BM25 of the server"
    rankings, seconds = send_each(bm25.search, texts, DEPTH, lambda done: progress(name, done, len(texts)))
    return Run(name, {}, rankings, [1e3 * one for one in seconds], metric=METRIC)


def _notes(
    collection: Collection, rows: RowSource | None, queries: JudgedQueries, milliseconds: float
) -> Iterator[str]:
    wanted = queries.relevant_rows
    missing = missing_rows(collection, wanted)
    if missing:
        yield f"{collection.name} lacks {missing:,} of {len(wanted):,} relevant rows, which nothing can find"
    if milliseconds:
        encoder = collection.lowering.encoder.path.name
        yield f"embedding a query with {encoder} takes {milliseconds:.1f} ms, not included"
    if rows is None:
        yield f"{collection.name} keeps no vectors, so its rows were not scored exactly"


def fuse(first: Run, second: Run, weight: float | None = None) -> Run:
    """Fuse two systems' rankings, as a hybrid search of Milvus does.

    Args:
        first: One system.
        second: Another one, of the same queries.
        weight: Of the first system's scores, from 0 to 1, the second having the rest; None for reciprocal ranks.
    """
    fusion = Fusion("rrf", DEPTH)
    settings: Settings = {"fusion": "rrf"}
    if weight is not None:
        fusion = Fusion("weighted", DEPTH, weights=(weight, 1 - weight))
        settings = {"fusion": "weighted", "weight": weight}
    metrics = (first.metric, second.metric)
    rankings = [fusion.fuse(pair, metrics) for pair in zip(first.rankings, second.rankings, strict=True)]
    times = [sum(pair) for pair in zip(first.milliseconds, second.milliseconds, strict=True)]
    name = f"{first.name} + {second.name}"
    return Run(name, settings, rankings, times, (*first.sizes, *second.sizes))


def judge(runs: Sequence[Run], relevance: Sequence[Relevance], seed: int) -> list[System]:
    """The figures of some runs; the first is the baseline."""
    values = [_values(run, relevance) for run in runs]
    return [
        _system(run, found, values[0] if i else None, seed)
        for i, (run, found) in enumerate(zip(runs, values, strict=True))
    ]


def _values(run: Run, relevance: Sequence[Relevance]) -> F64:
    """The measures of each query: float64 (q, measures)."""
    pairs = zip(run.rankings, relevance, strict=True)
    return np.array([scores([str(key) for key in found.ids], judged) for found, judged in pairs])


def _system(run: Run, values: F64, baseline: F64 | None, seed: int) -> System:
    measures = {name: Interval.of(values[:, i], seed) for i, name in enumerate(MEASURES)}
    differences = (
        {}
        if baseline is None
        else {name: Interval.of(values[:, i] - baseline[:, i], seed) for i, name in enumerate(MEASURES)}
    )
    p50, p95 = np.percentile(run.milliseconds, [50, 95]).tolist() if run.milliseconds else (None, None)
    memory = sum(size.memory_bytes for size in run.sizes) if run.sizes else None
    disk = sum(size.disk_bytes for size in run.sizes) if run.sizes else None
    return System(run.name, run.settings, measures, differences, p50, p95, memory, disk)
