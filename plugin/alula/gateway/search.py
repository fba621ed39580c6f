"""Search through an index type of Alula's, answered as Milvus answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType
from pymilvus.grpc_gen import common_pb2, milvus_pb2
from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel

from alula.encoders.metric import better_is_larger
from alula.encoders.queries import query_vectors
from alula.errors import UsageError
from alula.gateway import function_values
from alula.gateway.declaration import flat
from alula.gateway.entities import check_dim, check_visible, expand_output, show
from alula.gateway.search_calls import FieldRows, RequestCalls
from alula.gateway.search_iterators import IteratorCache, iterator_identity
from alula.gateway.search_params import SearchParams, check_honoured, read_params, searched_field
from alula.gateway.session import Session
from alula.gateway.views import View
from alula.index_types import MAX_RESULTS, candidate_counts
from alula.milvus import Scope
from alula.milvus.wire import placeholders
from alula.milvus.wire.placeholders import Queries
from alula.search import RankedIds, Searcher, SearchRequest
from alula.search.ranking import all_ids, all_scores

F32 = npt.NDArray[np.float32]
PIECE_QUERIES = 200  # to encode at once: a query may become some hundred KB
MAX_RANKED = 1 << 23  # candidates of all queries of a search
SELECT_DEPTH = 1000  # rows to rank at first where not every ranked row is a result
EVENTUALLY_TIMESTAMP, BOUNDED_TIMESTAMP = 1, 2  # which Milvus reads as consistency levels

_ITERATORS = IteratorCache()


def search(session: Session, request: Any) -> Any:
    """Search the vector field of an index type; searches of other fields go to Milvus."""
    info = session.info(request)
    if info.ordinary:
        return None
    given = flat(request.search_params)
    searched, view = searched_field(given, info.vector_fields), info.view
    function_values.translate(request, searched, info.functions, session.encoder_of(request), session.caller.check)
    if view is None:
        request.collection_name = info.name
        return session.caller.send("Search", request)
    check_fields(request, view, [searched])
    request.collection_name = view.collection
    if searched != view.field:
        response = session.caller.send("Search", request)
        show(response.results, view)
        return response
    check_honoured(request, view)
    params = read_params(given, view)
    if params.iterator and not params.iterator_id:
        params = replace(params, iterator_id=uuid.uuid4().hex)
    queries = queries_of(view, request)
    # scores are computed again where few rows are read, so not for many queries
    vectors = None
    if len(queries) <= PIECE_QUERIES:
        queries = vectors = query_vectors(view.lowering.encoder, queries) if isinstance(queries, list) else queries
    pin_snapshot(session, view, request)
    while True:
        ranked = rank(session, view, request, params, queries)
        response = answer(session, view, request, params, ranked, queries=vectors)
        returned = sum(len(one.ids) for one in ranked)
        if not params.iterator or not returned or len(response.results.scores):
            return response
        # an empty page would end the iterator, and only these rows are gone
        params = replace(params, returned=params.returned + returned)


def check_fields(request: Any, view: View, searched: Sequence[str]) -> None:
    """Raise a `UsageError` for fields that clients cannot search or read."""
    check_visible(searched, view, request.collection_name)
    expand_output(request, view)


def pin_snapshot(session: Session, view: View, request: Any) -> None:
    """Give a search without a timestamp the one of its consistency level.

    A Strong search gets one for all its calls: each would wait 0.2 s. The others get the numbers that stand for their
    levels: Milvus 2.3 reads the vectors among a search's output fields by a query that keeps the timestamp and not the
    level, and that is Strong without one.
    """
    if request.guarantee_timestamp:
        return
    level = view.consistency if request.use_default_consistency else request.consistency_level
    if level != ConsistencyLevel.Strong:
        request.guarantee_timestamp = BOUNDED_TIMESTAMP if level == ConsistencyLevel.Bounded else EVENTUALLY_TIMESTAMP
        return
    now = session.caller.now()
    if now:
        request.guarantee_timestamp, request.consistency_level = now, ConsistencyLevel.Customized
        request.use_default_consistency = False


def queries_of(view: View, request: Any) -> Queries:
    """The queries of a search: checked vectors float32 (n, d), or n texts."""
    if not request.placeholder_group or request.search_by_primary_keys:
        raise UsageError(f"The search has no vectors; {view.settings['type']} cannot search by the ids of rows.")
    given = function_values.check_lengths(placeholders.read(request.placeholder_group))
    if not isinstance(given, list):
        check_dim(given, view.lowering)
    elif view.lowering.encoder.info.input != "text":
        raise UsageError(f"The field {view.field!r} is searched with vectors: its encoder takes no texts.")
    # a vector takes as much as the client sent, and the embedding of a text may take far more
    return given if isinstance(given, list) else query_vectors(view.lowering.encoder, given)


def rank(session: Session, view: View, request: Any, params: SearchParams, queries: Queries) -> list[RankedIds]:
    """The rows of a page for each of the queries of a search, encoded in pieces."""
    if params.iterator and len(queries) > 1:
        raise UsageError(f"A search iterator takes one query, and {len(queries):,} were given.")
    ranked: list[RankedIds] = []
    searcher = _searcher(session, view, request)
    for start in range(0, len(queries), PIECE_QUERIES):
        session.caller.check()
        some = queries[start : start + PIECE_QUERIES]
        checked = _checked(view, request, params, some)
        _check_work(view, checked, len(queries))
        ranked.extend(_rank_piece(session, view, request, params, checked, searcher=searcher))
    return ranked


def _checked(view: View, request: Any, params: SearchParams, queries: Queries) -> SearchRequest:
    return SearchRequest.build(
        view.lowering,
        view.index_type,
        queries,
        limit=params.limit,
        offset=params.offset,
        filter=request.dsl,
        options=params.options,
        defaults=view.defaults,
    )


def _rank_piece(
    session: Session, view: View, request: Any, params: SearchParams, checked: SearchRequest, *, searcher: Searcher
) -> list[RankedIds]:
    if not params.selects:
        return searcher.rank(checked)
    own_depth = {**view.defaults, **params.options}.get("candidates") is not None
    if params.iterator:
        depth = 0 if own_depth else MAX_RESULTS

        def search() -> list[RankedIds]:
            return searcher.rank(checked, enough=lambda *_: False, depth=depth)

        ranked = _ITERATORS.get(iterator_identity(session, view, request, params), search)
        larger, start = better_is_larger(view.vector.metric), params.offset + params.returned
        return [_in_range(one, params, larger=larger).page(start, params.limit) for one in ranked]
    selected = _Selection(view, params, lambda ids: searcher.fetch(ids, [params.group_by], checked.scope))
    ranked = searcher.rank(checked, enough=selected.complete, depth=0 if own_depth else SELECT_DEPTH)
    return [selected.page(one) for one in ranked]


def _check_work(view: View, checked: SearchRequest, queries: int) -> None:
    """Raise a `UsageError` if a search ranks more rows than one call may."""
    candidates = checked.wanted
    if {"oversample", "candidates"} <= checked.options.keys():
        native, _ = candidate_counts(checked.options, checked.limit, oversample=view.index_type.oversample)
        candidates = max(candidates, native)
    if candidates * queries > MAX_RANKED:
        raise UsageError(
            f"{queries:,} queries with {candidates:,} candidates each are too many for one search: at most "
            f"{MAX_RANKED:,} candidates are ranked. Send {MAX_RANKED // candidates:,} queries at a time."
        )


def _searcher(session: Session, view: View, request: Any) -> Searcher:
    calls = RequestCalls(session.caller, view, request)
    return Searcher(calls, view.collection, view.primary_key.name, view.index_type, view.lowering)


class _Selection:
    """Selects results among ranked rows: a range of scores, or the best of each group.

    The results of a longer ranking begin with those of a shorter one, so that pages fit together. Ranking ends with the
    first stage without a score in the range. A group has only rows of the stage in which it begins.

    Args:
        view: The collection.
        params: The range and the groups.
        fetch: Reads the field to group by of some rows: by id, by field.
    """

    def __init__(
        self, view: View, params: SearchParams, fetch: Callable[[Sequence[Any]], dict[Any, dict[str, Any]]]
    ) -> None:
        self._params = params
        self._fetch = fetch
        self._values: dict[Any, Any] = {}
        self._larger = better_is_larger(view.vector.metric)

    def complete(self, number: int, ranked: RankedIds) -> bool:
        """True if a query's ranking has all results of the page."""
        del number
        params = self._params
        if params.radius is not None:
            best = float(ranked.last_stage().scores[0])
            if (best <= params.radius) if self._larger else (best >= params.radius):
                return True
        found = _in_range(ranked, params, larger=self._larger)
        return len(self._groups(found) if params.group_by else found.ids) >= params.offset + params.limit

    def page(self, ranked: RankedIds) -> RankedIds:
        """The results of the page: rows, or rows of as many groups."""
        params = self._params
        found = _in_range(ranked, params, larger=self._larger)
        if not params.group_by:
            return found.page(params.offset, params.limit)
        chosen = self._groups(found)[params.offset : params.offset + params.limit]
        return found.take([i for group in chosen for i in group[: params.group_size]])

    def _groups(self, ranked: RankedIds) -> list[list[int]]:
        """The positions of the rows of each group, the group of the best row first."""
        name = self._params.group_by
        unknown = [id_ for id_ in ranked.ids if id_ not in self._values]
        self._values |= {id_: row[name] for id_, row in self._fetch(unknown).items()}
        groups: dict[Any, list[int]] = {}
        stages = ranked.stage_numbers.tolist()
        for i, id_ in enumerate(ranked.ids):
            if id_ in self._values:
                group = groups.setdefault(self._values[id_], [i])
                if group[-1] != i and stages[group[0]] == stages[i]:
                    group.append(i)
        return list(groups.values())


