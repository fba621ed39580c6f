"""Measure an existing collection, or index types in temporary collections."""

from __future__ import annotations

import time
import uuid
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from alula.catalog.schema import ScalarField
from alula.collection import Collection
from alula.encoders import Encoder
from alula.errors import LoadInterrupted, UsageError
from alula.evaluation.ground_truth import Queries, Searcher
from alula.evaluation.measure import Point, measure
from alula.evaluation.native import (
    BUILD_TIMEOUT,
    PREFIX,
    drop_quietly,
    native_collection,
    wait_until_indexed,
)
from alula.evaluation.native_types import NATIVE, Params, native_name
from alula.evaluation.results import Neighbour, Sample, Subject
from alula.evaluation.row_source import F32, Key, RowSource
from alula.evaluation.settings import Settings, default_sweep, given_sweep, show_settings
from alula.index_types import IndexType, index_type_for, native_cost
from alula.ingest.load import load
from alula.ingest.monitor import Status
from alula.milvus import Server
from alula.progress import Progress, silent

SAMPLES = 5  # queries shown with their neighbours


@dataclass(frozen=True)
class Budget:
    """The amount of work of an evaluation.

    Args:
        seconds: Duration of the throughput test of each setting.
        clients: Concurrent clients in that test.
        sweep: Search options and the values to combine; `default_sweep` if empty.
        build_timeout: Seconds to wait for the build of a temporary index.
    """

    seconds: float = 2.0
    clients: int = 4
    sweep: Mapping[str, Sequence[Any]] | None = None
    build_timeout: float = BUILD_TIMEOUT


@dataclass(frozen=True)
class Measured:
    """A subject, and the keys that each of its settings found for each query."""

    subject: Subject
    found: Sequence[Sequence[Sequence[Key]]]


def index_type_of(encoder: Encoder) -> IndexType:
    """The index type of an encoder of vectors.

    Raises:
        UsageError: If there is no index type for it, or it takes other inputs than vectors.
    """
    if encoder.info.input != "vectors":
        raise UsageError(
            f"The encoder {encoder.path.name} takes {encoder.info.input}, not vectors; create and load a collection "
            "with it, and evaluate that."
        )
    return index_type_for(encoder)


def common_metric(encoders: Sequence[Encoder], given: str | None) -> str:
    """The metric of all encoders; without encoders the given one, or COSINE.

    Raises:
        UsageError: If they differ.
    """
    metrics = {str(encoder.info.metric) for encoder in encoders} | ({given} if given else set())
    if len(metrics) > 1:
        raise UsageError(f"One metric can be evaluated at a time, and these are {', '.join(sorted(metrics))}.")
    return next(iter(metrics), "COSINE")


def without_defaults(collection: Collection) -> Collection:
    """The collection with the index type's defaults instead of its stored ones."""
    return Collection(replace(collection.spec, defaults={}))


def searcher(collection: Collection, settings: Mapping[str, Any]) -> Searcher:
    """Return a function that searches a collection with a setting."""

    def search(queries: F32, limit: int) -> Sequence[Sequence[Key]]:
        return [[hit.id for hit in hits] for hits in collection.search(queries, limit=limit, **settings)]

    return search


def evaluate_collection(
    collection: Collection, queries: Queries, budget: Budget, rows: int, progress: Progress = silent
) -> Measured:
    """Measure an existing collection, with its default setting and a sweep.

    Raises:
        UsageError: If the index type lacks an option of the sweep, or rejects a value.
        ServerError: If Milvus fails.
    """
    if budget.sweep:
        settings = given_sweep(collection, budget.sweep)
    else:
        settings = default_sweep(collection, queries.limit, rows)
        if collection.defaults and collection.defaults not in settings:
            settings.append(dict(collection.defaults))
    about = collection.lowering.settings
    name = " ".join(filter(None, (about["type"], about.get("layout"))))
    bare = without_defaults(collection)
    tries = {show_settings(given): (given, searcher(bare, given)) for given in settings}
    points, found = _sweep(name, tries, queries, budget, progress)
    sizes = collection.spec.cost
    notes = [sizes.note] if sizes.note else []
    build: dict[str, Any] = {key: about[key] for key in ("layout", "binary_index") if key in about}
    encoder = collection.lowering.encoder
    return Measured(Subject(name, sizes, points, encoder.path.name, build, None, notes), found)


def _sweep(
    name: str,
    tries: Mapping[str, tuple[Settings, Searcher]],
    queries: Queries,
    budget: Budget,
    progress: Progress,
) -> tuple[list[Point], list[list[list[Key]]]]:
    points, found = [], []
    for number, (shown, (settings, search)) in enumerate(tries.items()):
        progress(f"{name}: {shown}", number, len(tries))
        point, answers = measure(search, queries, settings, seconds=budget.seconds, clients=budget.clients)
        points.append(point)
        found.append(answers)
    progress(name, len(tries), len(tries))
    return points, found


