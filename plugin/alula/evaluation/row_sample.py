"""A random sample of rows, and queries that are not in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alula.encoders import Encoder
from alula.errors import UsageError
from alula.evaluation.ground_truth import Queries, find_ground_truth
from alula.evaluation.queries import QueryOptions, QuerySet, make_queries
from alula.evaluation.row_source import F32, RowSource, sample_rows
from alula.evaluation.tune import queries_needed, queries_to_draw
from alula.progress import Progress, silent
from alula.sources import ArraySource


@dataclass(frozen=True)
class RowSample:
    """A sample of rows, and queries with their true neighbours in it.

    Args:
        total: Number of rows that it was drawn from.
        vectors: float32 (n, d).
        query_set: The queries; the keys of their neighbours are numbers of `vectors`.
    """

    total: int
    vectors: F32
    query_set: QuerySet

    @property
    def source(self) -> RowSource:
        """The sample as rows, whose keys are their numbers."""
        return _source(self.vectors)


def draw_sample(
    rows: RowSource,
    options: QueryOptions,
    *,
    most: int,
    target: float,
    metric: str,
    encoder: Encoder | None = None,
    progress: Progress = silent,
) -> RowSample:
    """Draw rows, and further ones as queries if none are given.

    Args:
        rows: The rows.
        options: The choice of queries; ``sample`` and ``truth`` are not used.
        most: Most rows of the sample.
        target: The recall that the queries must be able to show.
        metric: ``COSINE``, ``IP`` or ``L2``.
        encoder: Checks given queries.
        progress: Called with the number of rows read.

    Raises:
        UsageError: If there are too few rows or queries.
        DataError: If a row or a file of queries cannot be used.
    """
    needed = queries_needed(target, options.k)
    total = rows.count if rows.count is not None else sum(len(keys) for keys, _ in rows.blocks(progress, "counting"))
    drawn = 0 if options.queries else max(needed, min(queries_to_draw(target, options.k), total // 10))
    if total < options.k + drawn:
        beside = f" beside {drawn:,} rows as queries, to show a recall of {target:g} with" if drawn else ""
        raise UsageError(
            f"{rows.source.name} has {total:,} rows, too few for {options.k:,} neighbours{beside}; give more rows, or "
            "a smaller k=..."
        )
    vectors = sample_rows(rows, min(total, most + drawn), options.seed, progress)[1]
    asked, kept = vectors[:drawn], vectors[drawn:]
    if options.queries:
        made = make_queries(_source(kept), options, encoder=encoder, metric=metric, progress=progress)
        if len(made.queries) < needed:
            raise UsageError(
                f"{options.queries.name} has {len(made.queries):,} queries, too few to show a recall@{options.k} of "
                f"{target:g} with 95 % confidence: that takes {needed:,}."
            )
        return RowSample(total, kept, made)
    nearest = find_ground_truth(_source(kept), asked, options.k, metric, progress=progress)
    true, ties = [one.keys[: options.k] for one in nearest], [one.keys[options.k :] for one in nearest]
    words = f"{drawn:,} other rows of {Path(rows.source.name).name}, drawn with seed {options.seed}"
    return RowSample(total, kept, QuerySet(Queries(asked, true, ties=ties), words, "scoring every row of the sample"))


def _source(vectors: F32) -> RowSource:
    return RowSource(ArraySource(vectors, {}), None, lambda inputs: inputs, len(vectors))
