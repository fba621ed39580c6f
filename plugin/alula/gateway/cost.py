"""The cost of a search before it is carried out: heavy ones take turns."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from pymilvus.grpc_gen import common_pb2

from alula.errors import UsageError
from alula.gateway.declaration import flat
from alula.gateway.upstream import RPCS
from alula.gateway.views import View
from alula.index_types import MAX_RESULTS, index_types

HEAVY_BYTES = 64 << 10  # of a search or query: more than 20 vectors of 768 numbers, or a long filter
HEAVY_RANKED = MAX_RESULTS  # rows that a search ranks, all its queries together: as many as one query can have


def is_heavy(method: str, request: bytes, view: View | None) -> bool:
    """True if a search or query may take long, by its bytes or by what it ranks.

    Args:
        method: ``Search``, ``HybridSearch`` or ``Query``.
        request: The client's request.
        view: The collection, if it is known; else the largest defaults count.
    """
    if len(request) > HEAVY_BYTES:
        return True
    if method == "Query":
        return False
    try:
        message = RPCS[method].request.FromString(request)
        return sum(_ranked(one, view) for one in getattr(message, "requests", [message])) >= HEAVY_RANKED
    except (DecodeError, UsageError, TypeError, ValueError):
        return False  # it will be refused


def _ranked(search: Any, view: View | None) -> int:
    """The rows that one search ranks, all its queries together."""
    params = {**(view.defaults if view else {}), **flat(search.search_params)}
    oversample = view.index_type.oversample if view else max(one.oversample for one in index_types().values())
    limit, offset = (float(params.get(name) or 0) for name in ("topk", "offset"))
    ranked = max(
        limit * float(params.get("oversample") or oversample), float(params.get("candidates") or 0), limit + offset
    )
    if view and params.get("anns_field", view.field) != view.field:  # Milvus's own search
        ranked = limit + offset
    elif params.get("search_iter_v2") and not params.get("search_iter_id"):  # the first page ranks those of all pages
        ranked = MAX_RESULTS
    # not `nq`, which is the client's word
    group = common_pb2.PlaceholderGroup.FromString(search.placeholder_group)
    return int(min(ranked, MAX_RESULTS)) * sum(len(one.values) for one in group.placeholders)
