"""Searches and reads by raw requests in a client's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.entities import shown
from alula.gateway.upstream import Caller, changed, pairs
from alula.gateway.views import View
from alula.milvus import NativeHits, NativeSearch, RowSet, Scope
from alula.milvus.dialect import Dialect
from alula.milvus.row_set import F32, U8, Id
from alula.milvus.wire import placeholders
from alula.milvus.wire.field_data import column, join, take

# The gateway chooses the search parameters; of the client's own it passes on whether growing segments are searched.
_KEPT_PARAMS = ("ignore_growing",)
# The form of time stamps in output fields, which are read by a query.
_READ_PARAMS = ("timezone", "time_fields")
# The fields that searches and queries have in common, those of later versions too, without those that are set anew
SHARED = tuple(
    field.name
    for field in milvus_pb2.SearchRequest.DESCRIPTOR.fields
    if (other := milvus_pb2.QueryRequest.DESCRIPTOR.fields_by_name.get(field.name)) is not None
    and field.type == other.type
    and field.name not in {"base", "collection_name", "partition_names", "output_fields", "expr_template_values"}
)


class FieldRows(RowSet):
    """`RowSet` of ``FieldData`` messages.

    Args:
        fields: The columns, the primary key among them unless there are no rows.
        primary_key: Name of the primary key field.
    """

    def __init__(self, fields: Sequence[Any], primary_key: str) -> None:
        self.fields = fields
        self._primary_key = primary_key

    @property
    def ids(self) -> list[Any]:
        """See `RowSet.ids`."""
        return self.values(self._primary_key)

    def values(self, name: str) -> list[Any]:
        """See `RowSet.values`."""
        values: Any = self._column(name)
        return list(values.tolist()) if isinstance(values, np.ndarray) else values

    def vectors(self, name: str) -> F32:
        """See `RowSet.vectors`."""
        return np.asarray(self._column(name), np.float32)

    def binary(self, name: str) -> U8:
        """See `RowSet.binary`."""
        return np.asarray(self._column(name), np.uint8)

    def _column(self, name: str) -> Any:
        return next((column(field) for field in self.fields if field.field_name == name), [])

    def take(self, positions: Sequence[int]) -> FieldRows:
        """See `RowSet.take`."""
        return FieldRows([take(field, positions) for field in self.fields], self._primary_key)

    def followed_by(self, others: Sequence[FieldRows]) -> FieldRows:
        """See `RowSet.followed_by`."""
        parts = [one.fields for one in (self, *others) if one.fields]
        return FieldRows([join(columns) for columns in zip(*parts, strict=True)], self._primary_key)


class RequestCalls:
    """`alula.milvus.Calls` by raw requests, in the scope of the client's request.

    Args:
        caller: The client.
        view: The collection.
        request: The client's ``SearchRequest``.
    """

    def __init__(self, caller: Caller, view: View, request: Any) -> None:
        self._caller = caller
        self._view = view
        self._key: str = view.primary_key.name
        self._request = request
        self._template = changed(
            request, collection_name=view.collection, placeholder_group=None, output_fields=None, search_params=None
        )
        given = [(pair.key, pair.value) for pair in request.search_params]
        self._kept = [pair for pair in given if pair[0] in _KEPT_PARAMS]
        self._read = [pair for pair in given if pair[0] in _READ_PARAMS]

    @property
    def dialect(self) -> Dialect:
        """See `alula.milvus.Calls.dialect`."""
        return self._caller.dialect

    def pinned(self, scope: Scope) -> Scope:
        """See `alula.milvus.Calls.pinned`; the client's request has its timestamp."""
        return scope

    def search(self, native: NativeSearch, scope: Scope) -> Sequence[NativeHits]:
        """See `alula.milvus.Calls.search`; the client's request is the scope."""
        request = milvus_pb2.SearchRequest()
        request.CopyFrom(self._template)
        request.nq = len(native.queries)
        request.placeholder_group = placeholders.write(native.queries, native.query_type)
        request.output_fields.extend(native.columns)
        params = {
            "anns_field": native.field,
            "topk": native.limit,
            "metric_type": native.metric,
            "params": json.dumps(dict(native.params)),
            "round_decimal": -1,
        }
        request.search_params.extend(pairs([*params.items(), *self._kept]))

        def send(expression: str, values: Mapping[str, Sequence[Id]]) -> Any:
            request.dsl = expression
            self._fill_in(request, scope.filter, values)
            return self._caller.send("Search", request)

        response = send(scope.filter, {}) if native.ids is None else self._by_id(send, native.ids, scope.filter)
        return read_hits(response.results, len(native.queries), native.columns)

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], scope: Scope, *, filtered: bool = False) -> FieldRows:
        """See `alula.milvus.Calls.fetch`; columns as clients see them, and companions."""
        template = self._template
        request = milvus_pb2.QueryRequest(
            collection_name=template.collection_name,
            partition_names=template.partition_names,
            output_fields=list(dict.fromkeys([*fields, self._key])),
            query_params=pairs(self._read),
            **shared(template),
        )

        filter = scope.filter if filtered else ""

        def send(expression: str, values: Mapping[str, Sequence[Id]]) -> Any:
            request.expr = expression
            self._fill_in(request, filter, values)
            return self._caller.send("Query", request)

        response = self._by_id(send, ids, filter)
        columns = response.fields_data
        own = [data for data in columns if data.field_name in self._view.companions]
        return FieldRows([*shown(columns, self._view), *own], self._key)

    def _by_id(self, send: Callable[[str, Mapping[str, Sequence[Id]]], Any], ids: Sequence[Id], filter: str) -> Any:
        return self._caller.upstream.id_templates.send(send, self._key, ids, filter, dialect=self.dialect)

    def _fill_in(self, request: Any, filter: str, values: Mapping[str, Sequence[Id]]) -> None:
        """Set the values of placeholders: the client's with its filter, and Alula's."""
        request.expr_template_values.clear()
        for name, value in self._request.expr_template_values.items() if filter else ():
            request.expr_template_values[name].CopyFrom(value)
        for name, ids in values.items():
            array = request.expr_template_values[name].array_val
            if isinstance(ids[0], str):
                array.string_data.data.extend(ids)
            else:
                array.long_data.data.extend(ids)


def shared(request: Any) -> dict[str, Any]:
    """The given fields of `SHARED`: database, namespace, time, consistency."""
    return {field.name: value for field, value in request.ListFields() if field.name in SHARED}


def read_hits(results: Any, queries: int, columns: Sequence[str] = ()) -> list[NativeHits]:
    """The hits of each query in the ``SearchResultData`` of a native search."""
    ids = results.ids.int_id.data if results.ids.WhichOneof("id_field") == "int_id" else results.ids.str_id.data
    keys, scores = list(ids), np.array(results.scores, np.float32)
    held = {data.field_name: column(data) for data in results.fields_data}
    pieces, start = [], 0
    for count in results.topks or [0] * queries:
        part = slice(start, start + count)
        pieces.append(NativeHits(keys[part], scores[part], {name: held[name][part] for name in columns if count}))
        start += count
    return pieces
