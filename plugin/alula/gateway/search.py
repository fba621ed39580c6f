"""Search through an index type of Alula's, answered as Milvus answers."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.encoders.metric import better_is_larger
from alula.encoders.queries import query_vectors
from alula.errors import UsageError
from alula.gateway import functions
from alula.gateway.declaration import flat
from alula.gateway.entities import check_dim, check_seen, settle_output, show, shown
from alula.gateway.session import RequestCalls, Session
from alula.gateway.upstream import pairs, refill
from alula.gateway.views import View
from alula.index_types import MAX_RESULTS
from alula.milvus import NativeHits, Scope, any_of
from alula.milvus.wire import placeholders
from alula.milvus.wire.field_data import column, join, take
from alula.milvus.wire.types import type_of
from alula.search import FETCH_ROWS, RankedIds, Searcher, check_limit, scored_again, with_defaults

F32 = npt.NDArray[np.float32]

# Of Milvus's own search parameters those that other index types take are harmless here: clients send them to every
# field, and web consoles do so without being asked.
_FOREIGN = frozenset(
    [
        "nprobe",
        "ef",
        "efSearch",
        "search_list",
        "level",
        "drop_ratio_search",
        "refine_k",
        "reorder_k",
        "itopk_size",
        "search_width",
        "min_iterations",
        "max_iterations",
        "team_size",
        "max_empty_result_buckets",
        "search_k",
        "dim_max_score_ratio",
        "rbq_query_bits",
        "hints",
        "page_retain_order",
        "mmap.enabled",
    ]
)
# What Milvus writes beside the index's own parameters.
_OUTER = frozenset(
    [
        "anns_field",
        "topk",
        "limit",
        "offset",
        "metric_type",
        "params",
        "round_decimal",
        "ignore_growing",
        "iterator",
        "collection_id",
        "guarantee_timestamp",
        "search_iter_v2",
        "search_iter_batch_size",
        "search_iter_last_bound",
        "search_iter_id",
        "strict_group_size",
        "group_size",
        "group_by_field",
        "radius",
        "range_filter",
        "rerank",
        "retrieve_limit",
        "timezone",
        "time_fields",
    ]
)
_UNSUPPORTED = ("group_by_fields", "order_by_fields", "search_aggregation", "json_path", "analyzer_name")
ITERATORS, ITERATOR_SECONDS = 64, 60.0


@dataclass(frozen=True)
class Asked:
    """What a client's search parameters ask for.

    Args:
        limit: Results per query.
        offset: Results to leave out at the start.
        options: Search options of the index type.
        rerank: How many candidates to score exactly; None for the default.
        radius: The worst score that is wanted, exclusive; None for any.
        range_filter: The best score that is wanted, inclusive; None for any.
        group_by: A field of whose values each has at most `group_size` results; "" for none.
        group_size: See `group_by`.
        decimals: Digits behind the point of the scores, -1 for all.
        iterator: Whether this is a page of a search iterator.
        walk: Of an iterator: what tells its pages from those of others; "" for the first one.
        done: Of an iterator: results that were handed out.
    """

    limit: int
    offset: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    rerank: int | None = None
    radius: float | None = None
    range_filter: float | None = None
    group_by: str = ""
    group_size: int = 1
    decimals: int = -1
    iterator: bool = False
    walk: str = ""
    done: int = 0

    @property
    def all_candidates(self) -> bool:
        """Whether more rows must be ranked than are answered with."""
        return self.radius is not None or self.range_filter is not None or bool(self.group_by) or self.iterator


def search(session: Session, request: Any) -> Any:
    """Search on the vector field of an index type; on other fields Milvus answers, of the rows that clients see."""
    known = session.known(request)
    if known.ordinary:
        return None
    params = flat(request.search_params)
    searched, view = searched_field(params, known.vector_fields), known.view
    functions.translate(request, searched, known.functions, session.encoder_of(request))
    if view is None:
        return session.caller.send("Search", request)
    check_fields(request, view, [searched])
    request.collection_name = view.collection
    if searched != view.field:
        response = session.caller.send("Search", request)
        show(response.results, view)
        return response
    asked = read(params, view)
    if asked.iterator and not asked.walk:
        asked = replace(asked, walk=uuid.uuid4().hex)
    queries = queries_of(view, request)
    _fix_moment(session, request)
    while True:
        ranked = rank(session, view, request, asked, queries)
        response = answer(session, view, request, asked, ranked, queries=queries)
        handed_out = sum(len(one.ids) for one in ranked)
        if not asked.iterator or not handed_out or len(response.results.scores):
            return response
        # an empty page would end the iterator, and only these rows are gone
        asked = replace(asked, done=asked.done + handed_out)


def check_fields(request: Any, view: View, searched: Sequence[str]) -> None:
    """Raise a `UsageError` for fields that clients cannot search or have; see `settle_output`."""
    check_seen(searched, view, request.collection_name)
    settle_output(request, view)


def _fix_moment(session: Session, request: Any) -> None:
    """Have a strongly consistent search mean now in all of its calls: each would wait for its own now, 0.2 s a time."""
    strong = request.consistency_level == common_pb2.ConsistencyLevel.Strong and not request.use_default_consistency
    if strong and not request.guarantee_timestamp:
        now = session.caller.now()
        if now:
            request.guarantee_timestamp, request.consistency_level = now, common_pb2.ConsistencyLevel.Customized


def searched_field(params: Mapping[str, Any], vector_fields: Sequence[str]) -> str:
    """The field that a search is about: the one it names, or the only one there is."""
    named = str(params.get("anns_field", ""))
    return named or (vector_fields[0] if len(vector_fields) == 1 else "")


def read(params: Mapping[str, Any], view: View) -> Asked:
    """The search parameters of a client.

    Raises:
        UsageError: If one is wrong or not supported.
    """
    for name in _UNSUPPORTED:
        if params.get(name):
            raise UsageError(f"A search through {view.settings['type']} cannot do {name}.")
    metric = str(params.get("metric_type", ""))
    if metric and metric.upper() != view.vector.metric:
        raise UsageError(f"The metric of {view.field!r} is {view.vector.metric}, and the search asks for {metric}.")
    own = {option.name: option.value_type for option in view.kind.search_options}
    options = {
        name: _whole(name, value) if own.get(name) is int else value
        for name, value in params.items()
        if name in own or name not in _OUTER | _FOREIGN
    }
    iterator = _true(params.get("iterator")) and _true(params.get("search_iter_v2"))
    limit = params.get("search_iter_batch_size") if iterator else params.get("topk", params.get("limit"))
    asked = Asked(
        limit=_whole("limit", limit if limit is not None else 10),
        offset=_whole("offset", params.get("offset", 0)),
        options=options,
        rerank=None if params.get("rerank") is None else _whole("rerank", params["rerank"]),
        radius=_number("radius", params.get("radius")),
        range_filter=_number("range_filter", params.get("range_filter")),
        group_by=str(params.get("group_by_field", "")),
        group_size=_whole("group_size", params.get("group_size", 1)),
        decimals=_whole("round_decimal", params.get("round_decimal", -1)),
        iterator=iterator,
        walk=str(params.get("search_iter_id") or ""),
        done=int(_number("search_iter_last_bound", params.get("search_iter_last_bound")) or 0),
    )
    _check_range(asked, larger=better_is_larger(view.vector.metric))
    if asked.group_by:
        _check_group(asked, view)
    return asked


def _check_range(asked: Asked, *, larger: bool) -> None:
    worst, best = asked.radius, asked.range_filter
    if worst is not None and best is not None and (best <= worst if larger else best >= worst):
        must = "greater" if larger else "less"
        raise UsageError(f"range_filter ({best:g}) must be {must} than radius ({worst:g}).")


def _check_group(asked: Asked, view: View) -> None:
    types = {f.name: f.data_type for f in view.schema.fields if f.name not in view.companions}
    name = asked.group_by
    if name not in types:
        raise UsageError(f"The collection has no field {name!r} to group by (group_by_field).")
    field_type = type_of(types[name])
    if field_type is None or not field_type.distinct:
        raise UsageError(
            f"Results cannot be grouped by {name!r}, which is {DataType(types[name]).name}: group_by_field takes whole "
            "numbers, booleans and strings."
        )
    if asked.group_size < 1:
        raise UsageError(f"group_size is {asked.group_size}, and must be 1 or more.")


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def _whole(name: str, value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UsageError(f"{name} is {str(value)[:80]!r}, and a whole number is needed.") from None


def _number(name: str, value: Any) -> float | None:
    try:
        found = None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {str(value)[:80]!r}, and a number is needed.") from None
    if found is not None and not np.isfinite(found):
        raise UsageError(f"{name} is {str(value)[:80]!r}, and a finite number is needed.")
    return found


def queries_of(view: View, request: Any) -> F32:
    """The queries of a search as vectors: float32 (n, d)."""
    if not request.placeholder_group:
        raise UsageError(f"The search has no vectors; {view.settings['type']} cannot search by the ids of rows.")
    given = placeholders.read(request.placeholder_group)
    if not isinstance(given, list):
        check_dim(given, view.lowering)
    elif view.lowering.encoder.info.input != "text":
        raise UsageError(f"The field {view.field!r} is searched with vectors: its encoder takes no texts.")
    return query_vectors(view.lowering.encoder, given)


def rank(session: Session, view: View, request: Any, asked: Asked, queries: F32) -> list[RankedIds]:
    """The best rows for each of the queries of a search, as `asked`."""
    check_limit(asked.limit, asked.offset)
    rerank, options = with_defaults(view.defaults, asked.rerank, asked.options)
    calls = RequestCalls(session.caller, view, request)
    searcher = Searcher(calls, view.collection, view.primary_key.name, view.kind, view.lowering)
    scope = Scope(filter=request.dsl)
    if not asked.all_candidates:
        return searcher.rank(
            queries, limit=asked.limit, offset=asked.offset, rerank=rerank, scope=scope, options=options
        )
    wanted = MAX_RESULTS if asked.iterator else min(MAX_RESULTS, max(1000, 10 * (asked.limit + asked.offset)))
    wanted = max(options.get("candidates") or wanted, asked.limit + asked.offset)

    def everything() -> list[RankedIds]:
        return searcher.rank(queries, limit=wanted, rerank=rerank, scope=scope, options=options)

    larger = better_is_larger(view.vector.metric)
    if asked.iterator:
        found = _ITERATED.get(_identity(session, view, request, asked), everything)
        start = asked.offset + asked.done
        return [_part(_in_range(one, asked, larger=larger), start, asked.limit) for one in found]
    found = [_in_range(one, asked, larger=larger) for one in everything()]
    if asked.group_by:
        return [_grouped(calls, one, asked) for one in found]
    return [_part(one, asked.offset, asked.limit) for one in found]


def _part(ranked: RankedIds, start: int, count: int) -> RankedIds:
    return RankedIds(ranked.ids[start : start + count], ranked.scores[start : start + count], ranked.exact)


def _in_range(ranked: RankedIds, asked: Asked, *, larger: bool) -> RankedIds:
    """Those within radius and range filter, which Milvus reads as: worse than neither, the filter's own score included.

    The radius itself is outside, as in Milvus.
    """
    signed = ranked.scores if larger else -ranked.scores
    kept = np.ones(len(signed), bool)
    if asked.radius is not None:
        kept &= signed > (asked.radius if larger else -asked.radius)
    if asked.range_filter is not None:
        kept &= signed <= (asked.range_filter if larger else -asked.range_filter)
    places = np.flatnonzero(kept).tolist()
    return RankedIds([ranked.ids[i] for i in places], ranked.scores[places], ranked.exact)


def _grouped(calls: RequestCalls, ranked: RankedIds, asked: Asked) -> RankedIds:
    """The best of each group: `limit` groups after the first `offset`, of each `group_size` rows at most."""
    values: dict[Any, Any] = {}
    for rows in fetched(calls, ranked.ids, [asked.group_by]):
        values |= dict(zip(rows.ids, rows.columns[asked.group_by], strict=True))
    groups: OrderedDict[Any, list[int]] = OrderedDict()
    for i, id_ in enumerate(ranked.ids):
        if id_ in values:
            groups.setdefault(values[id_], []).append(i)
    chosen = list(groups.values())[asked.offset : asked.offset + asked.limit]
    places = [i for group in chosen for i in group[: asked.group_size]]
    return RankedIds([ranked.ids[i] for i in places], ranked.scores[places], ranked.exact)


def fetched(calls: RequestCalls, ids: Sequence[Any], fields: Sequence[str]) -> list[NativeHits]:
    """Some fields of some rows, in no order."""
    key = calls.key
    pieces = [ids[i : i + FETCH_ROWS] for i in range(0, len(ids), FETCH_ROWS)]
    return [calls.query(any_of(key, piece), fields, Scope()) for piece in pieces]


class _Iterated:
    """What iterators walk over, kept for a minute so that a page need not search anew; without it pages are slower."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, list[RankedIds]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, identity: bytes, search: Callable[[], list[RankedIds]]) -> list[RankedIds]:
        with self._lock:
            found = self._kept.get(identity)
        if found is None or time.monotonic() - found[0] > ITERATOR_SECONDS:
            found = (time.monotonic(), search())
        with self._lock:
            self._kept[identity] = (time.monotonic(), found[1])
            self._kept.move_to_end(identity)
            while len(self._kept) > ITERATORS:
                self._kept.popitem(last=False)
        return found[1]


