"""Run searches in Milvus: candidates, exact scores, and fields read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders.metric import better_is_larger
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS, Candidates, IndexType, Lowering, SearchPlan, VectorField
from alula.kernels import exact_scores
from alula.milvus import Calls, Id, NativeHits, NativeSearch, RowSet, Scope
from alula.milvus.dialect import CANDIDATES_PER_CALL, QUERIES_PER_CALL
from alula.search.hits import Results, to_results
from alula.search.ranking import RankedIds, all_ids, best_first, rank_in_stages, stage_depths
from alula.search.request import SearchRequest

F32 = npt.NDArray[np.float32]

# Exact re-ranking fetches the candidates' vectors with the search up to this many bytes per query, and otherwise has
# Milvus score the candidates in a second search. Measured on Milvus Lite 2.5 by `make bench` (section "re-ranking").
FETCH_BYTES = 600_000
# Most bytes in the response to one native search: far below gRPC's limit on both ends.
RESPONSE_BYTES = 16 << 20
FETCH_ROWS = 1_000  # keeps the expression that names them far below the server's limit
TIED = 16  # rows behind the needed ones that show whether rows with the last one's score were left out


class Searcher:
    """Searches one collection.

    Args:
        calls: Sends searches and reads to Milvus.
        name: The collection.
        primary_key: Name of its primary key field.
        index_type: Its index type.
        lowering: The lowering of that type in this collection.
    """

    def __init__(self, calls: Calls, name: str, primary_key: str, index_type: IndexType, lowering: Lowering) -> None:
        self._calls = calls
        self._name = name
        self._primary_key = primary_key
        self._index_type = index_type
        self._lowering = lowering
        self._field = lowering.field
        self._bytes = {spec.name: spec.bytes_per_row for spec in lowering.fields}

    def search(self, request: SearchRequest) -> Results:
        """The best rows for each query; see `rank` and `read_fields`.

        Raises:
            UsageError: If an option or the filter is wrong.
            ServerError: If Milvus fails.
        """
        request = replace(request, scope=self._calls.pinned(request.scope))
        ranked, rows = self.read_fields(self.rank(request), request.output_fields, request.scope, request.queries)
        fields = {name: rows.values(name) for name in request.output_fields} if rows else {}
        return to_results(ranked, fields)

    def rank(
        self,
        request: SearchRequest,
        *,
        enough: Callable[[int, RankedIds], bool] | None = None,
        depth: int = 0,
    ) -> list[RankedIds]:
        """The best rows for each query, ranked in stages (`alula.search.ranking`).

        Args:
            request: The search.
            enough: Decides by the number and the ranking of a query if it is long enough; rankings are then returned
                whole. By default they are cut to the requested page.
            depth: Rows to rank in the first stage, if that is more than the index type's candidates.

        Raises:
            UsageError: If an option or the filter is wrong.
            ServerError: If Milvus fails.
        """
        queries, wanted = request.queries, MAX_RESULTS if enough else request.wanted
        plan = self._lowering.plan_search(queries, request.options, request.limit)
        if plan.candidates > MAX_RESULTS:
            raise UsageError(f"candidates is {plan.candidates}, and Milvus returns at most {MAX_RESULTS} per query.")
        reranks = plan.rerank if request.rerank is None else request.rerank
        # where the searched field must be read by id to rank by it, exact scores of all candidates cost less
        if self._field.storage == "dropped" or (self._read_by_id(plan, plan.columns) and request.rerank is None):
            reranks = None
        elif reranks and request.options.get("candidates") is None:
            plan = replace(plan, candidates=max(plan.candidates, min(reranks, MAX_RESULTS)))
        first = max(depth, min(plan.candidates, reranks or plan.candidates))

        def rank_stage(numbers: Sequence[int], depth: int) -> list[RankedIds]:
            deep = replace(plan, candidates=max(plan.candidates, depth))
            exact = scored_exactly(reranks, deep.candidates, depth, self._field)
            larger = better_is_larger(self._field.metric if exact else plan.estimate_metric)
            keep = min(depth, wanted)
            return [
                best_first(ids, scores, keep, larger=larger, exact=exact > 0)
                for ids, scores in self._candidates(deep, queries, numbers, exact, request.scope, keep=keep)
            ]

        depths = stage_depths(first, wanted)
        ranked = rank_in_stages(rank_stage, len(queries), depths, enough or (lambda _, one: len(one.ids) >= wanted))
        return ranked if enough else [one.page(request.offset, request.limit) for one in ranked]

    def read_fields(
        self, ranked: Sequence[RankedIds], fields: Sequence[str], scope: Scope, queries: F32 | None = None
    ) -> tuple[Sequence[RankedIds], RowSet | None]:
        """Read fields of ranked rows, which may have changed since they were ranked.

        The values read now count: rows that are gone or do not match the filter any more are left out, and scores are
        computed again from vectors that are read with the fields, unless there are too many (`FETCH_BYTES`).

        Args:
            ranked: The rows of each query.
            fields: Fields to read.
            scope: The scope of the search.
            queries: float32 (n, d); None to leave the scores.

        Returns:
            The ranking of each query, and all their rows, one query behind another; None without fields or rows.
        """
        ids = list(dict.fromkeys(all_ids(ranked)))
        if not fields or not ids:
            return ranked, None
        name, small = self._field.name, len(ids) * self._field.vector_bytes <= FETCH_BYTES
        again = queries is not None and small and all(one.exact for one in ranked)
        rows = self.read_rows(ids, [*fields, name] if again else fields, scope, filtered=True)
        places = {id_: place for place, id_ in enumerate(rows.ids)}
        ranked = [one.restricted_to(places) for one in ranked]
        if again and queries is not None and places:
            vectors = rows.vectors(name)
            ranked = [
                one.rescored(query, vectors[[places[id_] for id_ in one.ids]], self._field.metric)
                for one, query in zip(ranked, queries, strict=True)
            ]
        return ranked, rows.take([places[id_] for id_ in all_ids(ranked)])

    def vector_of(self, id_: Id, scope: Scope) -> F32:
        """The kept vector of one row, for a "more like this" search.

        Raises:
            UsageError: If the vectors were dropped or there is no such row.
        """
        if self._field.storage == "dropped":
            raise UsageError(
                "This collection keeps no vectors, because they were dropped, so it cannot look one up by id; pass the "
                "query vector instead."
            )
        rows = self.read_rows([id_], [self._field.name], scope)
        if not rows.ids:
            raise UsageError(f"The collection {self._name!r} has no row with the id {id_!r}.")
        vector: F32 = rows.vectors(self._field.name)[0]
        return vector

    def score_exactly(
        self, query: F32, ids: Sequence[Id], scope: Scope, most: int | None = None
    ) -> tuple[Sequence[Id], F32]:
        """Exact scores of some rows, by a second search among them or by their vectors.

        Args:
            query: float32 (d,).
            ids: The rows.
            scope: The scope of the search.
            most: The rows that are needed, of the best scores; a second search then answers with these and with all
                that are as good as the last of them.
        """
        field = self._field
        if field.storage == "column":
            rows = self.read_rows(ids, [field.name], scope, filtered=True)
            vectors = rows.vectors(field.name) if rows.ids else np.empty((0, field.dim), np.float32)
            return rows.ids, exact_scores(query, vectors, field.metric)
        queries = query[np.newaxis]
        native = NativeSearch(field.name, queries, field.metric, len(ids), ids, query_type=field.vector_type)
        if most is not None and most + TIED < len(ids):
            (found,) = self._calls.search(replace(native, limit=most + TIED), scope)
            if len(found.ids) < most + TIED or found.scores[most - 1] != found.scores[-1]:
                return found.ids, found.scores
        (found,) = self._calls.search(native, scope)
        return found.ids, found.scores

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], scope: Scope) -> dict[Id, dict[str, Any]]:
        """Some fields of some rows, by id; rows that do not exist are left out."""
        if not fields or not ids:
            return {}
        rows = self.read_rows(ids, fields, scope)
        columns = [rows.values(name) for name in fields]
        return {id_: dict(zip(fields, row, strict=True)) for id_, *row in zip(rows.ids, *columns, strict=True)}

    def read_rows(self, ids: Sequence[Id], fields: Sequence[str], scope: Scope, *, filtered: bool = False) -> RowSet:
        """Fields of one or more rows, if `filtered` only of rows in the scope's filter."""
        parts = [ids[i : i + FETCH_ROWS] for i in range(0, len(ids), FETCH_ROWS)]
        first, *others = (self._calls.fetch(part, fields, scope, filtered=filtered) for part in parts)
        return first.followed_by(others) if others else first

    def _candidates(
        self, plan: SearchPlan, queries: F32, numbers: Sequence[int], exact: int, scope: Scope, *, keep: int
    ) -> Iterator[tuple[Sequence[Id], F32]]:
        """Ids and scores of some queries' candidates, the best `keep` of them at least.

        Scores are exact for the best `exact` candidates, which alone are returned, or estimates if that is 0.
        """
        field = self._field
        all_exact = exact == plan.candidates
        returned = field.vector_type == "FLOAT_VECTOR" or self._calls.dialect.returns_half
        few = returned and exact * field.vector_bytes <= FETCH_BYTES
        fetch = all_exact and (field.storage == "column" or few)
        columns = (field.name,) if fetch else () if all_exact else plan.columns
        width = field.vector_bytes if fetch else 16 + sum(self._bytes[name] for name in columns)
        most = min(RESPONSE_BYTES, self._calls.dialect.vector_bytes) if fetch else RESPONSE_BYTES
        step = max(1, min(QUERIES_PER_CALL, CANDIDATES_PER_CALL // plan.candidates, most // (plan.candidates * width)))
        for start in range(0, len(numbers), step):
            some = numbers[start : start + step]
            for i, found in zip(some, self._native(plan, some, columns, scope), strict=True):
                if not found.ids:
                    yield [], np.empty(0, np.float32)
                elif fetch:
                    vectors = np.asarray(found.columns[field.name], np.float32)
                    yield found.ids, exact_scores(queries[i], vectors, field.metric)
                elif all_exact:
                    yield self.score_exactly(queries[i], found.ids, scope, keep)
                else:
                    estimates = self._lowering.estimate(plan, i, Candidates(found.scores, found.columns))
                    if exact:
                        better = better_is_larger(plan.estimate_metric)
                        kept = best_first(found.ids, estimates, exact, larger=better, exact=False)
                        yield self.score_exactly(queries[i], kept.ids, scope, keep)
                    else:
                        yield found.ids, estimates

    def _read_by_id(self, plan: SearchPlan, columns: Sequence[str]) -> bool:
        """True if a column is the searched field, which the search cannot return."""
        return plan.field in columns and not self._calls.dialect.returns_searched

    def _native(
        self, plan: SearchPlan, numbers: Sequence[int], columns: Sequence[str], scope: Scope
    ) -> Sequence[NativeHits]:
        queries = [plan.queries[i] for i in numbers]
        missing = self._read_by_id(plan, columns)
        answered = [name for name in columns if not (missing and name == plan.field)]
        candidates, params = plan.candidates, plan.native_params
        native = NativeSearch(plan.field, queries, plan.metric, candidates, params=params, columns=answered)
        found = self._calls.search(native, scope)
        return self._with_searched(found, plan.field, scope) if missing else found

    def _with_searched(self, found: Sequence[NativeHits], name: str, scope: Scope) -> Sequence[NativeHits]:
        """Add the searched binary field, read by id; leave out rows that are gone."""
        ids = list(dict.fromkeys(id_ for hits in found for id_ in hits.ids))
        if not ids:
            return found
        rows = self.read_rows(ids, [name], scope, filtered=True)
        places, content = {id_: place for place, id_ in enumerate(rows.ids)}, rows.binary(name)
        completed = []
        for hits in found:
            kept = [i for i, id_ in enumerate(hits.ids) if id_ in places]
            columns = {column: values[kept] for column, values in hits.columns.items()}
            columns[name] = content[[places[hits.ids[i]] for i in kept]]
            completed.append(NativeHits([hits.ids[i] for i in kept], hits.scores[kept], columns))
        return completed


def scored_exactly(rerank: int | None, candidates: int, depth: int, field: VectorField) -> int:
    """The number of candidates to score exactly: 0, or at least the stage's depth."""
    if rerank == 0 or field.storage == "dropped":
        return 0
    return candidates if rerank is None else min(max(rerank, depth), candidates)
