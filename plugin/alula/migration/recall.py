"""Compare the recall of a collection and its copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from alula.collection import Collection
from alula.evaluation import NearestSoFar, RecallEstimate, estimate_recall
from alula.migration.catch_up import KeyDiff
from alula.migration.source_collection import SourceCollection
from alula.milvus import any_of, milvus_errors
from alula.milvus.dialect import QUERIES_PER_CALL

NEIGHBOURS = 10
Search = Callable[[Any], list[list[Any]]]


def compare_recall(
    source: SourceCollection, opened: Collection | None, copy: Collection, diff: KeyDiff
) -> tuple[RecallEstimate | None, RecallEstimate]:
    """The recall at 10 of the source's own index and of the copy.

    Args:
        source: The source collection.
        opened: The source as a collection of Alula's, if its encoder is known.
        copy: The new collection.
        diff: The last comparison of their keys: its sample gives the queries.

    Returns:
        The source's recall, None if it has no index or its encoder is unknown; the copy's.
    """
    chosen = source.rows_where(any_of(source.primary_key.name, diff.sample))
    queries = np.concatenate([np.asarray(batch.inputs, np.float32) for batch in chosen.batches()])
    nearest = NearestSoFar(queries, NEIGHBOURS, copy.lowering.encoder.info.metric)
    for batch in source.rows_where(last=diff.last).batches(copy.target().batch_rows):
        nearest.see(batch.columns[source.primary_key.name].to_pylist(), np.asarray(batch.inputs, np.float32))
    search = _source_search(source, opened)
    truth = (nearest.keys, nearest.ties)
    old = estimate_recall(_in_slices(search, queries), *truth) if search else None
    return old, estimate_recall(_in_slices(lambda some: _ids(copy, some), queries), *truth)


def _source_search(source: SourceCollection, opened: Collection | None) -> Search | None:
    """Search in the source; None without its encoder or an index."""
    if opened is not None:
        return lambda some: _ids(opened, some, filter=source.filter)
    if source.settings or source.index_type is None:
        return None

    def search(some: Any) -> list[list[Any]]:
        with milvus_errors(f"search {source.name!r}", filter=source.filter):
            answers = source.server.client.search(
                source.name,
                data=list(some),
                anns_field=source.vector_field,
                limit=NEIGHBOURS,
                filter=source.filter,
                search_params={"metric_type": source.metric, "params": {}},
                consistency_level="Strong",
            )
        return [list(hits.ids) for hits in answers]

    return search


def _ids(collection: Collection, queries: Any, **arguments: Any) -> list[list[Any]]:
    found = collection.search(queries, limit=NEIGHBOURS, consistency_level="Strong", **arguments)
    return [[hit.id for hit in hits] for hits in found]


def _in_slices(search: Search, queries: Any) -> list[list[Any]]:
    slices = (search(queries[start : start + QUERIES_PER_CALL]) for start in range(0, len(queries), QUERIES_PER_CALL))
    return [ids for found in slices for ids in found]
