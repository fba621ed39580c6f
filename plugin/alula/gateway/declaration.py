"""Declarations of index types by clients, and the schemas that Milvus gets.

In Milvus an index follows its collection, and vector fields cannot be added later (before 2.6.18). So an index type is
declared in one of two ways, and rejected in a third case:

- *With the collection*: properties ``alula.index_type`` and ``alula.encoder``. Every SDK sends properties unchanged,
  while some of them check the parameters of fields and unknown data types.
- *With the index of an empty collection*: ``create_index(index_type="DRQ", params={"encoder": ...})``, like an index of
  Milvus. The gateway recreates the collection under its name, with the fields that the index type needs.
- *With rows in the collection*: rejected; ``alula migrate`` copies the rows into a new collection while the old one
  serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.binding import check_fit
from alula.catalog.create import added_fields, new_lowering
from alula.catalog.settings import SETTINGS_PREFIX, with_settings
from alula.errors import UsageError, respell
from alula.gateway.session import Session
from alula.gateway.upstream import newer_parts, pairs, refill
from alula.index_types import FieldSpec, IndexType, Lowering, check_options, index_type, index_types

_INDEX_TYPE, _ENCODER, _FIELD, _KEEP, _TYPE = "index_type", "encoder", "field", "keep_vectors", "vector_type"
MAPPED = "mmap_enabled"
_NATIVE = ("index_type", "metric_type", "params", "mmap.enabled", "index_name")


@dataclass(frozen=True)
class Declaration:
    """An index type as a client declares it.

    Args:
        index_type: The index type.
        encoder: Name or fingerprint of its encoder.
        options: Create options of the index type.
        field: The vector field; None for the only one.
        metric: The metric that the client named, if any.
        keep_vectors: True to keep the vectors for exact re-ranking.
        vector_type: The type of the field that keeps them.
    """

    index_type: IndexType
    encoder: str
    options: Mapping[str, Any]
    field: str | None = None
    metric: str | None = None
    keep_vectors: bool = True
    vector_type: str = "FLOAT_VECTOR"


def in_properties(properties: Iterable[Any]) -> Declaration | None:
    """The declaration in a collection's properties, or None.

    Raises:
        UsageError: If properties are invalid or missing.
    """
    mine = {p.key.removeprefix(SETTINGS_PREFIX): p.value for p in properties if p.key.startswith(SETTINGS_PREFIX)}
    if not mine:
        return None
    if _INDEX_TYPE not in mine:
        raise UsageError(
            f"The properties {', '.join(SETTINGS_PREFIX + name for name in mine)} have no effect without "
            f"{SETTINGS_PREFIX}{_INDEX_TYPE}; set it to {' or '.join(index_types())}."
        )
    field = mine.pop(_FIELD, None)
    return _declaration(mine.pop(_INDEX_TYPE), mine, field, f"the property {SETTINGS_PREFIX}{_ENCODER}")


def in_index(field: str, params: Iterable[Any]) -> Declaration | None:
    """The declaration in the parameters of a new index; None for native types.

    Raises:
        UsageError: If parameters are invalid or missing.
    """
    given = flat(params)
    if given.get(_INDEX_TYPE) not in index_types():
        return None
    mine = {k.removeprefix(SETTINGS_PREFIX): v for k, v in given.items() if k not in _NATIVE}
    metric = given.get("metric_type") or None
    return _declaration(given[_INDEX_TYPE], mine, field, f'params={{"{_ENCODER}": NAME}}', metric=metric)


def flat(params: Iterable[Any]) -> dict[str, Any]:
    """Merge the parameters of an index or a search with the JSON object in ``params``.

    Raises:
        UsageError: If ``params`` is not a JSON object.
    """
    given: dict[str, Any] = {pair.key: pair.value for pair in params}
    if given.get("params"):
        try:
            inner = json.loads(given["params"])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"The parameters {given['params'][:80]!r} are not JSON: {error}.") from None
        if not isinstance(inner, dict):
            raise UsageError(f"The parameters {given['params'][:80]!r} are not a JSON object.")
        given = {**inner, **given}
    return given


def _declaration(
    name: str, mine: dict[str, Any], field: str | None, where: str, *, metric: str | None = None
) -> Declaration:
    declared = index_type(name)
    encoder = mine.pop(_ENCODER, "")
    if not encoder:
        raise UsageError(f"{name} needs an encoder: set {where} to the name of one; 'alula encoders list' lists them.")
    keep = str(mine.pop(_KEEP, "true")).lower()
    if keep not in ("true", "false"):
        raise UsageError(f"{_KEEP} is {keep!r}; it must be true or false.")
    vector_type = str(mine.pop(_TYPE, "FLOAT_VECTOR"))
    numbers = {option.name for option in declared.create_options if option.value_type is int}
    options = {k: int(v) if k in numbers and str(v).isdigit() else v for k, v in mine.items()}
    checked = check_options(declared.create_options, options, name)
    return Declaration(declared, str(encoder), checked, field, metric, keep == "true", vector_type)


def lowering_for(
    session: Session, database: str, schema: schema_pb2.CollectionSchema, declared: Declaration
) -> Lowering:
    """The lowering of a declared index type on a collection of that schema.

    Raises:
        UsageError, EncoderError, UnsupportedError: If the declaration does not fit.
    """
    field = _vector_field(schema, declared.field, declared.index_type.name)
    encoder = session.encoders.named(session.caller, database, declared.encoder)
    subject = f"The field {field.name!r}"
    check_fit(
        declared.index_type,
        encoder,
        subject=subject,
        dim=dim_of(field),
        metric=declared.metric,
        called=declared.encoder,
    )
    taken = {f.name for f in schema.fields}
    capabilities = session.capabilities.get(session.caller, declared.index_type.option_probes(declared.options))
    lowering = new_lowering(
        declared.index_type,
        encoder,
        field.name,
        capabilities,
        keep_vectors=declared.keep_vectors,
        vector_type=declared.vector_type,
        options=declared.options,
    )
    for spec in lowering.fields:
        if spec.name in taken:
            raise UsageError(
                f"The field name {spec.name!r} is reserved for {declared.index_type.name}; rename the field."
            )
    return lowering


def lowered(schema: schema_pb2.CollectionSchema, lowering: Lowering) -> schema_pb2.CollectionSchema:
    """Add companions to a client's schema, beside the vector field or replacing it.

    The order of the other fields stays: SDKs may send and read fields in the order of their declaration.

    Raises:
        UsageError: If the vector field is nullable.
    """
    new = schema_pb2.CollectionSchema()
    new.CopyFrom(schema)
    del new.fields[:]
    new.description = with_settings(schema.description, lowering.settings)
    for field in schema.fields:
        new.fields.extend(_replacement(field, lowering) if field.name == lowering.field.name else [field])
    return new


def _replacement(field: schema_pb2.FieldSchema, lowering: Lowering) -> list[schema_pb2.FieldSchema]:
    """The stored fields of a client's vector field, with its attributes."""
    if field.nullable:
        raise UsageError(
            f"The field {field.name!r} is nullable, and {lowering.settings['type']} encodes a vector for each row; "
            "declare the field without it."
        )
    stored = [_field_schema(spec) for spec in added_fields(lowering)]
    kept = next((one for one in stored if one.name == field.name), None)
    newer = newer_parts(field)
    if kept is None and newer:
        raise UsageError(f"The vectors of {field.name!r} are not kept, and with them {', '.join(newer)}; leave it out.")
    if kept is not None:
        own = field.type_params if lowering.field.storage == "field" else ()
        params = {pair.key: pair.value for pair in (*kept.type_params, *own)}
        data_type, element_type = kept.data_type, kept.element_type
        kept.CopyFrom(field)
        kept.data_type, kept.element_type = data_type, element_type
        refill(kept.type_params, pairs(params.items()))
    return stored


