"""Queries that have relevance judgements, and the rows that these name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alula.collection import Collection
from alula.encoders import Encoder
from alula.errors import DataError, UsageError
from alula.evaluation.judgements import Relevance
from alula.evaluation.row_source import F32, Key
from alula.sources import check_finite, open_source
from alula.sources.opening import TABLES

_ID_COLUMNS = ("_id", "id", "query_id", "query-id", "qid")
_TEXT = "text"  # the column of BEIR


@dataclass(frozen=True)
class JudgedQueries:
    """Queries that have a relevant row.

    Args:
        ids: Their names in the judgements.
        inputs: For each, a vector or the input of an encoder.
        texts: For each, its text, which is its input or lies beside it in the column ``text``; None if it does not.
        relevance: For each, its judgements.
        left_out: Number of further queries in the file, which have none.
    """

    ids: Sequence[str]
    inputs: Any
    texts: list[str] | None
    relevance: Sequence[Relevance]
    left_out: int

    @property
    def relevant_rows(self) -> set[str]:
        """The rows that are relevant to any query, as text."""
        return {key for judged in self.relevance for key, value in judged.items() if value > 0}


def read_judged_queries(
    path: Path, column: str | None, encoder: Encoder, judged: Mapping[str, Relevance]
) -> JudgedQueries:
    """Read the queries that have a relevant row.

    Args:
        path: A table with a column ``_id``, ``id``, ``query_id``, ``query-id`` or ``qid``; or an array, or a text file
            with a query per line, whose queries are numbered from 0.
        column: The column of the queries. By default ``text`` if the encoder takes text.
        encoder: The encoder, which takes them.
        judged: The judgements of each query.

    Raises:
        UsageError, DataError: If the file cannot be used, or none of its queries has a relevant row.
    """
    takes = encoder.info.input
    table = path.name.lower().endswith(tuple(TABLES))
    source = open_source(path, column or (_TEXT if takes == "text" and table else None), takes)
    name = next((name for name in _ID_COLUMNS if name in source.scalars), None)
    if table and name is None:
        raise UsageError(f"{path.name} has no column of query ids; name one of its columns {_ID_COLUMNS[0]!r}.")
    ids: list[str] = []
    kept: list[Any] = []
    texts: list[str] = []
    numbers: list[str] = []
    for batch in source.batches(8192):
        check_finite(batch, source.name)
        numbers = [str(i) for i in range(batch.start, batch.start + len(batch))]
        these = numbers if name is None else [str(value) for value in batch.columns[name].to_pylist()]
        places = [i for i, id_ in enumerate(these) if any(value > 0 for value in judged.get(id_, {}).values())]
        ids += [these[i] for i in places]
        kept += [batch.inputs[i] for i in places]
        if _TEXT in source.scalars:
            texts += [str(batch.columns[_TEXT][i]) for i in places]
    total = int(numbers[-1]) + 1 if numbers else 0
    if not ids:
        raise DataError(
            f"None of the {total:,} queries of {path.name} has a relevant row in the judgements, which are of queries "
            f"like {next(iter(judged))!r}; check that both files belong together."
        )
    repeated = len(ids) - len(set(ids))
    if repeated:
        raise DataError(f"{path.name} has {repeated:,} queries with the id of another one; give each its own.")
    inputs = kept if takes == "text" else np.stack(kept)
    return JudgedQueries(
        ids, inputs, kept if takes == "text" else texts or None, [judged[id_] for id_ in ids], total - len(ids)
    )


def embedded(encoder: Encoder, queries: JudgedQueries) -> tuple[F32, float]:
    """Embed the queries.

    Returns:
        float32 (q, d), and the milliseconds that a query alone takes, 0 for vectors.
    """
    if encoder.info.input == "vectors":
        return encoder.check_vectors(queries.inputs, what="queries"), 0.0
    vectors = encoder.embed(queries.inputs, queries=True)
    started = time.perf_counter()
    some = queries.inputs[:20]
    for one in some:
        encoder.embed([one] if isinstance(one, str) else one[None], queries=True)
    return vectors, (time.perf_counter() - started) * 1e3 / len(some)


def missing_rows(collection: Collection, wanted: set[str]) -> int:
    """Count the keys that the collection does not hold.

    Raises:
        DataError: If it holds none of them.
    """
    key = collection.primary_key
    text = key.data_type == "VARCHAR"
    keys: list[Key] = [one if text else int(one) for one in wanted if text or one.lstrip("-").isdecimal()]
    found = collection.fetch(keys, [key.name]) if keys else {}
    if not found:
        raise DataError(
            f"The collection {collection.name!r} has none of the {len(wanted):,} relevant rows, {min(wanted)!r} for "
            f"instance; the judgements must name rows by the primary key {key.name!r} ({key.data_type})."
        )
    return len(wanted) - len(found)
