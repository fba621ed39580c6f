"""The source collection of a migration, and the fields that are carried over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alula.catalog.description import partition_key_of, read_schema, scalar_field
from alula.catalog.schema import ScalarField
from alula.catalog.settings import read_settings
from alula.errors import UsageError
from alula.ingest.collection_source import CollectionSource, type_name
from alula.milvus import Server, literal, milvus_errors
from alula.sources import Cursor
from alula.sources.declared_types import DYNAMIC

_LEVELS = ("Strong", "Bounded", "Session", "Eventually")


@dataclass(frozen=True)
class FieldMapping:
    """One field of the source collection, and its form in the new one.

    Args:
        name: The field.
        type: Its type in the source collection, in words.
        becomes: Its form in the new one, in words.
    """

    name: str
    type: str
    becomes: str


@dataclass(frozen=True)
class SourceCollection:
    """A collection to be migrated.

    Args:
        server: Where it is.
        name: Its own name, even if it was named by an alias.
        filter: The rows to take, as a filter of Milvus; "" for all.
        primary_key: Its primary key.
        fields: The scalar fields that are carried over.
        partition_key: The one by whose values Milvus spreads the rows over partitions.
        dynamic: True if values without a field are carried over.
        vector_field: The field with the vectors.
        dim: Their dimension.
        rows: The number of rows.
        metric: The metric of the index on the vectors, None without an index.
        index_type: The type of that index in Milvus's words, or Alula's own.
        settings: Settings that Alula stored with it; empty for a plain collection.
        text: Its description.
        consistency_level: Its default.
        mappings: Every field.
        notes: A sentence for each property that is not carried over.
    """

    server: Server
    name: str
    filter: str
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    partition_key: str | None
    dynamic: bool
    vector_field: str
    dim: int
    rows: int
    metric: str | None
    index_type: str | None
    settings: Mapping[str, str]
    text: str
    consistency_level: str | None
    mappings: tuple[FieldMapping, ...]
    notes: tuple[str, ...]

    def where(self, filter: str = "", last: Cursor | None = None) -> str:
        """The filter for its rows that satisfy one more filter, up to the last key.

        Without a last key, reading a collection with growing keys and concurrent writes may never end.
        """
        bound = "" if last is None else f"{self.primary_key.name} <= {literal(last)}"
        return " and ".join(f"({part})" for part in (self.filter, filter, bound) if part)

    def rows_where(self, filter: str = "", *, last: Cursor | None = None) -> CollectionSource:
        """Its rows that satisfy one more filter, up to the last key."""
        both = self.where(filter, last)
        return CollectionSource(self.server, self.name, vector_field=self.vector_field, filter=both, live=True)

    def count(self) -> int:
        """The number of rows now."""
        return self.rows_where().rows or 0


def read_source_collection(
    server: Server, name: str, *, vector_field: str | None = None, exclude_fields: Sequence[str] = (), filter: str = ""
) -> SourceCollection:
    """Read the schema of a collection to migrate.

    Args:
        server: Where it is.
        name: The collection, or an alias.
        vector_field: The field with the vectors; by default the only one.
        exclude_fields: Fields that are not carried over.
        filter: The rows to take.

    Raises:
        UsageError: If there is no such collection, its vectors were dropped, or it has fields that Alula cannot carry
            and `exclude_fields` does not name.
        ServerError: If Milvus fails.
    """
    if not server.has_collection(name):
        raise UsageError(f"There is no collection {name!r} at {server.uri}.")
    about, indexes = read_schema(server, name)
    name = str(about["collection_name"])  # an alias may be moved during the migration
    text, settings = read_settings(indexes, about.get("description", ""))
    if settings.get("vectors") == "dropped":
        raise UsageError(
            f"{name!r} was created without keeping its vectors, so there are none to encode; create the new "
            "collection and load the vectors into it from their files."
        )
    source = CollectionSource(server, name, vector_field=vector_field or settings.get("field"), filter=filter)
    entries = {entry["name"]: entry for entry in about["fields"]}
    (key,) = (scalar_field(entry) for entry in about["fields"] if entry.get("is_primary"))
    column = source.column
    kinds = {field: _kind(entry) for field, entry in entries.items()}
    kinds |= {DYNAMIC: "values without a field"} if DYNAMIC in source.scalars else {}
    _check_left_out(name, kinds, source.left_out, exclude_fields, (key.name, column))
    taken = [field for field in source.scalars if field != key.name and field not in exclude_fields]
    carried = tuple(scalar_field(entries[field]) for field in taken if field != DYNAMIC)
    partition_key = partition_key_of(about["fields"])
    index: Mapping[str, Any] = next((index for index in indexes if index.get("field_name") == column), {})
    level = str(about.get("consistency_level_name", ""))
    kept = {field.name: str(field) for field in (key, *carried)} | {column: "the vectors, encoded again"}
    kept |= {DYNAMIC: "the same"} if DYNAMIC in taken else {}
    mappings = [FieldMapping(field, kind, kept.get(field, _gone(field, settings))) for field, kind in kinds.items()]
    return SourceCollection(
        server=server,
        name=name,
        filter=filter,
        primary_key=key,
        fields=carried,
        partition_key=partition_key if partition_key in taken else None,
        dynamic=DYNAMIC in taken,
        vector_field=column,
        dim=source.dim or 0,
        rows=source.rows or 0,
        metric=settings.get("metric") or index.get("metric_type"),
        index_type=settings.get("type") or index.get("index_type"),
        settings=settings,
        text=text,
        consistency_level=level if level in _LEVELS else None,
        mappings=tuple(mappings),
        notes=tuple(_notes(server, name, about, taken)),
    )


def _check_left_out(
    name: str,
    fields: Mapping[str, str],
    cannot: Mapping[str, str],
    exclude_fields: Sequence[str],
    needed: tuple[str, str],
) -> None:
    for field in exclude_fields:
        if field in needed:
            raise UsageError(f'exclude_field="{field}": the new collection needs the key and the vectors.')
        if field not in fields:
            raise UsageError(f'exclude_field="{field}": {name!r} has no such field; it has: {", ".join(fields)}.')
    lost = {field: kind for field, kind in cannot.items() if field not in exclude_fields}
    if lost:
        shown = ", ".join(f"{field} ({kind})" for field, kind in lost.items())
        options = " ".join(f"exclude_field={field!r}" for field in lost)
        raise UsageError(f"Alula cannot carry these fields of {name!r}: {shown}. To migrate without them: {options}.")


def _kind(entry: Mapping[str, Any]) -> str:
    kind = type_name(entry["type"])
    params = entry.get("params", {})
    if "element_type" in entry:
        kind += f" of {type_name(entry['element_type'])}"
    for name in ("dim", "max_length"):
        kind += f"({params[name]})" if name in params else ""
    marks = {"is_primary": "primary key", "is_partition_key": "partition key", "nullable": "nullable"}
    return ", ".join([kind, *(words for mark, words in marks.items() if entry.get(mark))])


def _gone(field: str, settings: Mapping[str, str]) -> str:
    own = settings.get("field")
    return "encoded again" if own and field.startswith(f"{own}__") else "left out"


def _notes(server: Server, name: str, about: Mapping[str, Any], taken: Sequence[str]) -> list[str]:
    notes = []
    for entry in about["fields"]:
        if entry.get("auto_id"):
            notes.append(
                f"Milvus generates the values of {entry['name']}; writers of the new collection must give them."
            )
        if entry.get("is_partition_key") and entry["name"] not in taken:
            notes.append(f"The partition key {entry['name']} is left out; the new collection has none.")
    keyed = any(entry.get("is_partition_key") for entry in about["fields"])
    if server.dialect.partitions and not keyed:
        with milvus_errors(f"list the partitions of {name!r}"):
            partitions = [part for part in server.client.list_partitions(name) if part != "_default"]
        if partitions:
            shown = ", ".join(partitions[:5]) + (", ..." if len(partitions) > 5 else "")
            notes.append(f"Rows of all partitions ({shown}) go into one; the new collection has no others.")
    if about.get("properties"):
        shown = ", ".join(f"{key}={value}" for key, value in about["properties"].items())
        notes.append(f"Properties are not carried over: {shown}.")
    return notes