def _vector_field(
    schema: schema_pb2.CollectionSchema, name: str | None, index_type_name: str
) -> schema_pb2.FieldSchema:
    floats = [field for field in schema.fields if field.data_type == DataType.FLOAT_VECTOR]
    if name is None and len(floats) == 1:
        return floats[0]
    for field in floats:
        if field.name == name:
            return field
    names = ", ".join(field.name for field in floats) or "none"
    if name is None and floats:
        raise UsageError(
            f"The collection has several vector fields; name the one of {index_type_name} with the property "
            f"{SETTINGS_PREFIX}{_FIELD}, one of: {names}."
        )
    given = "" if name is None else f"{name!r} is not one, and "
    raise UsageError(f"{index_type_name} needs a FLOAT_VECTOR field; {given}the collection has: {names}.")


def dim_of(field: schema_pb2.FieldSchema) -> int:
    """The dimension of a vector field, 0 if it has none."""
    given = next((pair.value for pair in field.type_params if pair.key == "dim"), "0")
    return int(given) if given.isdigit() else 0


def _field_schema(spec: FieldSpec) -> schema_pb2.FieldSchema:
    params = dict(spec.params)
    element = params.pop("element_type", None)
    field = schema_pb2.FieldSchema(name=spec.name, data_type=DataType[spec.data_type])
    if element:
        field.element_type = DataType[element]
    if MAPPED in params:
        params["mmap.enabled"] = params.pop(MAPPED)  # as pymilvus writes it
    field.type_params.extend(pairs((k, str(v).lower() if isinstance(v, bool) else v) for k, v in params.items()))
    return field


def as_index_params(message: str) -> str:
    """Spell Python arguments in an error as parameters of an index or a search.

    Args:
        message: The message of an error; see `alula.errors`.
    """
    options = {
        o.name for declared in index_types().values() for o in (*declared.create_options, *declared.all_search_options)
    }
    options |= {_ENCODER, _KEEP}

    def spell(name: str, value: str) -> str | None:
        if name == "metric":
            return f"metric_type={value}"
        if name not in options:
            return None
        constant = {"True": "true", "False": "false", "...": "..."}.get(value)
        bare = value.strip("'\"")
        return f'params={{"{name}": {constant or (bare if bare.isdigit() else json.dumps(bare))}}}'

    return respell(message, spell)
