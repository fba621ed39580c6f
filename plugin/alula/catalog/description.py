"""Describe a collection without its encoder: fields, settings, search defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pymilvus import DataType

from alula.catalog.binding import field_of
from alula.catalog.schema import MAX_CAPACITY, MAX_VARCHAR, ScalarField, fields_text
from alula.catalog.settings import check_format, read_settings, stored_defaults
from alula.errors import UsageError
from alula.index_types import RowCost, fields_cost, index_types
from alula.milvus import Server, connect, ensure_loaded, milvus_errors
from alula.milvus.reading import count_rows
from alula.milvus.wire.types import field_spec
from alula.notebook import html_table

_VECTORS = {
    "field": "kept in a vector field, for exact re-ranking",
    "column": "kept in an ARRAY column, for exact re-ranking (this server has one vector field per collection)",
    "dropped": "dropped; scores are estimates",
}


@dataclass(frozen=True)
class Description:
    """An Alula collection without its encoder.

    Args:
        name: The collection.
        server: The server's address.
        rows: The number of its rows; None if they were not counted.
        settings: The settings stored with it: index type, encoder fingerprint, layout, metric, ...
        primary_key: Its primary key field.
        fields: Its scalar fields.
        companions: The fields that Alula maintains, with Milvus's type names.
        text: The user's description.
        cost: Bytes of a row of its index and kept vectors on this server.
        defaults: Search options for searches that do not give them, as `Collection.set_defaults` wrote them.
        unindexed: Fields of Alula that have lost their native index, without which Milvus loads no collection.
        partition_key: The scalar field by whose values Milvus spreads the rows over partitions.
        dynamic: True if it takes values that have no field.
        identity: The server's own id of the collection, which changes when it is dropped and created again; "" on
            servers without ids (Milvus Lite).
    """

    name: str
    server: str
    rows: int | None
    settings: Mapping[str, str]
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    companions: Mapping[str, str]
    text: str
    cost: RowCost
    defaults: Mapping[str, str]
    unindexed: tuple[str, ...] = ()
    partition_key: str | None = None
    dynamic: bool = False
    identity: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """Its properties in words, by their names."""
        settings, fields = self.settings, fields_text(self.fields, self.partition_key, dynamic=self.dynamic)
        return {
            "collection": self.name,
            "server": self.server,
            "rows": "not counted" if self.rows is None else f"{self.rows:,}",
            "index type": settings["type"] + (f", layout {settings['layout']}" if "layout" in settings else ""),
            "vector field": f"{settings['field']}, {settings['dim']} dimensions, {settings['metric']}",
            "vectors": _VECTORS[settings["vectors"]],
            "encoder (sha256)": settings["encoder"],
            "primary key": str(self.primary_key),
            "scalar fields": fields or "none",
            "added by Alula": ", ".join(f"{field} ({data_type})" for field, data_type in self.companions.items()),
        }

    def _repr_html_(self) -> str:
        """Its properties as a table, for notebooks."""
        facts = self.facts
        caption = f"{facts.pop('collection')} at {facts.pop('server')}"
        facts["memory per row"] = f"{self.cost.memory_bytes:,.0f} bytes"
        facts["disk per row"] = f"{self.cost.disk_bytes:,.0f} bytes"
        facts["search options"] = ", ".join(f"{option} {value}" for option, value in self.defaults.items())
        facts["description"] = self.text
        return html_table(caption, ("property", "value"), [pair for pair in facts.items() if pair[1]])


def describe(server: Server | str, name: str, *, count: bool = True) -> Description:
    """Describe an Alula collection without its encoder.

    Args:
        server: A connected server or its address.
        name: The collection.
        count: True to count its rows, for which the server loads the collection; one that has lost an index is not.

    Raises:
        UsageError: If there is no such collection, or it is not one of Alula's.
        AlulaError: If a newer Alula created it.
        ServerError: If Milvus fails.
    """
    server = connected(server, must_exist=True)
    if not server.has_collection(name):
        with milvus_errors("list the collections"):
            others = sorted(server.client.list_collections())
        raise UsageError(f"There is no collection {name!r} at {server.uri}; there are: {', '.join(others) or 'none'}.")
    schema, indexes = read_schema(server, name)
    text, settings = read_settings(indexes, schema.get("description", ""))
    if not settings and any(index.get("index_type") in index_types() for index in indexes):
        raise UsageError(
            f"{server.uri} is a gateway, which shows {name!r} as other clients see it; give Milvus's own address."
        )
    if not settings:
        raise UsageError(f"The collection {name!r} has no Alula index type; create one with 'alula create'.")
    check_format(name, settings)
    key, fields, companions = _fields(schema["fields"], settings["field"])
    indexed = {str(index.get("field_name")) for index in indexes}
    unindexed = tuple(field for field, kind in companions.items() if "VECTOR" in kind and field not in indexed)
    return Description(
        name=name,
        server=server.uri,
        rows=load_and_count(server, name) if count and not unindexed else None,
        settings=settings,
        primary_key=key,
        fields=fields,
        companions=companions,
        text=text,
        cost=_cost(server, schema["fields"], indexes, settings),
        defaults=stored_defaults(indexes, schema.get("properties") or {}),
        unindexed=unindexed,
        partition_key=partition_key_of(schema["fields"]),
        dynamic=bool(schema.get("enable_dynamic_field")),
        identity=str(schema.get("collection_id") or ""),
    )


def connected(server: Server | str, *, must_exist: bool = False) -> Server:
    """A connected server, or a new connection to an address; see `alula.connect`."""
    return connect(server, must_exist=must_exist) if isinstance(server, str) else server


def read_schema(server: Server, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A collection's schema and its indexes, as pymilvus describes them.

    Raises:
        ServerError: If Milvus fails.
    """
    with milvus_errors(f"describe the collection {name!r}"):
        schema: dict[str, Any] = server.client.describe_collection(name)
        real = schema.get("collection_name") or name  # an alias could point elsewhere by now
        indexes = [server.client.describe_index(real, index) for index in server.client.list_indexes(real)]
    return schema, indexes