_ITERATED = _Iterated()


def _identity(session: Session, view: View, request: Any, asked: Asked) -> bytes:
    """What makes two pages those of one iterator: its token, all of its request but how far it is, and who asks."""
    own = milvus_pb2.SearchRequest()
    own.CopyFrom(request)
    own.guarantee_timestamp = 0
    progress = ("topk", "limit", "search_iter_batch_size", "search_iter_last_bound", "search_iter_id")
    params = flat(own.search_params)
    for name in (*progress, "params", "guarantee_timestamp"):
        params.pop(name, None)
    refill(own.search_params, pairs(sorted(params.items())))
    login = [value for key, value in session.caller.metadata if key in ("authorization", "dbname")]
    others = repr((asked.walk, login, sorted(view.settings.items())))
    return hashlib.sha256(own.SerializeToString(deterministic=True) + others.encode()).digest()


def answer(
    session: Session,
    view: View,
    request: Any,
    asked: Asked,
    ranked: Sequence[RankedIds],
    *,
    queries: F32 | None = None,
) -> Any:
    """Ranked rows as Milvus's ``SearchResults``, with the output fields that the client wants.

    These are read after the rows were ranked, and a row may have changed in between. What is read then counts: with the
    queries, its vector is read too and the row scored anew, so that score, fields and filter are those of one moment.
    """
    handed_out = asked.done + sum(len(one.ids) for one in ranked)
    response = milvus_pb2.SearchResults(collection_name=request.collection_name, status=common_pb2.Status())
    data, key = response.results, view.primary_key
    names = [*request.output_fields, *([asked.group_by] if asked.group_by else [])]
    calls = RequestCalls(session.caller, view, request)
    rows = None
    if names:
        rows = _Rows(calls, view, ranked, names, None if asked.all_candidates else queries)
        ranked = [rows.now(i, one) for i, one in enumerate(ranked)]
    ids = [id_ for one in ranked for id_ in one.ids]
    scores = np.concatenate([np.empty(0, np.float32), *(one.scores for one in ranked)])
    data.primary_field_name = key.name
    data.num_queries, data.top_k = len(ranked), max((len(one.ids) for one in ranked), default=0)
    data.topks.extend(len(one.ids) for one in ranked)
    data.scores.extend((np.round(scores, asked.decimals) if asked.decimals >= 0 else scores).tolist())
    listed = data.ids.str_id if key.data_type == DataType.VARCHAR else data.ids.int_id
    listed.data.extend(ids)
    if rows:
        for column_ in rows.columns(ids):
            if column_.field_name == asked.group_by:
                data.group_by_field_value.CopyFrom(column_)
            if column_.field_name != asked.group_by or asked.group_by in request.output_fields:
                data.fields_data.append(column_)
        # of dynamic fields clients show those that are named here, and all of them where none is
        data.output_fields.extend(request.output_fields)
    if asked.iterator:
        data.search_iterator_v2_results.token = asked.walk
        # how many rows were handed out: a float of 24 bits is exact for as many as a search can rank
        data.search_iterator_v2_results.last_bound = handed_out
    return response


