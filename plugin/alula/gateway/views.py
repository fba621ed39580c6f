"""What a client sees of a collection, and what Milvus holds: read from Milvus, and believed for a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2

from alula import stored
from alula.collections import lowering_of, read_defaults
from alula.errors import AlulaError
from alula.gateway import metrics
from alula.gateway.encoders import Encoders
from alula.gateway.upstream import Caller, RefusedError
from alula.index_types import IndexType, Lowering, index_type

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
        lowering: How that is stored.
        defaults: Its default search options.
    """

    collection: str
    settings: Mapping[str, str]
    schema: Any
    kind: IndexType
    lowering: Lowering
    defaults: Mapping[str, Any]

    @property
    def field(self) -> str:
        """The vector field that clients see."""
        return self.lowering.field.name

    @cached_property
    def companions(self) -> frozenset[str]:
        """Fields that clients do not see."""
        return frozenset(spec.name for spec in self.lowering.fields)

    @cached_property
    def primary_key(self) -> Any:
        """The primary key's ``FieldSchema``."""
        return next(field for field in self.schema.fields if field.is_primary_key)

    @property
    def vector_fields(self) -> list[str]:
        """Every vector field that clients see."""
        kinds = {code for name, code in DataType.__members__.items() if name.endswith("_VECTOR")}
        others = [f.name for f in self.schema.fields if f.data_type in kinds and f.name not in self.companions]
        return others if self.field in others else [*others, self.field]


@dataclass(frozen=True)
class _Known:
    view: View | None
    read: float


class Views:
    """The views of all collections that clients named lately.

    Args:
        encoders: Where encoders come from.
    """

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders
        self._known: dict[tuple[str, str], _Known] = {}
        self._reading: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def known(self, database: str, name: str) -> _Known | None:
        """What is known of a collection, if that is not older than `MAX_AGE`."""
        found = self._known.get((database, name))
        return found if found and time.monotonic() - found.read < MAX_AGE else None

    def of(self, caller: Caller, database: str, name: str, *, fresh: bool = False) -> View | None:
        """The view of a collection; None for ordinary ones, and for those that Milvus does not describe.

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
            reading = self._reading.setdefault((database, name), threading.Lock())
        with reading:  # one question at a time: the others take its answer
            known = self.known(database, name)
            if known and (not fresh or known.read > asked):
                return known.view
            started = time.monotonic()
            try:
                view = self._read(caller, database, name, known.view if known else None)
            except RefusedError:
                self.forget(database, name)
                return None
            with self._lock:
                if len(self._known) >= MOST:
                    self._known.clear()
                    self._reading.clear()
                self._known[database, name] = _Known(view, started)
            return view

    def forget(self, database: str, name: str | None = None) -> None:
        """Forget a collection, or all of a database."""
        with self._lock:
            for key in [key for key in self._known if key[0] == database and name in (None, key[1])]:
                del self._known[key]

    def _read(self, caller: Caller, database: str, name: str, before: View | None) -> View | None:
        about = caller.send(
            "DescribeCollection", milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
        )
        if not may_be_alulas(about.schema):
            return None
        indexes = describe_indexes(caller, database, about.schema.name or about.collection_name or name)
        _, settings = stored.read(indexes, about.schema.description)
        if not settings:
            return None
        if settings.get("format") != stored.FORMAT:
            raise AlulaError(
                f"The collection {name!r} has Alula's collection format {settings.get('format')}, and this gateway "
                f"reads {stored.FORMAT}; update it."
            )
        if before and before.settings == settings:
            lowering = before.lowering
        else:
            encoder = self._encoders.get(caller, database, settings["encoder"])
            lowering = metrics.encoding_counted(lowering_of(f"The collection {name!r}", settings, encoder))
        properties = {pair.key: pair.value for pair in about.properties}
        kind = index_type(settings["type"])
        defaults = read_defaults(kind, stored.read_defaults(indexes, properties))
        real = about.schema.name or about.collection_name or name
        return View(real, settings, about.schema, kind, lowering, defaults)


def may_be_alulas(schema: Any) -> bool:
    """Whether a collection's description or its fields say that it could be one of Alula's."""
    companions = (DataType.SPARSE_FLOAT_VECTOR, DataType.BINARY_VECTOR)
    return bool(stored.read((), schema.description)[1]) or any(
        "__" in field.name and field.data_type in companions for field in schema.fields
    )


def describe_indexes(caller: Caller, database: str, name: str) -> list[dict[str, Any]]:
    """The indexes of a collection as pymilvus would tell them, none where there are none."""
    request = milvus_pb2.DescribeIndexRequest(db_name=database, collection_name=name)
    try:
        response = caller.send("DescribeIndex", request)
    except RefusedError:
        return []
    return [
        {pair.key: pair.value for pair in index.params}
        | {"index_name": index.index_name, "field_name": index.field_name}
        for index in response.index_descriptions
    ]
