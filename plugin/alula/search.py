"""Search an Alula collection: encode the queries, search natively, rank again, fetch what the user asked to see."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders.metric import better_is_larger
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS, Candidates, IndexType, Lowering, SearchPlan, VectorField, check_options
from alula.kernels import exact_scores, top_k
from alula.milvus import Calls, Id, NativeHits, NativeSearch, Scope, any_of

F32 = npt.NDArray[np.float32]

# Exact re-ranking fetches the candidates' vectors with the search up to this many bytes per query, and otherwise has
# Milvus score the candidates in a second search. Measured on Milvus Lite 2.5 by `make bench` (section "re-ranking").
FETCH_BYTES = 600_000
# What the answers to one native search may hold: far below gRPC's limit on both ends.
ANSWER_BYTES = 16 << 20
# Milvus Lite 2.5's time grows with the square of what is in one call: 100 queries take 0.04 s, 1,000 a second, 4,000
# hang; and of 1,000 candidates each, 5 queries take 0.02 s, 40 take 0.4 to 4 s, and 40 of 2,000 hang.
MAX_QUERIES = 100
MAX_CANDIDATES = 5_000
FETCH_ROWS = 1_000  # keeps the expression that names them far below the server's limit


@dataclass(frozen=True)
class Hit:
    """One result.

    Args:
        id: The row's primary key.
        score: In the user's metric as Milvus reports it: cosine, inner product, or squared Euclidean distance.
        exact: False when no exact vector was scored: ``score`` is then an estimate from the codes, or the inner
            product of the sparse vectors.
        fields: The output fields that were asked for.
    """

    id: Id
    score: float
    exact: bool
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RankedIds:
    """The best rows for one query, best first.

    Args:
        ids: Their primary keys.
        scores: float32 (n,): in the user's metric, or estimates.
        exact: Whether the scores are those of the exact vectors.
    """

    ids: Sequence[Id]
    scores: F32
    exact: bool

    def among(self, rows: Container[Id]) -> RankedIds:
        """Those of them that are among some rows."""
        kept = [i for i, id_ in enumerate(self.ids) if id_ in rows]
        return RankedIds([self.ids[i] for i in kept], self.scores[kept], self.exact)

    def anew(self, query: F32, vectors: F32, metric: str) -> RankedIds:
        """The same rows by the scores of vectors that were read again.

        Args:
            query: float32 (d,).
            vectors: float32 (n, d), of the rows in their order.
            metric: The user's.
        """
        scores = exact_scores(query, vectors, metric)
        order = top_k(scores, len(scores), larger=better_is_larger(metric))
        return RankedIds([self.ids[i] for i in order], scores[order], self.exact)


class Searcher:
    """Searches one collection.

    Args:
        calls: How Milvus is asked.
        name: The collection.
        primary_key: Name of its primary key field.
        index_type: Its index type.
        lowering: How that is stored there.
    """

    def __init__(self, calls: Calls, name: str, primary_key: str, index_type: IndexType, lowering: Lowering) -> None:
        self._calls = calls
        self._name = name
        self._primary_key = primary_key
        self._index_type = index_type
        self._lowering = lowering
        self._field = lowering.field

    def search(
        self,
        queries: F32,
        *,
        limit: int = 10,
        offset: int = 0,
        output_fields: Sequence[str] = (),
        rerank: int | None = None,
        scope: Scope | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[list[Hit]]:
        """The best rows for each query, with ``output_fields`` of theirs; all else as `rank`.

        Fields are read after the rows were ranked, and a row may have changed in between. What is read then counts:
        rows that are gone or do not match the filter any more are left out, and scores are those of the vectors that
        are read with the fields, unless there are too many for that (`FETCH_BYTES`).
        """
        scope = scope or Scope()
        best = self.rank(queries, limit=limit, offset=offset, rerank=rerank, scope=scope, options=options)
        ids, field = {id_ for ranked in best for id_ in ranked.ids}, self._field
        rows: dict[Id, dict[str, Any]] = {}
        if output_fields and ids:
            again = scored_again(best, len(ids), field)
            names = list(dict.fromkeys([*output_fields, field.name])) if again else output_fields
            rows = self.fetch(ids, names, scope, filtered=True)
            best = [ranked.among(rows) for ranked in best]
            if again:
                read = [np.array([rows[id_][field.name] for id_ in ranked.ids], np.float32) for ranked in best]
                best = [
                    ranked.anew(query, vectors.reshape(-1, field.dim), field.metric)
                    for ranked, query, vectors in zip(best, queries, read, strict=True)
                ]
        return [
            [
                Hit(id_, score, ranked.exact, {name: rows[id_][name] for name in output_fields})
                for id_, score in zip(ranked.ids, ranked.scores.tolist(), strict=True)
            ]
            for ranked in best
        ]

    def rank(
        self,
        queries: F32,
        *,
        limit: int,
        offset: int = 0,
        rerank: int | None = None,
        scope: Scope | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[RankedIds]:
        """The best rows for each query.

        Args:
            queries: float32 (n, d), checked.
            limit: Results per query.
            offset: Results to leave out at the start.
            rerank: How many candidates to score by their exact vectors: all by default, 0 for none.
            scope: Filter, partitions, consistency.
            options: Search options of the index type.

        Raises:
            UsageError: If an option, the limit or the filter is wrong.
            ServerError: If Milvus fails.
        """
        scope = scope or Scope()
        checked = check_options(self._index_type.search_options, options or {}, self._index_type.name)
        wanted = check_limit(limit, offset)
        check_rerank(rerank, self._field)
        plan = self._lowering.plan_search(queries, checked, wanted)
        if plan.candidates > MAX_RESULTS:
            raise UsageError(f"candidates is {plan.candidates}, and Milvus returns at most {MAX_RESULTS} per query.")
        exact = scored_exactly(rerank, plan.candidates, wanted, self._field)
        larger = better_is_larger(self._field.metric if exact else plan.estimate_metric)
        best = []
        for ids, scores in self._candidates(plan, queries, exact, scope):
            order = top_k(scores, wanted, larger=larger)[offset:]
            best.append(RankedIds([ids[i] for i in order], scores[order], exact > 0))
        return best

    def vector_of(self, id_: Id, scope: Scope) -> F32:
        """The kept vector of one row, for a "more like this" search.

        Raises:
            UsageError: If the vectors were dropped or there is no such row.
        """
        if self._field.storage == "dropped":
            raise UsageError("The vectors of this collection were dropped, so it cannot tell a row's; give the vector.")
        rows = self.fetch({id_}, [self._field.name], scope)
        if id_ not in rows:
            raise UsageError(f"The collection {self._name!r} has no row with the id {id_!r}.")
        return np.asarray(rows[id_][self._field.name], np.float32)

    def _candidates(
        self, plan: SearchPlan, queries: F32, exact: int, scope: Scope
    ) -> Iterator[tuple[Sequence[Id], F32]]:
        """Ids and scores of each query's candidates: exact scores of the best `exact`, or estimates if that is 0."""
        field = self._field
        all_exact = exact == plan.candidates
        fetch = all_exact and (field.storage == "column" or exact * 4 * field.dim <= FETCH_BYTES)
        columns = (field.name,) if fetch else () if all_exact else plan.columns
        width = 4 * field.dim if fetch else 16 + 8 * len(columns)
        step = max(1, min(MAX_QUERIES, MAX_CANDIDATES // plan.candidates, ANSWER_BYTES // (plan.candidates * width)))
        for start in range(0, len(queries), step):
            for i, found in enumerate(self._native(plan, slice(start, start + step), columns, scope), start):
                if not found.ids:
                    yield [], np.empty(0, np.float32)
                elif fetch:
                    vectors = np.asarray(found.columns[field.name], np.float32)
                    yield found.ids, exact_scores(queries[i], vectors, field.metric)
                elif all_exact:
                    yield self.score_exactly(queries[i], found.ids, scope)
                else:
                    estimates = self._lowering.estimate(plan, i, Candidates(found.scores, found.columns))
                    if exact:
                        kept = top_k(estimates, exact, larger=better_is_larger(plan.estimate_metric))
                        yield self.score_exactly(queries[i], [found.ids[k] for k in kept], scope)
                    else:
                        yield found.ids, estimates

    def _native(self, plan: SearchPlan, span: slice, columns: Sequence[str], scope: Scope) -> Sequence[NativeHits]:
        queries, filter_ = plan.queries[span], scope.filter
        native = NativeSearch(plan.field, queries, plan.metric, plan.candidates, filter_, plan.params, columns)
        return self._calls.search(native, scope)

    def score_exactly(self, query: F32, ids: Sequence[Id], scope: Scope) -> tuple[Sequence[Id], F32]:
        """Exact scores of some rows: by a second search that sees only them, or by fetching the vectors."""
        field = self._field
        if field.storage == "column":
            rows = self.fetch(set(ids), [field.name], scope)
            ids = [id_ for id_ in ids if id_ in rows]
            vectors = np.array([rows[id_][field.name] for id_ in ids], np.float32).reshape(len(ids), field.dim)
            return ids, exact_scores(query, vectors, field.metric)
        these = any_of(self._primary_key, ids)
        (found,) = self._calls.search(NativeSearch(field.name, query[np.newaxis], field.metric, len(ids), these), scope)
        return found.ids, found.scores

    def fetch(
        self, ids: set[Id], fields: Sequence[str], scope: Scope, *, filtered: bool = False
    ) -> dict[Id, dict[str, Any]]:
        """Some fields of some rows, by id; rows that are not there are left out, and if `filtered` the scope's too."""
        if not fields:
            return {}
        shown = {}
        ordered = list(ids)
        for start in range(0, len(ordered), FETCH_ROWS):
            these = any_of(self._primary_key, ordered[start : start + FETCH_ROWS])
            if filtered and scope.filter:
                these = f"({these}) and ({scope.filter})"
            found = self._calls.query(these, fields, scope)
            for i, id_ in enumerate(found.ids):
                shown[id_] = {name: found.columns[name][i] for name in fields}
        return shown


def scored_again(best: Sequence[RankedIds], rows: int, field: VectorField) -> bool:
    """Whether ranked rows, so many in all, are scored again by vectors that are read with their fields."""
    return all(ranked.exact for ranked in best) and rows * 4 * field.dim <= FETCH_BYTES


def check_limit(limit: int, offset: int, *, most: int = MAX_RESULTS) -> int:
    """The number of results to take; raise a `UsageError` when it is none that Milvus gives."""
    for name, number in (("limit", limit), ("offset", offset)):
        if not isinstance(number, int | np.integer):
            raise UsageError(f"{name} is {number!r}, and must be a whole number.")
    if limit < 1:
        raise UsageError(f"limit is {limit}, and must be at least 1.")
    if offset < 0:
        raise UsageError(f"offset is {offset}, and must be at least 0.")
    if limit + offset > most:
        raise UsageError(f"limit plus offset is {limit + offset}, and Milvus returns at most {most} per query.")
    return limit + offset


def with_defaults(
    defaults: Mapping[str, Any], rerank: int | None, options: Mapping[str, Any]
) -> tuple[int | None, dict[str, Any]]:
    """``rerank`` and the search options, a collection's defaults taken where they are not given."""
    merged = {**defaults, **options}
    stored = merged.pop("rerank", None)
    return stored if rerank is None else rerank, merged


def check_rerank(rerank: int | None, field: VectorField) -> None:
    """Raise a `UsageError` unless so many candidates can be scored by their exact vectors."""
    if rerank is not None and rerank < 0:
        raise UsageError(f"rerank is {rerank}, and must be 0 (none) or more.")
    if rerank and field.storage == "dropped":
        raise UsageError("The vectors of this collection were dropped, so nothing can be re-ranked exactly.")


def scored_exactly(rerank: int | None, candidates: int, wanted: int, field: VectorField) -> int:
    """How many of the candidates are scored by their exact vectors: 0, or as many as are wanted at least."""
    if rerank == 0 or field.storage == "dropped":
        return 0
    return candidates if rerank is None else min(max(rerank, wanted), candidates)