def _in_range(ranked: RankedIds, params: SearchParams, *, larger: bool) -> RankedIds:
    """Keep scores between radius (exclusive) and range filter (inclusive)."""
    if not params.in_range:
        return ranked
    signed = ranked.scores if larger else -ranked.scores
    kept = np.ones(len(signed), bool)
    if params.radius is not None:
        kept &= signed > (params.radius if larger else -params.radius)
    if params.range_filter is not None:
        kept &= signed <= (params.range_filter if larger else -params.range_filter)
    return ranked.take(np.flatnonzero(kept).tolist())


def answer(
    session: Session,
    view: View,
    request: Any,
    params: SearchParams,
    ranked: Sequence[RankedIds],
    *,
    queries: F32 | None = None,
) -> Any:
    """Ranked rows and the client's output fields as Milvus's ``SearchResults``.

    Args:
        session: The call.
        view: The collection.
        request: The client's search.
        params: Its parameters.
        ranked: The rows of each query.
        queries: float32 (n, d), to score rows by the vectors that are read with the fields; None to leave the scores.
    """
    returned = params.returned + sum(len(one.ids) for one in ranked)
    names = [*request.output_fields, *([params.group_by] if params.group_by else [])]
    scope = Scope(filter=request.dsl)
    searcher = _searcher(session, view, request)
    ranked, rows = searcher.read_fields(ranked, names, scope, None if params.selects else queries)
    response = milvus_pb2.SearchResults(collection_name=request.collection_name, status=common_pb2.Status())
    data, key, scores = response.results, view.primary_key, all_scores(ranked)
    data.primary_field_name = key.name
    data.num_queries, data.top_k = len(ranked), max((len(one.ids) for one in ranked), default=0)
    data.topks.extend(len(one.ids) for one in ranked)
    data.scores.extend((np.round(scores, params.decimals) if params.decimals >= 0 else scores).tolist())
    listed = data.ids.str_id if key.data_type == DataType.VARCHAR else data.ids.int_id
    listed.data.extend(all_ids(ranked))
    hidden = {key.name, view.field} - set(names)
    for column in rows.fields if isinstance(rows, FieldRows) else ():
        if column.field_name == params.group_by:
            data.group_by_field_value.CopyFrom(column)
        if column.field_name in request.output_fields or column.field_name not in {*hidden, params.group_by}:
            data.fields_data.append(column)
    # of dynamic fields clients show those that are named here, and all of them if no name is
    data.output_fields.extend(request.output_fields)
    if params.iterator:
        data.search_iterator_v2_results.token = params.iterator_id
        # a float of 24 bits is exact for as many rows as a search can rank
        data.search_iterator_v2_results.last_bound = returned
    return response
