"""Design a collection with an index type, and create it in Milvus."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alula.catalog.binding import check_fit
from alula.catalog.collection_spec import CollectionSpec
from alula.catalog.description import connected
from alula.catalog.schema import ScalarField, check_distinct, check_name
from alula.catalog.settings import FORMAT, FORMAT_WITH_TYPE, MAX_DESCRIPTION, as_index_params, with_settings
from alula.encoders import MAX_DIM, Encoder, load_encoder
from alula.errors import EncoderError, UnsupportedError, UsageError
from alula.index_types import (
    Capabilities,
    FieldSpec,
    IndexType,
    Lowering,
    NativeIndex,
    Storage,
    VectorField,
    check_options,
    check_vector_type,
    choose_storage,
    vector_index,
    vector_spec,
)
from alula.index_types import index_type as find_index_type
from alula.milvus import Server, load_collection, milvus_errors, probe
from alula.milvus.schema_fields import add_field, index_params

DEFAULT_FIELD = "embedding"
DEFAULT_KEY = "id"
# The longest vector that can be kept; 4096 is the capacity of Milvus's longest ARRAY.
MAX_KEPT_DIM: Mapping[Storage, float] = {"field": MAX_DIM, "column": 4096, "dropped": math.inf}

IN_MEMORY: Mapping[str, Any] = {"mmap_enabled": False, "warmup": "sync"}


def design(
    server: Server | str,
    name: str,
    *,
    encoder: Encoder | str | Path,
    index_type: str,
    field: str = DEFAULT_FIELD,
    primary_key: str | ScalarField = f"{DEFAULT_KEY}:INT64",
    columns: Sequence[str | ScalarField] = (),
    metric: str | None = None,
    keep_vectors: bool = True,
    vector_type: str = "FLOAT_VECTOR",
    partition_key: str | None = None,
    dynamic: bool = False,
    options: Mapping[str, Any] | None = None,
) -> CollectionSpec:
    """Design a collection without creating it.

    Arguments and errors are those of `alula.Collection.create`.
    """
    server = connected(server)
    encoder = load_encoder(encoder) if isinstance(encoder, str | Path) else encoder
    kind = find_index_type(index_type)
    checked = check_options(kind.create_options, options or {}, kind.name)
    further = kind.option_probes(checked)
    try:
        check_fit(kind, encoder, subject=f"The collection {name!r}", metric=metric)
    except EncoderError:
        kind.choose(probe(server, further), checked)  # no encoder helps where the server lacks the index type
        raise
    key, fields = _fields(name, field, primary_key, columns)
    _check_defaults(server, fields)
    if server.has_collection(name):
        raise UsageError(f"The collection {name!r} exists at {server.uri}; drop it with 'alula drop {name}' first.")
    capabilities = probe(server, further)
    lowering = new_lowering(
        kind, encoder, field, capabilities, keep_vectors=keep_vectors, vector_type=vector_type, options=checked
    )
    check_distinct([key.name, field, *(f.name for f in fields), *(f.name for f in lowering.fields)])
    if partition_key is not None:
        _check_partition_key(server, fields, partition_key)
    return CollectionSpec(server, name, key, fields, lowering, partition_key, dynamic)


def create(spec: CollectionSpec, *, description: str = "", consistency_level: str | None = None) -> None:
    """Create a designed collection in Milvus, with its indexes, and load it.

    Args:
        spec: The collection, as `design` returned it.
        description: A text for people.
        consistency_level: As in Milvus.

    Raises:
        UnsupportedError: If the server has no nullable fields, and the collection has.
        ServerError: If Milvus fails; the collection is then dropped again.
    """
    client, name = spec.server.client, spec.name
    described = with_settings(description, spec.lowering.settings)
    if len(described.encode()) > MAX_DESCRIPTION and not spec.server.embedded:
        described = description  # the index has the settings too
    schema = client.create_schema(auto_id=False, description=described, enable_dynamic_field=spec.dynamic)
    add_field(schema, spec.primary_key.spec, is_primary=True)
    for field in spec.fields:
        add_field(schema, field.spec, **({"is_partition_key": True} if field.name == spec.partition_key else {}))
    for added in added_fields(spec.lowering):
        add_field(schema, added)
    extra = {"consistency_level": consistency_level} if consistency_level else {}
    created = False
    try:
        with milvus_errors(f"create the collection {name!r}"):
            client.create_collection(name, schema=schema, **extra)
            created = True
            _check_nullable(spec)
            # an empty collection's index has nothing to wait for, and pymilvus would wait half a second at least
            client.create_index(name, index_params(client, native_indexes(spec.lowering)), sync=False)
            load_collection(spec.server, name)
    except BaseException:
        if created:
            with contextlib.suppress(Exception):
                client.drop_collection(name)
        raise


def _check_nullable(spec: CollectionSpec) -> None:
    """Raise an `UnsupportedError` if the server ignored that fields are nullable.

    Milvus before 2.5 does, without an error.
    """
    wanted = {field.name for field in spec.fields if field.nullable}
    if wanted:
        entries = spec.server.client.describe_collection(spec.name)["fields"]
        wanted -= {entry["name"] for entry in entries if entry.get("nullable")}
    if wanted:
        raise UnsupportedError(
            f"This server has no nullable fields ({', '.join(sorted(wanted))}); Milvus has them since 2.5."
        )


def _check_defaults(server: Server, fields: Sequence[ScalarField]) -> None:
    """Raise an `UnsupportedError` for defaults on a server that cannot have them."""
    given = [str(field) for field in fields if field.default is not None]
    if given and not server.dialect.defaults:
        raise UnsupportedError(
            f"{server.dialect.name} cannot have defaults ({', '.join(given)}): it ends when a client leaves such a "
            "value out. Leave ':default=...' out, and give each row its values."
        )


def _check_partition_key(server: Server, fields: Sequence[ScalarField], name: str) -> None:
    """Raise a `UsageError` unless a field can spread the rows over partitions."""
    server.check_partitions("leave out partition_key=...")
    possible = [field.name for field in fields if field.data_type in ("INT64", "VARCHAR") and not field.nullable]
    if name not in possible:
        raise UsageError(
            f"The partition key {name!r} must be an INT64 or VARCHAR field beside the primary key; there "
            f"are: {', '.join(possible) or 'none'}."
        )


def new_lowering(
    kind: IndexType,
    encoder: Encoder,
    field: str,
    capabilities: Capabilities,
    *,
    keep_vectors: bool,
    vector_type: str,
    options: Mapping[str, Any],
) -> Lowering:
    """Lower an index type onto a new field of one server.

    Args:
        kind: The index type.
        encoder: Its encoder.
        field: Name of the vector field.
        capabilities: The server's capabilities.
        keep_vectors: True to keep the vectors for exact re-ranking.
        vector_type: The type of the field that keeps them.
        options: Checked create options of the index type, each present.

    Raises:
        UnsupportedError: If the server lacks a capability that the index type needs.
        UsageError: If the vectors have too many dimensions to be kept, or cannot be kept in that type.
    """
    chosen = kind.choose(capabilities, options)
    storage = choose_storage(keep_vectors, capabilities)
    if encoder.info.input_dim > MAX_KEPT_DIM[storage]:
        raise UsageError(
            f"Vectors of {encoder.info.input_dim:,} dimensions cannot be kept: {capabilities.server} keeps at most "
            f"{MAX_KEPT_DIM[storage]:,}; create the collection without them (keep_vectors=False)."
        )
    check_vector_type(vector_type, storage, capabilities)
    vector_field = VectorField(field, encoder.info.input_dim, encoder.info.metric, storage, vector_type)
    settings = {
        "format": FORMAT,
        "type": kind.name,
        "field": field,
        "dim": str(vector_field.dim),
        "metric": vector_field.metric,
        "vectors": storage,
        "encoder": encoder.sha256,
        **chosen,
    }
    if vector_type != "FLOAT_VECTOR":
        settings |= {"format": FORMAT_WITH_TYPE, "vector_type": vector_type}
    lowering = kind.lowering(vector_field, encoder, settings)
    lowering.settings["bytes_per_row"] = str(sum(spec.bytes_per_row for spec in lowering.fields))
    return lowering


def added_fields(lowering: Lowering) -> list[FieldSpec]:
    """The companions of an index type, and the field of kept vectors if any.

    Every search reads all sign bits. So they are loaded with the collection, and held in memory; by default Milvus 2.6
    and later leave them in object storage until the first search, and map them from disk.
    """
    kept = vector_spec(lowering.field)
    companions = [
        replace(spec, params={**spec.params, **IN_MEMORY}) if spec.data_type == "BINARY_VECTOR" else spec
        for spec in lowering.fields
    ]
    return [*companions, *([kept] if kept else [])]


def native_indexes(lowering: Lowering) -> list[NativeIndex]:
    """The native indexes of a lowering.

    The first one is searched, and its parameters also contain the collection's settings.
    """
    searched, kept = lowering.index, vector_index(lowering.field)
    params = {**searched.params, **as_index_params(lowering.settings)}
    return [replace(searched, params=params), *([kept] if kept else [])]


def _fields(
    name: str, field: str, primary_key: str | ScalarField, columns: Sequence[str | ScalarField]
) -> tuple[ScalarField, tuple[ScalarField, ...]]:
    check_name(name, "collection")
    check_name(field, "field")
    if isinstance(primary_key, str) and ":" not in primary_key:
        primary_key += ":INT64"
    key, *fields = (f if isinstance(f, ScalarField) else ScalarField.parse(f) for f in (primary_key, *columns))
    if key.data_type not in ("INT64", "VARCHAR"):
        raise UsageError(f"The primary key is {key}; Milvus takes INT64 or VARCHAR.")
    if key.optional:
        raise UsageError(f"The primary key is {key}; every row has a key.")
    return key, tuple(fields)
