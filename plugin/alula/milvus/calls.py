"""The two calls to Milvus behind every search, made by pymilvus or by the gateway."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel

from alula.encoders import NativeQuery
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.dialect import LITE, Dialect
from alula.milvus.pymilvus_internals import server_time
from alula.milvus.row_set import ClientRows, Id, RowSet
from alula.milvus.wire.query_results import hit_columns
from alula.milvus.wire.types import TYPES

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scope:
    """Which rows a search sees, in Milvus's own terms.

    Args:
        filter: A scalar filter expression.
        partitions: Partition names; all by default.
        consistency_level: ``Strong``, ``Bounded``, ``Session`` or ``Eventually``; the collection's own by default.
        timeout: Seconds to wait for one call.
        timestamp: A time of the server's clock, whose writes are seen; only with the level ``Customized``.
    """

    filter: str = ""
    partitions: Sequence[str] = ()
    consistency_level: str | None = None
    timeout: float | None = None
    timestamp: int = 0

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of pymilvus, without the filter."""
        given: dict[str, Any] = {"timeout": self.timeout}
        if self.partitions:
            given["partition_names"] = list(self.partitions)
        if self.consistency_level:
            given["consistency_level"] = self.consistency_level
        if self.timestamp:
            given["guarantee_timestamp"] = self.timestamp
        return given


@dataclass(frozen=True)
class NativeSearch:
    """A search as Milvus does it.

    Args:
        field: The field that is searched.
        queries: Native queries, or vectors float32 (n, d).
        metric: The field's native metric.
        limit: Rows per query.
        ids: The only rows to search among; None for all.
        params: Native search parameters.
        columns: Fields to answer with.
        query_type: The type of a searched field of float vectors: Milvus takes queries of the field's own type only.
    """

    field: str
    queries: Sequence[NativeQuery] | F32
    metric: str
    limit: int
    ids: Sequence[Id] | None = None
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: Sequence[str] = ()
    query_type: str = "FLOAT_VECTOR"


@dataclass(frozen=True)
class NativeHits:
    """The rows that Milvus found for one query.

    Args:
        ids: Their primary keys.
        scores: float32 (n,): their native scores.
        columns: The requested fields, each of length n: float32 (n, d) for vectors, uint8 (n, bytes) for binary ones.
    """

    ids: Sequence[Id]
    scores: F32
    columns: Mapping[str, Any]


class Calls(Protocol):
    """Searches and reads of one collection."""

    @property
    def dialect(self) -> Dialect:
        """Abilities and limits of the server, of Milvus Lite on a port too."""

    def pinned(self, scope: Scope) -> Scope:
        """The scope of all calls of one search: a Strong one gets one timestamp for them.

        Each call would get one of its own, and wait 0.2 s until the server has reached it.
        """

    def search(self, native: NativeSearch, scope: Scope) -> Sequence[NativeHits]:
        """The rows of the scope for each query, best first."""

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], scope: Scope, *, filtered: bool = False) -> RowSet:
        """The rows with these ids that exist, in no order.

        Args:
            ids: Their primary keys.
            fields: Fields to read beside the primary key.
            scope: Partitions, consistency, timeout.
            filtered: Only rows that match the scope's filter too.
        """


class ClientCalls:
    """`Calls` by pymilvus.

    Args:
        server: The connected server.
        name: The collection.
        primary_key: Name of its primary key field.
    """

    def __init__(self, server: Server, name: str, primary_key: str) -> None:
        self._server = server
        self._name = name
        self._primary_key = primary_key

    @cached_property
    def dialect(self) -> Dialect:
        """See `Calls.dialect`; no server but Milvus Lite lacks a clock."""
        has_clock = self._server.embedded or server_time(self._server) is not None
        return self._server.dialect if has_clock else LITE

    @cached_property
    def _is_strong(self) -> bool:
        """True if the collection's own consistency level is Strong."""
        with milvus_errors(f"describe the collection {self._name!r}"):
            level = self._server.client.describe_collection(self._name).get("consistency_level")
        return bool(level == ConsistencyLevel.Strong)

    def pinned(self, scope: Scope) -> Scope:
        """See `Calls.pinned`."""
        if self.dialect is LITE:
            return scope
        strong = scope.consistency_level == "Strong" if scope.consistency_level else self._is_strong
        now = server_time(self._server) if strong else None
        return replace(scope, consistency_level="Customized", timestamp=now) if now else scope

    def search(self, native: NativeSearch, scope: Scope) -> Sequence[NativeHits]:
        """See `Calls.search`."""
        if scope.partitions:
            self._server.check_partitions("search without")

        queries: Any = list(native.queries)
        if isinstance(native.queries, np.ndarray):  # pymilvus knows the type of queries by their dtype
            kind = TYPES[native.query_type]
            queries = [np.frombuffer(kind.encode(query), kind.dtype) for query in native.queries]

        def send(expression: str, values: Mapping[str, Sequence[Id]]) -> Any:
            return self._server.client.search(
                self._name,
                data=queries,
                anns_field=native.field,
                limit=native.limit,
                filter=expression,
                filter_params=dict(values),
                output_fields=list(native.columns),
                search_params={"metric_type": native.metric, "params": dict(native.params)},
                **scope.arguments(),
            )

        with milvus_errors(f"search the collection {self._name!r}", filter=scope.filter):
            answers = send(scope.filter, {}) if native.ids is None else self._by_id(send, native.ids, scope.filter)
        return [
            NativeHits(list(hits.ids), np.fromiter(hits.distances, np.float32, len(hits)), columns)
            for hits, columns in zip(answers, hit_columns(answers, native.columns), strict=True)
        ]

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], scope: Scope, *, filtered: bool = False) -> ClientRows:
        """See `Calls.fetch`."""

        def send(expression: str, values: Mapping[str, Sequence[Id]]) -> Any:
            return self._server.client.query(
                self._name,
                filter=expression,
                filter_params=dict(values),
                output_fields=list({*fields, self._primary_key}),
                **scope.arguments(),
            )

        filter = scope.filter if filtered else ""
        with milvus_errors(f"read the fields {', '.join(fields)} of {self._name!r}", filter=filter):
            rows = self._by_id(send, ids, filter)
        return ClientRows(rows, self._primary_key)

    def _by_id(self, send: Callable[[str, Mapping[str, Sequence[Id]]], Any], ids: Sequence[Id], filter: str) -> Any:
        return self._server.id_templates.send(send, self._primary_key, ids, filter, dialect=self.dialect)
