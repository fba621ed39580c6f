"""What a rewritten call works with: who calls, what is known of collections, and calls in a client's name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.capability_cache import CapabilitiesOf
from alula.gateway.encoder_cache import Encoders
from alula.gateway.functions import EncoderOf
from alula.gateway.upstream import Caller, pairs
from alula.gateway.views import Known, View, Views
from alula.milvus import NativeHits, NativeSearch, Scope
from alula.milvus.wire import placeholders
from alula.milvus.wire.field_data import column

F32 = npt.NDArray[np.float32]
# How a search looks for rows is the gateway's affair; whether rows still being written count is the client's.
_KEPT_PARAMS = ("ignore_growing",)
_SHARED = (
    "db_name",
    "travel_timestamp",
    "guarantee_timestamp",
    "not_return_all_meta",
    "consistency_level",
    "use_default_consistency",
)


@dataclass(frozen=True)
class Session:
    """One rewritten call.

    Args:
        caller: The client.
        views: What is known of collections.
        encoders: The encoders.
        capabilities: What the upstream can do.
        fresh: Whether collections are to be looked at anew.
    """

    caller: Caller
    views: Views
    encoders: Encoders
    capabilities: CapabilitiesOf
    fresh: bool = False

    def database(self, request: Any) -> str:
        """The database that a request is about."""
        return getattr(request, "db_name", "") or self.caller.database

    def known(self, request: Any, *, fresh: bool = False) -> Known:
        """What there is to know of the collection that a request names."""
        database = self.database(request)
        return self.views.of(self.caller, database, request.collection_name, fresh=fresh or self.fresh)

    def view(self, request: Any, *, fresh: bool = False) -> View | None:
        """The view of the collection that a request names; None without an index type of Alula's."""
        return self.known(request, fresh=fresh).view

    def encoder_of(self, request: Any) -> EncoderOf:
        """Finds the encoders of the collection that a request names, by their fingerprints."""
        return lambda sha256: self.encoders.get(self.caller, self.database(request), sha256)

    def stale(self, request: Any) -> bool:
        """Whether the collection that a request names is not what it was taken for, which is now known."""
        name = getattr(request, "collection_name", "")
        if not name:
            return False
        database = self.database(request)
        before = self.views.known(database, name)
        now = self.views.of(self.caller, database, name, fresh=True)
        return before is not None and _what(before) != _what(now)


def _what(known: Known) -> Any:
    return known.view.settings if known.view else {}, known.functions


class RequestCalls:
    """`alula.milvus.Calls` by raw requests, made of the client's own: its partitions, consistency and timestamps hold.

    Args:
        caller: The client.
        view: The collection.
        request: The client's ``SearchRequest``.
    """

    def __init__(self, caller: Caller, view: View, request: Any) -> None:
        self.key: str = view.primary_key.name
        self._caller = caller
        self._request = request
        self._template = milvus_pb2.SearchRequest(
            collection_name=view.collection,
            partition_names=request.partition_names,
            dsl_type=request.dsl_type,
            **shared(request),
        )
        self._kept = [(pair.key, pair.value) for pair in request.search_params if pair.key in _KEPT_PARAMS]

    def search(self, native: NativeSearch, scope: Scope) -> Sequence[NativeHits]:
        """See `alula.milvus.Calls.search`."""
        del scope  # the client's request says it
        request = milvus_pb2.SearchRequest()
        request.CopyFrom(self._template)
        request.dsl = native.filter
        if native.filter == self._request.dsl:
            self._fill_in(request)
        request.nq = len(native.queries)
        request.placeholder_group = placeholders.write(native.queries)
        request.output_fields.extend(native.columns)
        told = {
            "anns_field": native.field,
            "topk": native.limit,
            "metric_type": native.metric,
            "params": json.dumps(dict(native.params)),
            "round_decimal": -1,
        }
        request.search_params.extend(pairs([*told.items(), *self._kept]))
        return found(self._caller.send("Search", request).results, len(native.queries), native.columns)

    def query(self, filter: str, fields: Sequence[str], scope: Scope) -> NativeHits:
        """See `alula.milvus.Calls.query`."""
        del scope
        answer = self.fetch(filter, fields)
        held = {data.field_name: column(data) for data in answer.fields_data}
        ids = held.get(self.key, [])
        return NativeHits(list(ids), np.empty(0, np.float32), {name: held.get(name, []) for name in fields})

    def fetch(self, filter: str, fields: Sequence[str], *, filtered: bool = False) -> Any:
        """The rows that match a filter, as ``QueryResults``, in no order; the primary key is among the fields.

        Args:
            filter: An expression.
            fields: Which fields.
            filtered: Only those rows of them that match the client's filter as well.
        """
        template = self._template
        request = milvus_pb2.QueryRequest(
            collection_name=template.collection_name,
            partition_names=template.partition_names,
            expr=filter,
            output_fields=list(dict.fromkeys([*fields, self.key])),
            **shared(template),
        )
        if filtered and self._request.dsl:
            request.expr = f"({filter}) and ({self._request.dsl})"
            self._fill_in(request)
        return self._caller.send("Query", request)

    def _fill_in(self, request: Any) -> None:
        """Give a request that holds the client's filter what stands in that filter's places."""
        for name, value in self._request.expr_template_values.items():
            request.expr_template_values[name].CopyFrom(value)


def shared(request: Any) -> dict[str, Any]:
    """What searches, hybrid searches and queries have in common: where, and as of when."""
    return {name: getattr(request, name) for name in _SHARED}


def found(results: Any, queries: int, columns: Sequence[str] = ()) -> list[NativeHits]:
    """What a native search of so many queries found for each, from its ``SearchResultData``."""
    ids = results.ids.int_id.data if results.ids.WhichOneof("id_field") == "int_id" else results.ids.str_id.data
    keys, scores = list(ids), np.array(results.scores, np.float32)
    held = {data.field_name: column(data) for data in results.fields_data}
    pieces, start = [], 0
    for count in results.topks or [0] * queries:
        part = slice(start, start + count)
        pieces.append(NativeHits(keys[part], scores[part], {name: held[name][part] for name in columns if count}))
        start += count
    return pieces