@dataclass(frozen=True)
class IndexComparison:
    """Index types compared on the same rows and the same server.

    Args:
        server: The server for the temporary collections.
        rows: The rows.
        key: Their primary key.
        metric: The metric.
        dim: Their dimension.
        count: Their number.
        budget: The amount of work.
        progress: Called with each stage and its progress.
    """

    server: Server
    rows: RowSource
    key: ScalarField
    metric: str
    dim: int
    count: int
    budget: Budget
    progress: Progress = silent

    def native(self, name: str, params: Params, queries: Queries) -> Measured:
        """Measure one of Milvus's own index types.

        Raises:
            ServerError: If the server rejects it, or does not build it in time.
        """
        given: Any = {"metric": self.metric, "dim": self.dim, "count": self.count, "progress": self.progress}
        given["build_timeout"] = self.budget.build_timeout
        with native_collection(self.server, self.rows, self.key, name, params, **given) as collection:
            shown = native_name(name, params)
            settings = NATIVE[name].sweep(collection.params, queries.limit)
            tries = {show_settings(given): (given, collection.searcher(given)) for given in settings}
            points, found = _sweep(shown, tries, queries, self.budget, self.progress)
        sizes = native_cost(name, self.dim, collection.params, self.count)
        notes = [sizes.note] if sizes.note else []
        if "nprobe" in settings[0] and len(found) > 1 and all(answers == found[0] for answers in found):
            notes.append(f"{name} gave the same answers for every nprobe: this server seems not to use the index")
        return Measured(Subject(shown, sizes, points, "", collection.params, collection.seconds, notes), found)

    def learned(self, encoder: Encoder, options: Settings, queries: Queries) -> Measured:
        """Measure the index type of an encoder in a temporary collection.

        Raises:
            UnsupportedError: If the server cannot store it.
            ServerError: If it fails.
        """
        with self.loaded(encoder, options) as (collection, seconds):
            outcome = evaluate_collection(collection, queries, self.budget, self.count, self.progress)
        name = f"{outcome.subject.name} ({encoder.path.stem})"
        return replace(outcome, subject=replace(outcome.subject, name=name, load_seconds=seconds))

    @contextmanager
    def loaded(
        self, encoder: Encoder, options: Settings, *, keep_vectors: bool = True
    ) -> Iterator[tuple[Collection, float]]:
        """Load the rows into a temporary collection with the index type of an encoder.

        Args:
            encoder: The encoder.
            options: Create options of its index type.
            keep_vectors: False to drop the vectors.

        Yields:
            The collection, and the seconds that loading and building took.

        Raises:
            UsageError: If no index type is known for the encoder.
            UnsupportedError: If the server cannot store it.
            ServerError: If it fails.
        """
        kind = index_type_of(encoder)
        name = f"{PREFIX}{kind.name.lower()}_{uuid.uuid4().hex[:8]}"
        started = time.perf_counter()
        try:
            collection = Collection.create(
                self.server,
                name,
                encoder=encoder,
                index_type=kind.name,
                primary_key=str(self.key),
                keep_vectors=keep_vectors,
                options=options,
            )
            what = f"loading {kind.name}"

            def show(status: Status) -> None:
                self.progress(what, status.written, self.count)

            try:
                load(collection.target(), self.rows.source, mode="insert", progress=show)
            except (KeyboardInterrupt, LoadInterrupted):  # whose message says how to resume, which is impossible here
                raise LoadInterrupted(f"Stopped while {what}; the temporary collection was dropped.") from None
            wait_until_indexed(self.server, name, f"building {kind.name}", self.budget.build_timeout, self.progress)
            yield collection, time.perf_counter() - started
        finally:
            drop_quietly(self.server, name)


def samples(queries: Queries, outcomes: Sequence[Measured], columns: Any, target: float = 0.9) -> list[Sample]:
    """Choose queries to show, with the results of the fastest good setting.

    Args:
        queries: The queries.
        outcomes: The measured indexes.
        columns: Reads scalar columns by key: keys -> key -> name -> value.
        target: The least recall of a good setting; without one, the setting with the best recall is shown.
    """
    measured = [
        (o.subject, point, found) for o in outcomes for point, found in zip(o.subject.points, o.found, strict=True)
    ]
    ours = [entry for entry in measured if entry[0].encoder] or measured
    if not ours:
        return []
    good = [entry for entry in ours if entry[1].recall.value >= target]
    if good:
        subject, point, found = min(good, key=lambda entry: entry[1].p50)
    else:
        subject, point, found = max(ours, key=lambda entry: entry[1].recall.value)
    # half of the sample: the queries with the most missed neighbours
    order = sorted(range(len(queries)), key=lambda i: len(queries.relevant(i) & set(found[i])))
    few, some = order[: SAMPLES // 2], order[len(order) // 2 :][: SAMPLES - SAMPLES // 2]
    chosen = list(dict.fromkeys(few + some))
    keys = {key for i in chosen for key in (*queries.ground_truth[i], *found[i])}
    keys |= {queries.own[i] for i in chosen} if queries.own is not None else set()
    held: Mapping[Key, Mapping[str, Any]] = columns(keys)

    def neighbours(these: Sequence[Key], others: Container[Key]) -> list[Neighbour]:
        return [Neighbour(key, key in others, held.get(key, {})) for key in these]

    by = f"{subject.name}, {show_settings(point.settings)}"
    made = []
    for i in chosen:
        own = None if queries.own is None else queries.own[i]
        label = queries.labels[i] if queries.labels else f"row {own}" if own is not None else f"query {i}"
        true, got = queries.ground_truth[i], found[i]
        about = held.get(own, {}) if own is not None else {}
        made.append(Sample(label, about, neighbours(true, got), neighbours(got, queries.relevant(i)), by))
    return made
