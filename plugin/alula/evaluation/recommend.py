"""Recommend an index type for vectors, from measurements on a sample of them.

Every index type of Milvus that the server has, and those of given encoders, hold the same sample of rows in temporary
collections. Memory and disk are formulas, at the number of rows that the recommendation is for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alula.catalog.schema import ScalarField
from alula.encoders import Encoder
from alula.errors import AlulaError, DataError, ServerError, UnsupportedError, UsageError
from alula.evaluation.choice import Contender, choose, reason
from alula.evaluation.evaluate import Budget, IndexComparison, common_metric, index_type_of
from alula.evaluation.ground_truth import Queries
from alula.evaluation.native_types import FAISS, NATIVE
from alula.evaluation.prospects import KEPT, PROSPECT, Prospect, drq_prospects
from alula.evaluation.queries import QueryOptions
from alula.evaluation.results import machine, now, versions
from alula.evaluation.row_sample import RowSample, draw_sample
from alula.evaluation.row_source import RowSource
from alula.evaluation.settings import show_settings
from alula.evaluation.tune import fastest_settings
from alula.index_types import IndexType, lowering_cost, native_cost
from alula.milvus import Server, version
from alula.notebook import html_table
from alula.progress import Progress, silent

SAMPLE_ROWS = 20_000
BUILD_TIMEOUT = 60.0  # seconds; a server that cannot build an index goes on trying
INDEXED_ROWS = 1024  # Milvus's default of minSegmentSizeToEnableIndex
SECONDS = 30.0  # to try search options of one of Alula's index types
# at the end: a build that was given up goes on in the server, and slows what is measured beside it
_LAST = ("IVF_PQ", "HNSW_PQ", "HNSW_PRQ", "DISKANN")
_MANY = 2  # times the sample: with more rows, the time of comparing all of them is stated


@dataclass(frozen=True)
class Wish:
    """A demand for a recommendation.

    Args:
        target: The recall to reach, between 0 and 1.
        rows: The number of rows to recommend for; None for those of the file.
        metric: The metric; None for the encoders', or COSINE.
        sample_rows: Most rows to measure on.
        build_timeout: Seconds to wait for the build of each index.
        seconds: Time limit for trying search options of each of Alula's index types.
    """

    target: float = 0.95
    rows: int | None = None
    metric: str | None = None
    sample_rows: int = SAMPLE_ROWS
    build_timeout: float = BUILD_TIMEOUT
    seconds: float = SECONDS


@dataclass(frozen=True)
class Recommendation:
    """The measured index types, and the one to take.

    Args:
        title: The files.
        metric: The metric.
        k: Neighbours per query.
        target: The recall to reach.
        dim: Dimension of the vectors.
        rows: Number of rows that memory and disk are for.
        file_rows: Number of rows in the files.
        sample_rows: Number of rows that were measured.
        queries: Number of queries.
        queries_from: Source of the queries.
        server: Product and version of the server.
        seed: Seed of the random draws.
        contenders: The measured index types: those that reach the target first, by memory.
        taken: Name of the one to take; "" if no one reaches the target.
        reason: Why, in one or two sentences.
        prospects: Index types that need an encoder first.
        refused: Index types that could not be measured, with the reason.
        date: Time of the end, ISO 8601 in UTC.
        machine: The machine that ran the searches.
        versions: Versions of the software.
    """

    title: str
    metric: str
    k: int
    target: float
    dim: int
    rows: int
    file_rows: int
    sample_rows: int
    queries: int
    queries_from: str
    server: str
    seed: int
    contenders: Sequence[Contender]
    taken: str
    reason: str
    prospects: Sequence[Prospect] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    date: str = field(default_factory=now)
    machine: str = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def hint(self) -> str:
        """The meaning of the prospects, in sentences; "" without any."""
        if not self.prospects:
            return ""
        return (
            f"DRQ needs an encoder: alula train drq {self.title}, then recommend again with it. Its memory and disk "
            "are formulas, and its recall is an estimate: that of exact re-ranking of the candidates that untrained "
            "sign bits find. A trained encoder finds more."
        )

    @property
    def caveat(self) -> str:
        """The meaning of the figures, in sentences."""
        return (
            f"Recall and milliseconds are those of {self.sample_rows:,} sample rows on this server, one query at a "
            f"time; memory and disk are formulas, for {self.rows:,} rows. With more rows the same setting finds less "
            "and takes longer: measure the choice on all rows with alula evaluate."
        )

    def _repr_html_(self) -> str:
        """The index types as a table, for notebooks."""
        heads = ("index", "search options", f"recall@{self.k}", "p50 ms", "bytes/row in memory", "on disk")
        rows = [
            (
                f"{one.name} (take this)" if one.name == self.taken else one.name,
                show_settings(one.best.settings),
                str(one.best.recall),
                f"{one.p50:.2f}",
                f"{one.sizes.memory_bytes:.0f}",
                f"{one.sizes.disk_bytes:.0f}",
            )
            for one in self.contenders
        ]
        caption = f"{self.title}: recall {self.target:g} of {self.sample_rows:,} sample rows; {self.server}"
        return html_table(f"{caption}. {self.reason}", heads, rows)

    def as_json(self) -> dict[str, Any]:
        """As nested dictionaries and lists for JSON."""
        return {"format": 1, **dataclasses.asdict(self), "hint": self.hint, "caveat": self.caveat}


def recommend(
    server: Server,
    rows: RowSource,
    wish: Wish,
    options: QueryOptions,
    *,
    encoders: Sequence[Encoder] = (),
    progress: Progress = silent,
) -> Recommendation:
    """Measure index types on a sample of rows, and choose one.

    Args:
        server: The server; temporary collections are made in it, and dropped.
        rows: The rows.
        wish: The demand.
        options: The choice of queries; ``sample`` and ``truth`` are not used.
        encoders: Encoders whose index types are measured too.
        progress: Called with each stage and its progress.

    Raises:
        UsageError: If there are too few rows or queries, for the server too, or the encoders' metrics differ.
        DataError: If a row or query cannot be used, or an encoder takes another dimension.
        AlulaError: If the server accepts no index type.
    """
    kinds = [index_type_of(encoder) for encoder in encoders]
    metric = common_metric(encoders, wish.metric)
    first = encoders[0] if encoders else None
    drawing: Any = {"most": wish.sample_rows, "target": wish.target, "metric": metric, "encoder": first}
    sample = draw_sample(rows, options, **drawing, progress=progress)
    dim, count = sample.vectors.shape[1], len(sample.vectors)
    for encoder in encoders:
        if encoder.info.input_dim != dim:
            raise DataError(
                f"The encoder {encoder.path.name} takes vectors of {encoder.info.input_dim} numbers, and those of "
                f"{rows.source.name} have {dim}; give the encoder that was trained on such vectors."
            )
    if server.dialect.flushes and count < INDEXED_ROWS:
        raise UsageError(
            f"The sample has {count:,} rows, and Milvus builds no index for fewer than {INDEXED_ROWS:,}: every type "
            "would compare all rows; give more rows, or take FLAT for these."
        )
    budget = Budget(seconds=0, clients=1, build_timeout=wish.build_timeout)
    key = ScalarField("alula_row", "INT64")
    comparison = IndexComparison(server, sample.source, key, metric, dim, count, budget, progress)
    trial = _Trial(comparison, sample.query_set.queries, wish, wish.rows or sample.total)
    trial.natives([name for name in NATIVE if name not in (*_LAST, FAISS)])
    for encoder, kind in zip(encoders, kinds, strict=True):
        for keep in (True, False) if kind.ranks_without_vectors else (True,):
            trial.learned(encoder, kind, keep_vectors=keep)
    trial.natives(_LAST)
    if not trial.contenders:
        raise AlulaError("Nothing could be measured. " + " ".join(trial.refused.values()))
    measured = any(kind.name == PROSPECT for kind in kinds)
    prospects = [] if measured else trial.prospects(sample, options.seed)
    contenders = sorted(trial.scaled(), key=lambda one: (one.chosen is None, one.memory))
    taken = choose(contenders)
    return Recommendation(
        title=Path(rows.source.name).name,
        metric=metric,
        k=options.k,
        target=wish.target,
        dim=dim,
        rows=trial.rows,
        file_rows=sample.total,
        sample_rows=count,
        queries=len(sample.query_set.queries),
        queries_from=sample.query_set.queries_from,
        server=version(server),
        seed=options.seed,
        contenders=contenders,
        taken=taken.name if taken else "",
        reason=reason(taken, contenders, target=wish.target, k=options.k),
        prospects=prospects,
        refused=trial.refused,
    )


def _compares_all(one: Contender) -> bool:
    """True for FLAT, and for an IVF index that finds the same with any nprobe.

    Milvus Lite's does.
    """
    recalls = {point.recall.value for point in one.points}
    return one.name == "FLAT" or ("nprobe" in one.points[0].settings and len(recalls) == 1)


class _Trial:
    """Measures index types one after another.

    Args:
        comparison: The sample on the server.
        queries: The queries.
        wish: The demand.
        rows: The number of rows that sizes are for.
    """

    def __init__(self, comparison: IndexComparison, queries: Queries, wish: Wish, rows: int) -> None:
        self.contenders: list[Contender] = []
        self.refused: dict[str, str] = {}
        self.rows = rows
        self._comparison, self._queries, self._wish = comparison, queries, wish

    def natives(self, names: Sequence[str]) -> None:
        """Measure some of Milvus's own index types, all with about as many settings."""
        for name in names:
            try:
                subject = self._comparison.native(name, {}, self._queries).subject
            except ServerError as error:
                self.refused[name] = str(error)
                continue
            # by the order of the sweep: medians of neighbouring settings differ by less than their noise
            chosen = next((point for point in subject.points if point.recall.low >= self._wish.target), None)
            shown = chosen or max(subject.points, key=lambda point: point.recall.value)
            dim = self._comparison.dim
            sizes = native_cost(name, dim, NATIVE[name].build(self.rows, dim), self.rows)
            taken: Any = {"build": subject.build, "notes": subject.notes}
            seconds = subject.load_seconds or 0.0
            self.contenders.append(Contender(name, subject.points, chosen, shown.p50, sizes, seconds, **taken))

    def learned(self, encoder: Encoder, kind: IndexType, *, keep_vectors: bool) -> None:
        """Measure the index type of an encoder, with the vectors kept or dropped."""
        name = f"{kind.name} ({encoder.path.stem}), {KEPT[keep_vectors]}"
        wish, comparison = self._wish, self._comparison
        try:
            with comparison.loaded(encoder, {}, keep_vectors=keep_vectors) as (collection, seconds):
                search = fastest_settings(
                    collection,
                    self._queries,
                    wish.target,
                    rows=comparison.count,
                    seconds=wish.seconds,
                    progress=comparison.progress,
                )
                about = collection.lowering
        except (ServerError, UnsupportedError) as error:
            self.refused[name] = str(error)
            return
        chosen, p50 = search.finalists[0] if search.finalists else (None, 0.0)
        p50 = p50 or max(search.tried, key=lambda point: point.recall.value).p50
        sizes = lowering_cost(about, maps=comparison.server.dialect.maps)
        notes = [sizes.note] if sizes.note and keep_vectors else []  # the name says that they are dropped
        if not search.complete:
            notes.append("the time was up before every way of searching was tried")
        build = {key: value for key, value in about.settings.items() if key in ("layout", "binary_index")}
        taken: Any = {"build": build, "encoder": encoder.path.name, "notes": notes}
        self.contenders.append(Contender(name, search.tried, chosen, p50, sizes, seconds, **taken))

    def scaled(self) -> list[Contender]:
        """The contenders, with the time of full scans extrapolated to all rows.

        The least time of the other types is that of a call, which does not grow.
        """
        others = [point.p50 for one in self.contenders if not _compares_all(one) for point in one.points]
        call = min(others, default=0.0)
        growth = self.rows / self._comparison.count
        found = []
        for one in self.contenders:
            if _compares_all(one) and growth >= _MANY:
                at_rows = call + max(0.0, one.p50 - call) * growth
                note = f"compares every row, which takes about {at_rows:,.0f} ms for {self.rows:,} rows"
                found.append(dataclasses.replace(one, p50_at_rows=at_rows, notes=[*one.notes, note]))
            elif one.build.get("binary_index") == "BIN_FLAT" and growth >= _MANY:
                note = "compares the sign bits of every row, so its time grows with the rows too"
                found.append(dataclasses.replace(one, notes=[*one.notes, note]))
            else:
                found.append(one)
        return found

    def prospects(self, sample: RowSample, seed: int) -> list[Prospect]:
        """The index types that need an encoder first."""
        comparison = self._comparison
        comparison.progress("estimating DRQ", 0, None)
        about: Any = {"metric": comparison.metric, "target": self._wish.target, "seed": seed}
        found, refused = drq_prospects(comparison.server, sample.vectors, self._queries, **about)
        self.refused |= refused
        return found
