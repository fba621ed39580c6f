"""Collections as clients see them, read from Milvus and cached for one second."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import grpc
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2

from alula.catalog.binding import field_of, lowering_of
from alula.catalog.search_defaults import read_defaults
from alula.catalog.settings import check_format, read_settings, stored_defaults
from alula.gateway.encoder_cache import Encoders, NoEncoderError
from alula.gateway.functions import Function, functions_of
from alula.gateway.logins import login_of
from alula.gateway.ops import metrics
from alula.gateway.upstream import Caller, MilvusError
from alula.index_types import IndexType, Lowering, VectorField, index_type

MAX_AGE = 1.0  # seconds for which reads use a cached description; writes always read it
MAX_CACHED = 4096  # collections
DESCRIBED_SECONDS = 10.0  # for which a login that described a collection may use cached descriptions
MAX_DESCRIBED = 65536  # logins and collections


@dataclass(frozen=True)
class View:
    """A collection with an index type of Alula.

    Args:
        collection: Real name of the collection, also where a client named an alias.
        settings: The settings that Alula stored with it.
        schema: Its ``CollectionSchema`` upstream.
        index_type: Its index type.
        stored_as: The lowering of the index type, or the error of a missing encoder.
        defaults: Its default search options.
        consistency: Its default consistency level, a ``ConsistencyLevel``.
    """

    collection: str
    settings: Mapping[str, str]
    schema: Any
    index_type: IndexType
    stored_as: Lowering | NoEncoderError
    defaults: Mapping[str, Any]
    consistency: int

    @property
    def lowering(self) -> Lowering:
        """The lowering; raises `NoEncoderError` if its encoder is missing."""
        if isinstance(self.stored_as, NoEncoderError):
            raise self.stored_as
        return self.stored_as

    @cached_property
    def vector(self) -> VectorField:
        """The vector field, as clients see it."""
        return field_of(self.settings)

    @property
    def field(self) -> str:
        """Name of the vector field."""
        return self.vector.name

    @cached_property
    def companions(self) -> frozenset[str]:
        """Names of the companion fields, which clients do not see."""
        return frozenset(f.name for f in self.schema.fields if f.name.startswith(self.vector.companion("")))

    @cached_property
    def searched(self) -> str:
        """Name of the companion that Milvus searches."""
        return next(name for name in _vector_fields(self.schema) if name in self.companions)

    def hide_companions(self, text: str) -> str:
        """Replace the names of companions in a message by the vector field's name."""
        names = sorted(self.companions, key=len, reverse=True)  # one name may be a prefix of another
        return re.sub("|".join(map(re.escape, names)), self.field, text) if names else text

    @cached_property
    def primary_key(self) -> Any:
        """The primary key's ``FieldSchema``."""
        return next(field for field in self.schema.fields if field.is_primary_key)

    @property
    def vector_fields(self) -> list[str]:
        """Names of all vector fields that clients see."""
        others = [name for name in _vector_fields(self.schema) if name not in self.companions]
        return others if self.field in others else [*others, self.field]


@dataclass(frozen=True)
class CollectionInfo:
    """The description of a collection at one time.

    Args:
        view: The view of a collection with an index type of Alula, else None.
        name: Real name of the collection, also where a client named an alias; "" if it does not exist.
        functions: The functions that the gateway computes for it.
        schema: Its ``CollectionSchema`` upstream; None if it does not exist.
        read: Time of the description, by the monotonic clock.
    """

    view: View | None = None
    name: str = ""
    functions: Sequence[Function] = ()
    schema: Any = None
    read: float = 0.0

    @property
    def ordinary(self) -> bool:
        """True if Milvus serves the collection without the gateway."""
        return self.view is None and not self.functions

    @property
    def vector_fields(self) -> list[str]:
        """Names of all vector fields that clients see."""
        return self.view.vector_fields if self.view else _vector_fields(self.schema)


