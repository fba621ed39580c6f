"""What a client sees of a collection, and what Milvus holds: read from Milvus, and believed for a second."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2

from alula.catalog.binding import field_of, lowering_of
from alula.catalog.search_defaults import read_defaults
from alula.catalog.settings import check_format, read_settings, stored_defaults
from alula.gateway.encoder_cache import Encoders, NoEncoderError
from alula.gateway.functions import Function, functions_of
from alula.gateway.ops import metrics
from alula.gateway.upstream import Caller, MilvusError
from alula.index_types import IndexType, Lowering, VectorField, index_type

MAX_AGE = 1.0  # seconds that reads may trust a description; writes ask anew
MOST = 4096  # collections remembered


@dataclass(frozen=True)
class View:
    """A collection of Alula's as this gateway serves it.

    Args:
        collection: Its real name, where a client may have named an alias.
        settings: What Alula stored with it.
        schema: Its ``CollectionSchema`` upstream.
        kind: Its index type.
        stored_as: How that is stored; what is wrong where its encoder was not pushed.
        defaults: Its default search options.
    """

    collection: str
    settings: Mapping[str, str]
    schema: Any
    kind: IndexType
    stored_as: Lowering | NoEncoderError
    defaults: Mapping[str, Any]

    @property
    def lowering(self) -> Lowering:
        """How the index type is stored; a `NoEncoderError` for those who need it and cannot have it."""
        if isinstance(self.stored_as, NoEncoderError):
            raise self.stored_as
        return self.stored_as

    @cached_property
    def vector(self) -> VectorField:
        """The vector field that clients see."""
        return field_of(self.settings)

    @property
    def field(self) -> str:
        """Its name."""
        return self.vector.name

    @cached_property
    def companions(self) -> frozenset[str]:
        """Fields that clients do not see."""
        return frozenset(f.name for f in self.schema.fields if f.name.startswith(self.vector.companion("")))

    @cached_property
    def searched(self) -> str:
        """The companion that Milvus searches."""
        return next(name for name in _vector_fields(self.schema) if name in self.companions)

    def in_own_words(self, text: str) -> str:
        """A text of Milvus's with the vector field's name in the place of its companions'."""
        names = sorted(self.companions, key=len, reverse=True)  # one may begin with another
        return re.sub("|".join(map(re.escape, names)), self.field, text) if names else text

    @cached_property
    def primary_key(self) -> Any:
        """The primary key's ``FieldSchema``."""
        return next(field for field in self.schema.fields if field.is_primary_key)

    @property
    def vector_fields(self) -> list[str]:
        """Every vector field that clients see."""
        others = [name for name in _vector_fields(self.schema) if name not in self.companions]
        return others if self.field in others else [*others, self.field]


@dataclass(frozen=True)
class Known:
    """What is known of a collection.

    Args:
        view: None if no index type of Alula's is in it.
        functions: The functions that are computed for it.
        schema: Its ``CollectionSchema`` upstream; None if Milvus does not describe it.
        read: When Milvus was asked.
    """

    view: View | None
    functions: Sequence[Function] = ()
    schema: Any = None
    read: float = 0.0

    @property
    def ordinary(self) -> bool:
        """Whether Milvus can answer for it without the gateway."""
        return self.view is None and not self.functions

    @property
    def vector_fields(self) -> list[str]:
        """Every vector field that clients see."""
        return self.view.vector_fields if self.view else _vector_fields(self.schema)


