"""Hybrid searches: run the parts here or in Milvus, and fuse their rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymilvus.grpc_gen import milvus_pb2

from alula.errors import UsageError
from alula.gateway import function_values, fusion
from alula.gateway import search as searching
from alula.gateway.declaration import flat
from alula.gateway.entities import show
from alula.gateway.search_calls import SHARED, read_hits, shared
from alula.gateway.search_params import SearchParams, check_honoured, read_params, searched_field
from alula.gateway.session import Session
from alula.gateway.upstream import pairs, refill
from alula.gateway.views import View, describe_indexes
from alula.search import RankedIds


def search(session: Session, request: Any) -> Any:
    """HybridSearch; Milvus answers it if no part searches an index type of Alula's."""
    info = session.info(request)
    if info.ordinary:
        return None
    view = info.view
    params = [flat(sub.search_params) for sub in request.requests]
    fields = [searched_field(given, info.vector_fields) for given in params]
    for sub, field in zip(request.requests, fields, strict=True):
        function_values.translate(sub, field, info.functions, session.encoder_of(request), session.caller.check)
    if view is None:
        request.collection_name = info.name
        for sub in request.requests:
            sub.collection_name = info.name
        return session.caller.send("HybridSearch", request)
    searching.check_fields(request, view, fields)
    request.collection_name = view.collection
    if view.field not in fields:
        for sub in request.requests:
            sub.collection_name = view.collection
        response = session.caller.send("HybridSearch", request)
        show(response.results, view)
        return response
    return _fused(session, view, request, fields, params)


def _fused(
    session: Session, view: View, request: Any, fields: Sequence[str], params: Sequence[Mapping[str, Any]]
) -> Any:
    """The results of a hybrid search with at least one search of an index type."""
    wanted = fusion.read(request)
    check_honoured(request, view)
    searching.pin_snapshot(session, view, request)
    rankings = []
    for sub, field, given in zip(request.requests, fields, params, strict=True):
        check_honoured(sub, view)
        for name in SHARED:
            sub.ClearField(name)
        for name, value in shared(request).items():
            setattr(sub, name, value)
        sub.collection_name = view.collection
        del sub.partition_names[:], sub.output_fields[:]
        sub.partition_names.extend(request.partition_names)
        # Milvus reads no offset here, and clients send that of the whole
        merged = {"topk": wanted.limit + wanted.offset, **given, "offset": 0}
        rankings.append(_rankings(session, view, sub, field, merged))
    counts = {len(one) for one in rankings}
    if len(counts) > 1:
        raise UsageError(
            "The searches of a hybrid search must have as many queries each; these have different numbers."
        )
    metrics = _metrics(session, view, request, fields, params) if wanted.strategy == "weighted" else [""] * len(fields)
    fused = [wanted.fuse([one[i] for one in rankings], metrics) for i in range(counts.pop())]
    whole = milvus_pb2.SearchRequest(
        collection_name=view.collection,
        partition_names=request.partition_names,
        output_fields=request.output_fields,
        **shared(request),
    )
    return searching.answer(session, view, whole, SearchParams(wanted.limit), fused)


def _rankings(session: Session, view: View, sub: Any, field: str, params: Mapping[str, Any]) -> Sequence[RankedIds]:
    """The rankings of one search of a hybrid search, one per query."""
    if field == view.field:
        return searching.rank(session, view, sub, read_params(params, view), searching.queries_of(view, sub))
    others = [pair for pair in sub.search_params if pair.key not in ("topk", "offset")]
    refill(sub.search_params, [*others, *pairs([("topk", params["topk"])])])
    results = session.caller.send("Search", sub).results
    return [RankedIds(one.ids, one.scores, exact=True) for one in read_hits(results, sub.nq)]


def _metrics(session: Session, view: View, request: Any, fields: Sequence[str], params: Any) -> Sequence[str]:
    """The metric of each search: the index's own where the search does not say it."""
    named = [str(given.get("metric_type") or "") for given in params]
    metrics = [view.vector.metric if field == view.field else named[i] for i, field in enumerate(fields)]
    if all(metrics):
        return metrics
    indexes = describe_indexes(session.caller, session.database(request), view.collection)
    own = {index["field_name"]: str(index.get("metric_type", "")) for index in indexes}
    return [metric or own.get(field, "") for field, metric in zip(fields, metrics, strict=True)]