class Views:
    """A cache of collection descriptions.

    Args:
        encoders: The source of encoders.
    """

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders
        self._cached: dict[tuple[str, str], CollectionInfo] = {}
        self._described: dict[tuple[bytes, str, str], float] = {}  # by login, until when
        self._dropped = 0.0
        self._reading: dict[tuple[str, str], threading.Lock] = {}
        self._changed: dict[str, float] = {}
        self._all_changed = 0.0
        self._lock = threading.Lock()

    def cached(self, database: str, name: str) -> CollectionInfo | None:
        """The cached description of a collection, if it is not older than `MAX_AGE`."""
        found = self._cached.get((database, name))
        return found if found and time.monotonic() - found.read < MAX_AGE else None

    def read(self, caller: Caller, database: str, name: str, *, fresh: bool = False) -> CollectionInfo:
        """Read the description of a collection, from the cache or from Milvus.

        A collection that does not exist counts as an ordinary one: Milvus then answers the client.

        Args:
            caller: The client.
            database: The collection's database, "" for the default one.
            name: The collection, or an alias.
            fresh: True to read from Milvus even if a description is cached.

        Raises:
            AlulaError: If this gateway cannot serve the collection, such as one of a newer format.
            grpc.RpcError: If Milvus does not answer.
        """
        called = time.monotonic()
        with self._lock:
            if len(self._reading) >= MAX_CACHED:  # names of collections that do not exist are never cached
                self._reading.clear()
            reading = self._reading.setdefault((database, name), threading.Lock())
        with reading:  # concurrent callers share one read
            before = self.cached(database, name)
            login = (login_of(caller.metadata), database, name)
            # one client's right to the collection is not another's
            if before and (not fresh or before.read > called) and self._described.get(login, 0.0) > called:
                return before
            started = time.monotonic()
            try:
                described = caller.send(
                    "DescribeCollection", milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
                )
            except MilvusError:
                self.forget(database, name)
                return CollectionInfo()
            with self._lock:
                if len(self._described) >= MAX_DESCRIBED:
                    self._described.clear()
                self._described[login] = time.monotonic() + DESCRIBED_SECONDS
            view = self._view(caller, database, name, described, before.view if before else None)
            now = CollectionInfo(
                view, _real_name(described, name), functions_of(described.schema), described.schema, started
            )
            with self._lock:
                self._drop_old()
                if started > self._changed.get(
                    database, self._all_changed
                ):  # else the description may be older than the change
                    self._cached[database, name] = now
            return now

    def _drop_old(self) -> None:
        """Drop descriptions that are too old to be used, and with them their encoders."""
        now = time.monotonic()
        if now - self._dropped < MAX_AGE and len(self._cached) < MAX_CACHED:
            return
        self._dropped = now
        self._cached = {key: info for key, info in self._cached.items() if now - info.read < MAX_AGE}
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()

    def forget(self, database: str, name: str | None = None) -> None:
        """Drop a collection or a database from the cache; running reads too."""
        with self._lock:
            if len(self._changed) >= MAX_CACHED:  # then all databases count as changed
                self._changed.clear()
                self._all_changed = time.monotonic()
            self._changed[database] = time.monotonic()
            for key in [key for key in self._cached if key[0] == database and name in (None, key[1])]:
                del self._cached[key]

    def _view(self, caller: Caller, database: str, name: str, described: Any, before: View | None) -> View | None:
        if not may_have_index_type(described.schema):
            return None
        real_name = _real_name(described, name)
        _, settings = read_settings((), described.schema.description)
        try:
            indexes = describe_indexes(caller, database, real_name)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.PERMISSION_DENIED or not settings:
                raise
            indexes = []  # the description has the settings too
        _, settings = read_settings(indexes, described.schema.description)
        if not settings:
            return None
        check_format(name, settings)
        stored_as = before.stored_as if before and before.settings == settings else None
        if stored_as is None or isinstance(stored_as, NoEncoderError):
            stored_as = self._stored_as(caller, database, name, settings)
        properties = {pair.key: pair.value for pair in described.properties}
        declared = index_type(settings["type"])
        defaults = read_defaults(declared, stored_defaults(indexes, properties))
        return View(
            real_name, settings, described.schema, declared, stored_as, defaults, int(described.consistency_level)
        )

    def _stored_as(
        self, caller: Caller, database: str, name: str, settings: Mapping[str, str]
    ) -> Lowering | NoEncoderError:
        try:
            encoder = self._encoders.get(caller, database, settings["encoder"])
        except NoEncoderError as error:
            return error
        return metrics.encoding_counted(lowering_of(f"The collection {name!r}", settings, encoder))


def _real_name(described: Any, name: str) -> str:
    """The collection's own name, where `name` may be an alias."""
    return str(described.schema.name or described.collection_name or name)


def _vector_fields(schema: Any) -> list[str]:
    vector_types = {code for name, code in DataType.__members__.items() if name.endswith("_VECTOR")}
    return [field.name for field in schema.fields if field.data_type in vector_types]


def may_have_index_type(schema: Any) -> bool:
    """False if a collection's schema rules out an index type of Alula."""
    companions = (DataType.SPARSE_FLOAT_VECTOR, DataType.BINARY_VECTOR)
    return bool(read_settings((), schema.description)[1]) or any(
        "__" in field.name and field.data_type in companions for field in schema.fields
    )


def describe_indexes(caller: Caller, database: str, name: str) -> list[dict[str, Any]]:
    """The indexes of a collection, each as the dict that pymilvus returns."""
    request = milvus_pb2.DescribeIndexRequest(db_name=database, collection_name=name)
    try:
        response = caller.send("DescribeIndex", request)
    except MilvusError:
        return []
    return [
        {pair.key: pair.value for pair in index.params}
        | {"index_name": index.index_name, "field_name": index.field_name}
        for index in response.index_descriptions
    ]
