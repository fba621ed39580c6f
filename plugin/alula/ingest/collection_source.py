"""A collection as a source: its rows in primary-key order, page by page.

Sources of files alone need no Milvus client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pymilvus import DataType

from alula.catalog.description import is_companion, read_schema, scalar_field
from alula.catalog.settings import read_settings
from alula.encoders import Input
from alula.errors import UsageError
from alula.index_types import FieldSpec
from alula.milvus import Server, ensure_loaded
from alula.milvus.reading import count_rows, read_pages
from alula.milvus.wire.types import ELEMENT_TYPES, MILVUS_TYPE, TYPES, arrow_field
from alula.sources.base import Batch, Cursor
from alula.sources.columns import find_column, to_texts, to_vectors
from alula.sources.declared_types import DYNAMIC
from alula.sources.reading import Piece, regroup


class CollectionSource:
    """The rows of a collection; see `Source`. Cursors are primary keys.

    Rows that are written or deleted while a load runs may be seen or not; every other row is seen once.

    Args:
        server: Where.
        name: The collection: any one, Alula's own or not.
        vector_field: The field with the vectors; by default the only one. Alula keeps vectors as lists of floats where
            a server takes but one vector field.
        text_field: The field with the texts; by default the only VARCHAR beside the primary key.
        filter: A filter expression of Milvus that rows must satisfy.
        input: ``"vectors"`` or ``"text"``.
        live: True for concurrent writers; else reading raises an error if rows were skipped.

    Attributes:
        left_out: Fields that cannot be scalar columns, with their types.

    Raises:
        UsageError: If there is no such collection or field, or a field must be named.
        ServerError: If Milvus fails.
    """

    unique = True
    fingerprint = ""

    def __init__(
        self,
        server: Server,
        name: str,
        *,
        vector_field: str | None = None,
        text_field: str | None = None,
        filter: str = "",
        input: Input = "vectors",
        live: bool = False,
    ) -> None:
        if input == "images":
            raise UsageError(f"The collection {name!r} holds no images; an encoder of images loads from files.")
        if not server.has_collection(name):
            raise UsageError(f"There is no collection {name!r} at {server.uri}.")
        # a load is not resumed with another filter; the filters of live reading change with every look
        self.name = f"the collection {name!r}" + (f" where {filter}" if filter and not live else "")
        self.input: Input = input
        self._server, self._collection, self._filter, self._live = server, name, filter, live
        about, indexes = read_schema(server, name)
        ensure_loaded(server, name)
        settings = read_settings(indexes, about.get("description", ""))[1]
        schema, self.left_out = _schema(about, settings.get("field"))
        self._key = next(field["name"] for field in about["fields"] if field.get("is_primary"))
        # beside vectors, Alula's own may be an array, and others' arrays are scalar columns
        vectors = [f for f in schema if f.name == settings.get("field") or f.metadata[MILVUS_TYPE].endswith(b"_VECTOR")]
        if input == "vectors":
            beside = schema if vector_field else pa.schema(vectors)
            self.column = find_column(self.name, beside, vector_field, "vectors", argument="vector_field")
        else:
            beside = schema.remove(schema.get_field_index(self._key)) if text_field is None else schema
            self.column = find_column(self.name, beside, text_field, "text", argument="text_field")
        self.scalars: Mapping[str, pa.DataType] = {field.name: field.type for field in schema if field not in vectors}
        others = [field for field in vectors if field.name != self.column]
        self.left_out |= {field.name: field.metadata[MILVUS_TYPE].decode() for field in others}
        self._schema = pa.schema([field for field in schema if field not in others])
        self.dim: int | None = None
        if input == "vectors":
            kind = schema.field(self.column).type
            self.dim = kind.list_size if pa.types.is_fixed_size_list(kind) else int(settings["dim"])
        self.rows: int | None = count_rows(server, name, filter)

    def batches(self, size: int = 8192, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:
        """See `Source.batches`.

        Raises:
            UsageError: If the filter cannot be used.
            ServerError: If Milvus fails, or gives rows in another order.
        """
        for piece in regroup(map(Piece, self._pages(self._schema.names, after)), size):
            record = piece.record
            keys = record.column(self._key)
            columns = {name: record.column(name) for name in self.scalars}
            column = record.column(self.column)
            inputs, bad = (
                to_vectors(column, self.column, self.dim) if self.input == "vectors" else to_texts(column, self.column)
            )
            yield Batch(start, inputs, columns, bad, record, keys[0].as_py(), keys[-1].as_py())
            start += len(piece)

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:  # noqa: ARG002 - pages are Milvus's
        """See `Source.keys`."""
        for page in self._pages([column, self._key], None):
            yield page.column(column)

    def _pages(self, names: Sequence[str], after: Cursor | None) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([self._schema.field(name) for name in dict.fromkeys(names)])
        return read_pages(
            self._server, self._collection, schema, self._key, filter=self._filter, after=after, counted=not self._live
        )


def type_name(number: int) -> str:
    """Milvus's name of a field type, e.g. ``INT64``."""
    return str(DataType(number).name)


def _schema(about: Mapping[str, Any], own: str | None) -> tuple[pa.Schema, dict[str, str]]:
    """The readable fields with their Arrow types, and the types of the others.

    Args:
        about: The collection, as pymilvus describes it.
        own: The vector field that Alula made the collection for, if it did.
    """
    found: list[pa.Field] = []
    others: dict[str, str] = {}
    for field in about["fields"]:
        name, kind = field["name"], type_name(field["type"])
        if own is not None and is_companion(name, own):
            continue
        field_type = TYPES.get(kind)
        if "element_type" in field and type_name(field["element_type"]) not in ELEMENT_TYPES:
            others[name] = f"{kind} of {type_name(field['element_type'])}"
        elif field_type is None or not (field_type.is_float or field_type.layout in ("scalar", "array")):
            others[name] = kind
        elif not field_type.is_float:
            found.append(arrow_field(scalar_field(field).spec))
        elif field.get("nullable"):
            others[name] = f"{kind}, nullable"
        else:
            found.append(arrow_field(FieldSpec(name, kind, 0, field.get("params", {}))))
    if about.get("enable_dynamic_field"):
        found.append(arrow_field(FieldSpec(DYNAMIC, "JSON", 0)))
    return pa.schema(found), others