class _Rows:
    """The output fields of ranked rows.

    Args:
        calls: The client's calls.
        view: The collection.
        ranked: The rows of each query.
        names: The fields.
        queries: Vectors to score the rows by anew; None to leave the scores.
    """

    def __init__(
        self, calls: RequestCalls, view: View, ranked: Sequence[RankedIds], names: Sequence[str], queries: F32 | None
    ) -> None:
        ids = list(dict.fromkeys(id_ for one in ranked for id_ in one.ids))
        field = view.vector
        again = queries is not None and scored_again(ranked, len(ids), field)
        self._key, self._metric = view.primary_key.name, field.metric
        self._queries = queries if again else None
        self._hidden = {name for name, hide in ((self._key, True), (field.name, again)) if hide} - set(names)
        pieces = [ids[i : i + FETCH_ROWS] for i in range(0, len(ids), FETCH_ROWS)]
        wanted = [*names, field.name] if again else names
        answers = [calls.fetch(any_of(self._key, piece), wanted, filtered=True) for piece in pieces]
        fetched = [shown(answer.fields_data, view) for answer in answers]
        self._fields = [join(parts) for parts in zip(*fetched, strict=True)]
        held = {data.field_name: column(data) for data in self._fields if data.field_name in (self._key, field.name)}
        keys: Any = held.get(self._key, [])
        keys = keys.tolist() if isinstance(keys, np.ndarray) else keys
        self._places = {id_: place for place, id_ in enumerate(keys)}
        self._vectors: Any = held.get(field.name)

    def now(self, number: int, ranked: RankedIds) -> RankedIds:
        """Those rows of a query that still exist, in the order of their scores now."""
        kept = ranked.among(self._places)
        if self._queries is None or not kept.ids:
            return kept
        vectors = np.asarray(self._vectors[[self._places[id_] for id_ in kept.ids]], np.float32)
        return kept.anew(self._queries[number], vectors, self._metric)

    def columns(self, ids: Sequence[Any]) -> list[Any]:
        """The fields of rows in their order, a row as often as it is named."""
        order = [self._places[id_] for id_ in ids]
        return [take(field, order) for field in self._fields if field.field_name not in self._hidden]
