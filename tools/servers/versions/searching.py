"""Searches and filters, as Milvus 2.4 and later read them."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from tools.servers.versions.rule import Call, RefusedError, Rule, Version

FILTERED = {"Search": "dsl", "Query": "expr", "Delete": "expr"}
CACHED_EXPRESSIONS = 1024


class NamespaceAsked(Rule):
    """A collection with namespaces is searched and read in one of them."""

    since = "3.0.0"
    source = "milvus pkg/common CheckNamespace, called by internal/proxy resolveNamespacePartitionNames"
    methods = ("Search", "HybridSearch", "Query", "Insert", "Upsert")

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        if call.known.properties.get("namespace.enabled") == "true" and not call.request.HasField("namespace"):
            raise RefusedError(1100, "namespace data is not set but namespace enabled")


class PartitionKeyAsked(Rule):
    """With isolated partition keys, each search's filter names the key."""

    since = "2.4.17"
    source = "milvus internal/proxy/task_search.go; internal/util/exprutil ValidatePartitionKeyIsolation"
    methods = ("Search", "HybridSearch")

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        if call.known.properties.get("partitionkey.isolation", "").lower() != "true":
            return
        key = next((field.name for field in call.known.schema.fields if field.is_partition_key), "")
        for request in call.request.requests if call.method == "HybridSearch" else [call.request]:
            if key and key not in request.dsl:
                raise RefusedError(
                    1100, f"partition key not found in expr or the expr is invalid when validating isolation: {key}"
                )


class SearchMessages(Rule):
    """A search has messages that would rank, group or mark the rows.

    The engine does not know them. They are kept here and removed, so a test sees which ones reached the server.
    """

    since = "2.6.0"
    source = "milvus-proto milvus.proto SearchRequest, HybridSearchRequest; milvus internal/proxy/task_search.go"
    methods = ("Search", "HybridSearch")
    names = ("function_score", "highlighter", "search_aggregation", "function_chains")

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.reached: list[str] = []

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        for set_field, value in call.request.ListFields():
            if set_field.name in self.names and value:
                self.reached.append(set_field.name)
                call.request.ClearField(set_field.name)


class FilterTemplates(Rule):
    """A filter has placeholders; the engine gets it with their values."""

    since = "2.4.17"
    source = "milvus internal/parser/planparserv2/fill_expression_value.go"
    methods = ("Search", "HybridSearch", "Query", "Delete")

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        for request in call.request.requests if call.method == "HybridSearch" else [call.request]:
            name = FILTERED.get(call.method, "dsl")
            text = getattr(request, name)
            for key, value in request.expr_template_values.items():
                text = text.replace(f"{{{key}}}", _literal(value))
            setattr(request, name, text)
            request.ClearField("expr_template_values")


class ExpressionCache(Rule):
    """The last 1,024 parsed filters are kept, by their text with placeholders."""

    since = "2.5.0"
    source = "milvus internal/parser/planparserv2/plan_parser_v2.go exprCache"
    methods = ("Search", "HybridSearch", "Query", "Delete")

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.misses = 0
        self._kept: OrderedDict[str, None] = OrderedDict()

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        for request in call.request.requests if call.method == "HybridSearch" else [call.request]:
            text = getattr(request, FILTERED.get(call.method, "dsl"))
            if not text:
                continue
            self.misses += text not in self._kept
            self._kept[text] = None
            self._kept.move_to_end(text)
            while len(self._kept) > CACHED_EXPRESSIONS:
                self._kept.popitem(last=False)


def _literal(value: Any) -> str:
    """A value of a placeholder as text of a filter."""
    kind = value.WhichOneof("val")
    if kind == "array_val":
        return _array(value.array_val)
    return json.dumps(getattr(value, kind), ensure_ascii=False)


def _array(array: Any) -> str:
    kind = array.WhichOneof("data")
    if kind is None:
        return "[]"
    values = getattr(array, kind).data
    items = [_array(item) for item in values] if kind == "array_data" else [_plain(item) for item in values]
    return f"[{', '.join(items)}]"


def _plain(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else json.dumps(item, ensure_ascii=False)
