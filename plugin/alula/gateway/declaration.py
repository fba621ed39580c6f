"""How a client declares an index type, and the schema that Milvus is given for it.

Milvus takes an index type after the collection is made, and cannot add vector fields to a collection (before 2.6.18, or
where a collection holds one vector field: 2.3). So there are three moments:

- *When the collection is made*: its properties say ``alula.index_type`` and ``alula.encoder``. Every SDK can send
  properties, and does so unchanged, where parameters of fields and new data types are checked by some of them.
- *Before it holds rows*: ``create_index(index_type="DRQ", params={"encoder": ...})``, as for any index of Milvus's. The
  collection is made anew under its name, with the fields that the index type needs.
- *Afterwards*: refused; ``alula migrate`` copies the rows into a new collection while the old one serves.
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
from alula.errors import UsageError
from alula.gateway.session import Session
from alula.gateway.upstream import pairs
from alula.index_types import FieldSpec, IndexType, Lowering, check_options, index_type, index_types

_INDEX_TYPE, _ENCODER, _FIELD, _KEEP = "index_type", "encoder", "field", "keep_vectors"
_NATIVE = ("index_type", "metric_type", "params", "mmap.enabled", "index_name")


@dataclass(frozen=True)
class Declaration:
    """An index type as a client declares it.

    Args:
        kind: Its name.
        encoder: Name or fingerprint of its encoder.
        options: Create options of the index type.
        field: The vector field; None for the only one.
        metric: The metric that the client named, if any.
        keep_vectors: Whether the vectors are kept for exact re-ranking.
    """

    kind: IndexType
    encoder: str
    options: Mapping[str, Any]
    field: str | None = None
    metric: str | None = None
    keep_vectors: bool = True


def in_properties(properties: Iterable[Any]) -> Declaration | None:
    """What a collection's properties declare; None if they say nothing of it.

    Raises:
        UsageError: If they are wrong or not enough.
    """
    mine = {p.key.removeprefix(SETTINGS_PREFIX): p.value for p in properties if p.key.startswith(SETTINGS_PREFIX)}
    if not mine:
        return None
    if _INDEX_TYPE not in mine:
        raise UsageError(
            f"The properties {', '.join(SETTINGS_PREFIX + name for name in mine)} say nothing without "
            f"{SETTINGS_PREFIX}{_INDEX_TYPE}: {' or '.join(index_types())}."
        )
    field = mine.pop(_FIELD, None)
    return _declaration(mine.pop(_INDEX_TYPE), mine, field, f"the property {SETTINGS_PREFIX}{_ENCODER}")


def in_index(field: str, params: Iterable[Any]) -> Declaration | None:
    """What the parameters of a new index declare; None if its type is none of Alula's.

    Raises:
        UsageError: If they are wrong or not enough.
    """
    given = flat(params)
    if given.get(_INDEX_TYPE) not in index_types():
        return None
    mine = {k.removeprefix(SETTINGS_PREFIX): v for k, v in given.items() if k not in _NATIVE}
    metric = given.get("metric_type") or None
    return _declaration(given[_INDEX_TYPE], mine, field, f'params={{"{_ENCODER}": ...}}', metric=metric)


def flat(params: Iterable[Any]) -> dict[str, Any]:
    """Parameters of an index or a search: those inside the JSON of ``params`` beside those that are given flat.

    Raises:
        UsageError: If the JSON is none.
    """
    given: dict[str, Any] = {pair.key: pair.value for pair in params}
    if given.get("params"):
        try:
            inner = json.loads(given["params"])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"The parameters {given['params'][:80]!r} are no JSON: {error}.") from None
        if not isinstance(inner, dict):
            raise UsageError(f"The parameters {given['params'][:80]!r} are no JSON object.")
        given = {**inner, **given}
    return given


def _declaration(
    name: str, mine: dict[str, Any], field: str | None, where: str, *, metric: str | None = None
) -> Declaration:
    kind = index_type(name)
    encoder = mine.pop(_ENCODER, "")
    if not encoder:
        raise UsageError(f"{name} needs an encoder: give {where}; 'alula encoders list' shows those there are.")
    keep = str(mine.pop(_KEEP, "true")).lower()
    if keep not in ("true", "false"):
        raise UsageError(f"{_KEEP} is {keep!r}, and must be true or false.")
    numbers = {option.name for option in kind.create_options if option.value_type is int}
    options = {k: int(v) if k in numbers and str(v).isdigit() else v for k, v in mine.items()}
    return Declaration(
        kind, str(encoder), check_options(kind.create_options, options, name), field, metric, keep == "true"
    )


def lowering_for(session: Session, database: str, schema: Any, declared: Declaration) -> Lowering:
    """How Milvus is to hold a declared index type on a collection of that schema.

    Raises:
        UsageError, EncoderError, UnsupportedError: If the declaration does not fit.
    """
    field = _vector_field(schema, declared.field, declared.kind.name)
    encoder = session.encoders.named(session.caller, database, declared.encoder)
    kind, subject = declared.kind, f"The field {field.name!r}"
    check_fit(kind, encoder, subject=subject, dim=dim_of(field), metric=declared.metric, called=declared.encoder)
    taken = {f.name for f in schema.fields}
    capabilities = session.capabilities.get(session.caller)
    lowering = new_lowering(
        kind, encoder, field.name, capabilities, keep_vectors=declared.keep_vectors, options=declared.options
    )
    for spec in lowering.fields:
        if spec.name in taken:
            raise UsageError(f"The field {spec.name!r} is one that {kind.name} adds by itself; give it another name.")
    return lowering


def lowered(schema: Any, lowering: Lowering) -> Any:
    """A client's schema as Milvus is to have it: companions beside the vector field, or in its place.

    Everything else stays where it is: SDKs may send and read fields in the order in which they were declared.
    """
    new = schema_pb2.CollectionSchema()
    new.CopyFrom(schema)
    del new.fields[:]
    new.description = with_settings(schema.description, lowering.settings)
    for field in schema.fields:
        held = map(_field_schema, added_fields(lowering)) if field.name == lowering.field.name else [field]
        new.fields.extend(held)
    return new


def _vector_field(schema: Any, name: str | None, kind: str) -> Any:
    floats = [field for field in schema.fields if field.data_type == DataType.FLOAT_VECTOR]
    if name is None and len(floats) == 1:
        return floats[0]
    for field in floats:
        if field.name == name:
            return field
    names = ", ".join(field.name for field in floats) or "none"
    if name is None:
        raise UsageError(f"Say which field has the index type {kind}: {SETTINGS_PREFIX}{_FIELD}, one of: {names}.")
    raise UsageError(f"{kind} needs a FLOAT_VECTOR field, and {name!r} is none; there are: {names}.")


def dim_of(field: Any) -> int:
    """The dimensions of a vector field, 0 where none are given."""
    given = next((pair.value for pair in field.type_params if pair.key == "dim"), "0")
    return int(given) if given.isdigit() else 0


def _field_schema(spec: FieldSpec) -> Any:
    params = dict(spec.params)
    element = params.pop("element_type", None)
    field = schema_pb2.FieldSchema(name=spec.name, data_type=DataType[spec.data_type])
    if element:
        field.element_type = DataType[element]
    field.type_params.extend(pairs((k, str(v).lower() if isinstance(v, bool) else v) for k, v in params.items()))
    return field
