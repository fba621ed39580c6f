"""The search parameters of a client, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pymilvus import DataType

from alula.encoders.metric import better_is_larger
from alula.errors import UsageError
from alula.gateway.upstream import newer_parts
from alula.gateway.views import View
from alula.milvus.wire.types import type_of

# Search parameters of Milvus's own index types. They are harmless here: clients send them to every field, and web
# consoles do so without being asked.
_NATIVE_OPTIONS = frozenset(
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
# Parameters of a search that belong to no index type.
_COMMON_PARAMS = frozenset(
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
        "retrieve_limit",
        "timezone",
        "time_fields",
    ]
)
_UNSUPPORTED = ("group_by_fields", "order_by_fields", "json_path", "analyzer_name")
# Fields of a search, or of a hybrid one, that are honoured, or refused with a sentence of their own.
_HONOURED = frozenset(
    [
        "base",
        "db_name",
        "collection_name",
        "partition_names",
        "dsl",
        "dsl_type",
        "expr_template_values",
        "placeholder_group",
        "nq",
        "ids",
        "search_by_primary_keys",
        "search_params",
        "output_fields",
        "travel_timestamp",
        "guarantee_timestamp",
        "not_return_all_meta",
        "consistency_level",
        "use_default_consistency",
        "namespace",
        "requests",
        "rank_params",
    ]
)


@dataclass(frozen=True)
class SearchParams:
    """The search parameters of a client.

    Args:
        limit: Results per query.
        offset: Results to leave out at the start.
        options: Search options of the index type, and ``rerank``.
        radius: The worst score to return, exclusive; None for any.
        range_filter: The best score to return, inclusive; None for any.
        group_by: A field of whose values each has at most `group_size` results; "" for none.
        group_size: See `group_by`.
        decimals: Decimals of the scores, -1 for all.
        iterator: True for a page of a search iterator.
        iterator_id: The iterator that the page belongs to; "" for its first page.
        returned: Results that the iterator returned before.
    """

    limit: int
    offset: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    radius: float | None = None
    range_filter: float | None = None
    group_by: str = ""
    group_size: int = 1
    decimals: int = -1
    iterator: bool = False
    iterator_id: str = ""
    returned: int = 0

    @property
    def in_range(self) -> bool:
        """True if scores are bounded."""
        return self.radius is not None or self.range_filter is not None

    @property
    def selects(self) -> bool:
        """True if not every ranked row is a result."""
        return self.in_range or bool(self.group_by) or self.iterator


def searched_field(params: Mapping[str, Any], vector_fields: Sequence[str]) -> str:
    """The field to search: the named one, or the only vector field."""
    named = str(params.get("anns_field", ""))
    return named or (vector_fields[0] if len(vector_fields) == 1 else "")


def check_honoured(request: Any, view: View) -> None:
    """Raise a `UsageError` for a part of a search that would be left out.

    Args:
        request: A ``SearchRequest``, or a ``HybridSearchRequest``, whose ``function_score`` is read elsewhere.
        view: The collection.
    """
    honoured = _HONOURED | {"function_score"} if request.DESCRIPTOR.name == "HybridSearchRequest" else _HONOURED
    others = [field.name for field, _ in request.ListFields() if field.name not in honoured]
    others += newer_parts(request)
    if others:
        raise UsageError(f"A search through {view.settings['type']} cannot do {', '.join(others)}; leave it out.")


def read_params(params: Mapping[str, Any], view: View) -> SearchParams:
    """Read the search parameters of a client.

    Raises:
        UsageError: If one is wrong or not supported.
    """
    for name in _UNSUPPORTED:
        if params.get(name):
            raise UsageError(f"A search through {view.settings['type']} cannot do {name}.")
    metric = str(params.get("metric_type", ""))
    if metric and metric.upper() != view.vector.metric:
        raise UsageError(f"The metric of {view.field!r} is {view.vector.metric}, and the search asks for {metric}.")
    iterator = _true(params.get("iterator")) and _true(params.get("search_iter_v2"))
    limit = params.get("search_iter_batch_size") if iterator else params.get("topk", params.get("limit"))
    found = SearchParams(
        limit=_whole("limit", limit if limit is not None else 10),
        offset=_whole("offset", params.get("offset", 0)),
        options=_options(params, view),
        radius=_number("radius", params.get("radius")),
        range_filter=_number("range_filter", params.get("range_filter")),
        group_by=str(params.get("group_by_field", "")),
        group_size=_whole("group_size", params.get("group_size", 1)),
        decimals=_whole("round_decimal", params.get("round_decimal", -1)),
        iterator=iterator,
        iterator_id=str(params.get("search_iter_id") or ""),
        returned=int(_number("search_iter_last_bound", params.get("search_iter_last_bound")) or 0),
    )
    _check_range(found, larger=better_is_larger(view.vector.metric))
    if found.group_by:
        _check_group(found, view)
    return found


def _options(params: Mapping[str, Any], view: View) -> dict[str, Any]:
    """The options of the index type, and unknown ones, which `SearchRequest` rejects."""
    types = {option.name: option.value_type for option in view.index_type.all_search_options}
    return {
        name: _whole(name, value) if types.get(name) is int else value
        for name, value in params.items()
        if value is not None and (name in types or name not in _COMMON_PARAMS | _NATIVE_OPTIONS)
    }


def _check_range(params: SearchParams, *, larger: bool) -> None:
    worst, best = params.radius, params.range_filter
    if worst is not None and best is not None and (best <= worst if larger else best >= worst):
        must = "greater" if larger else "less"
        raise UsageError(f"range_filter ({best:g}) must be {must} than radius ({worst:g}).")


def _check_group(params: SearchParams, view: View) -> None:
    types = {f.name: f.data_type for f in view.schema.fields if f.name not in view.companions}
    name = params.group_by
    if name not in types:
        raise UsageError(f"The collection has no field {name!r} to group by (group_by_field).")
    field_type = type_of(types[name])
    if field_type is None or not field_type.distinct:
        raise UsageError(
            f"Results cannot be grouped by {name!r}, which is {DataType(types[name]).name}: group_by_field takes whole "
            "numbers, booleans and strings."
        )
    if params.group_size < 1:
        raise UsageError(f"group_size is {params.group_size}, and must be 1 or more.")


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
