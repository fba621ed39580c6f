"""The results of a search: hits, which notebooks show as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alula.milvus import Id
from alula.notebook import html_table
from alula.search.ranking import RankedIds

MAX_ROWS = 100  # of a table in a notebook
MAX_CELL = 200  # characters of a value there


@dataclass(frozen=True)
class Hit:
    """One result.

    Args:
        id: The row's primary key.
        score: In the user's metric as Milvus reports it: cosine, inner product, or squared Euclidean distance.
        exact: False when no exact vector was scored: ``score`` is then an estimate from the codes, or the inner
            product of the sparse vectors.
        fields: The output fields.
    """

    id: Id
    score: float
    exact: bool
    fields: Mapping[str, Any] = field(default_factory=dict)


class Hits(list[Hit]):
    """The hits of one query, best first."""

    def _repr_html_(self) -> str:
        """The hits as a table, for notebooks."""
        return _table([self])


class Results(list[Hits]):
    """The hits of each query."""

    def _repr_html_(self) -> str:
        """The hits of all queries as a table, for notebooks."""
        return _table(self)


def to_results(ranked: Sequence[RankedIds], fields: Mapping[str, Sequence[Any]]) -> Results:
    """Ranked rows as results.

    Args:
        ranked: The rows of each query.
        fields: Values by the name of their field, one per row, one query behind another.
    """
    start, found = 0, Results()
    columns = list(fields.values())
    for one in ranked:
        rows = zip(*(column[start : start + len(one.ids)] for column in columns), strict=True) if columns else ()
        shown = [dict(zip(fields, row, strict=True)) for row in rows] or [{} for _ in one.ids]
        scored = zip(one.ids, one.scores.tolist(), shown, strict=True)
        found.append(Hits(Hit(id_, score, one.exact, row) for id_, score, row in scored))
        start += len(one.ids)
    return found


def value_text(value: Any) -> str:
    """A field's value in a table: documents and arrays as JSON, nothing for none."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def _table(results: Sequence[Hits]) -> str:
    """The first hits, with the number of their query if there are several."""
    ranked = [(number, rank, hit) for number, hits in enumerate(results) for rank, hit in enumerate(hits, 1)]
    shown, several = ranked[:MAX_ROWS], len(results) > 1
    names = list(dict.fromkeys(name for _, _, hit in shown for name in hit.fields))
    score = "score" if all(hit.exact for _, _, hit in shown) else "estimate"
    heads = [*(["query"] if several else []), "#", "id", score, *names]
    rows = [
        [
            *([str(number)] if several else []),
            str(rank),
            str(hit.id),
            f"{hit.score:.4f}",
            *(_cut(value_text(hit.fields.get(name))) for name in names),
        ]
        for number, rank, hit in shown
    ]
    queries = f" of {len(results):,} queries" if several else ""
    first = f", the first {MAX_ROWS}" if len(shown) < len(ranked) else ""
    return html_table(f"{len(ranked):,} hits{queries}{first}", heads, rows)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}..."