def load_and_count(server: Server, name: str) -> int:
    """The number of rows of a collection, which is loaded first if need be.

    Raises:
        ServerError: If Milvus fails.
    """
    ensure_loaded(server, name)
    return count_rows(server, name)


def scalar_field(entry: Mapping[str, Any]) -> ScalarField:
    """A scalar field out of pymilvus's description of it."""
    params = entry.get("params", {})
    return ScalarField(
        entry["name"],
        DataType(entry["type"]).name,
        max_length=int(params.get("max_length", MAX_VARCHAR)),
        element_type=DataType(entry["element_type"]).name if "element_type" in entry else None,
        max_capacity=int(params.get("max_capacity", MAX_CAPACITY)),
        nullable=bool(entry.get("nullable")),
        default=_default(entry.get("default_value")),
    )


def _default(value: Any) -> Any:
    """The value in a message of the protocol; None without one."""
    slot = value.WhichOneof("data") if value is not None else None
    return getattr(value, slot) if slot else None


def partition_key_of(entries: Iterable[Mapping[str, Any]]) -> str | None:
    """The partition key among fields as pymilvus describes them; None without one."""
    return next((str(entry["name"]) for entry in entries if entry.get("is_partition_key")), None)


def is_companion(name: str, vector_field: str) -> bool:
    """True for the name of a field that Alula adds beside a vector field."""
    return name.startswith(f"{vector_field}__")


def _cost(
    server: Server,
    entries: Iterable[Mapping[str, Any]],
    indexes: Iterable[Mapping[str, Any]],
    settings: Mapping[str, str],
) -> RowCost:
    """The bytes of a row, from the companion fields that Milvus describes."""
    vector = field_of(settings)
    specs = [
        field_spec(entry["name"], DataType(entry["type"]).name, **entry.get("params", {}))
        for entry in entries
        if is_companion(entry["name"], vector.name)
    ]
    # a sparse vector's schema does not say how long it is
    rest = int(settings["bytes_per_row"]) - sum(spec.bytes_per_row for spec in specs)
    companions = [spec if spec.bytes_per_row else replace(spec, bytes_per_row=rest) for spec in specs]
    names = {spec.name for spec in specs}
    searched = next((str(index["index_type"]) for index in indexes if index.get("field_name") in names), "")
    return fields_cost(vector, companions, searched, maps=server.dialect.maps)


def _fields(
    entries: list[dict[str, Any]], vector_field: str
) -> tuple[ScalarField, tuple[ScalarField, ...], dict[str, str]]:
    """The primary key, the other scalar fields, and the types of Alula's own fields."""
    own = {
        entry["name"]: DataType(entry["type"]).name
        for entry in entries
        if entry["name"] == vector_field or is_companion(entry["name"], vector_field)
    }
    (key,) = (scalar_field(entry) for entry in entries if entry.get("is_primary"))
    fields = tuple(scalar_field(entry) for entry in entries if entry["name"] not in own and not entry.get("is_primary"))
    return key, fields, own