class Views:
    """The views of all collections that clients named lately.

    Args:
        encoders: Where encoders come from.
    """

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders
        self._known: dict[tuple[str, str], Known] = {}
        self._reading: dict[tuple[str, str], threading.Lock] = {}
        self._changed: dict[str, float] = {}
        self._all_changed = 0.0
        self._lock = threading.Lock()

    def known(self, database: str, name: str) -> Known | None:
        """What is known of a collection, if that is not older than `MAX_AGE`."""
        found = self._known.get((database, name))
        return found if found and time.monotonic() - found.read < MAX_AGE else None

    def of(self, caller: Caller, database: str, name: str, *, fresh: bool = False) -> Known:
        """What there is to know of a collection; one that Milvus does not describe is an ordinary one.

        Args:
            caller: Who asks.
            database: The collection's database, "" for the default one.
            name: The collection, or an alias.
            fresh: Ask Milvus, whatever is known.

        Raises:
            AlulaError: If it is one of Alula's that this gateway cannot serve.
            grpc.RpcError: If Milvus does not answer.
        """
        asked = time.monotonic()
        with self._lock:
            if len(self._reading) >= MOST:  # of names that are no collection's, which are never known
                self._reading.clear()
            reading = self._reading.setdefault((database, name), threading.Lock())
        with reading:  # one question at a time: the others take its answer
            known = self.known(database, name)
            if known and (not fresh or known.read > asked):
                return known
            started = time.monotonic()
            try:
                about = caller.send(
                    "DescribeCollection", milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
                )
            except MilvusError:
                self.forget(database, name)
                return Known(None)
            view = self._view(caller, database, name, about, known.view if known else None)
            now = Known(view, functions_of(about.schema), about.schema, started)
            with self._lock:
                if len(self._known) >= MOST:
                    self._known.clear()
                if started > self._changed.get(database, self._all_changed):  # else it may be what it was before
                    self._known[database, name] = now
            return now

    def forget(self, database: str, name: str | None = None) -> None:
        """Forget a collection, or all of a database, and what is being read of it just now."""
        with self._lock:
            if len(self._changed) >= MOST:  # then all databases count as changed just now
                self._changed.clear()
                self._all_changed = time.monotonic()
            self._changed[database] = time.monotonic()
            for key in [key for key in self._known if key[0] == database and name in (None, key[1])]:
                del self._known[key]

    def _view(self, caller: Caller, database: str, name: str, about: Any, before: View | None) -> View | None:
        if not may_be_alulas(about.schema):
            return None
        indexes = describe_indexes(caller, database, about.schema.name or about.collection_name or name)
        _, settings = read_settings(indexes, about.schema.description)
        if not settings:
            return None
        check_format(name, settings)
        stored_as = before.stored_as if before and before.settings == settings else None
        if stored_as is None or isinstance(stored_as, NoEncoderError):
            stored_as = self._stored_as(caller, database, name, settings)
        properties = {pair.key: pair.value for pair in about.properties}
        kind = index_type(settings["type"])
        defaults = read_defaults(kind, stored_defaults(indexes, properties))
        real = about.schema.name or about.collection_name or name
        return View(real, settings, about.schema, kind, stored_as, defaults)

    def _stored_as(
        self, caller: Caller, database: str, name: str, settings: Mapping[str, str]
    ) -> Lowering | NoEncoderError:
        try:
            encoder = self._encoders.get(caller, database, settings["encoder"])
        except NoEncoderError as error:
            return error
        return metrics.encoding_counted(lowering_of(f"The collection {name!r}", settings, encoder))


def _vector_fields(schema: Any) -> list[str]:
    kinds = {code for name, code in DataType.__members__.items() if name.endswith("_VECTOR")}
    return [field.name for field in schema.fields if field.data_type in kinds]


def may_be_alulas(schema: Any) -> bool:
    """Whether a collection's description or its fields say that it could be one of Alula's."""
    companions = (DataType.SPARSE_FLOAT_VECTOR, DataType.BINARY_VECTOR)
    return bool(read_settings((), schema.description)[1]) or any(
        "__" in field.name and field.data_type in companions for field in schema.fields
    )


def describe_indexes(caller: Caller, database: str, name: str) -> list[dict[str, Any]]:
    """The indexes of a collection as pymilvus would tell them, none where there are none."""
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
