"""Collections as clients make and see them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.settings import SETTINGS_PREFIX, read_settings
from alula.errors import UsageError
from alula.gateway import functions
from alula.gateway.declaration import in_properties, lowered, lowering_for
from alula.gateway.session import Session
from alula.gateway.upstream import pairs, refill
from alula.gateway.views import View


def create(session: Session, request: Any) -> Any:
    """CreateCollection: with an index type in its properties it gets the fields that this needs.

    Functions of Alula's are kept from Milvus.
    """
    declared = in_properties(request.properties)
    schema = schema_pb2.CollectionSchema()
    try:
        schema.ParseFromString(request.schema)
    except DecodeError:
        raise UsageError("The collection's schema cannot be read.") from None
    computed = functions.are_declared(schema)
    if declared is None and not computed:
        return None
    database = session.database(request)
    if computed:
        functions.declare(schema, lambda name: session.encoders.named(session.caller, database, name))
        functions.check_server(schema, session.capabilities.get(session.caller))
    if declared is not None:
        schema = lowered(schema, lowering_for(session, database, schema, declared))
    request.schema = schema.SerializeToString()
    refill(request.properties, [pair for pair in request.properties if not pair.key.startswith(SETTINGS_PREFIX)])
    return session.caller.send("CreateCollection", request)


def describe(session: Session, request: Any) -> Any:
    """DescribeCollection: the vector field, and not what lies in its place; functions as they were declared.

    Clients keep what they are told, so nothing of what is shown may be of a collection that was there before.
    """
    known = session.known(request, fresh=True)
    if known.ordinary:
        return None
    response = session.caller.send("DescribeCollection", request)
    if known.view is not None:
        show(response, known.view)
    functions.show(response.schema)
    return response


def show(response: Any, view: View) -> None:
    """Turn what Milvus says of a collection into what clients see."""
    schema = response.schema
    schema.description, _ = read_settings((), schema.description)
    shown, place = [], None
    for field in schema.fields:
        if field.name == view.field:
            place = field.fieldID
        elif field.name not in view.companions:
            shown.append(field)
        elif place is None and field.name == view.searched:
            place = field.fieldID  # a dropped vector stands where its code is
    vector = schema_pb2.FieldSchema(fieldID=place or 0, name=view.field, data_type=DataType.FLOAT_VECTOR)
    vector.type_params.extend(pairs([("dim", view.vector.dim)]))
    kept = sorted([*shown, vector], key=lambda field: field.fieldID)
    refill(schema.fields, kept)


def alter(session: Session, request: Any) -> Any:
    """AlterCollection: properties that declare an index type come too late; Milvus would keep them for nothing."""
    del session
    late = [pair.key for pair in request.properties if pair.key.startswith(SETTINGS_PREFIX)]
    if late:
        raise UsageError(
            f"The properties {', '.join(late)} are taken when a collection is made. Declare the index type of an empty "
            'one with its index: create_index with index_type="DRQ" and params {"encoder": NAME}, for example.'
        )
    return None


def load(session: Session, request: Any) -> Any:
    """LoadCollection: where only some fields are loaded, the companions of the vector field are."""
    view = session.view(request) if request.load_fields else None
    if view is None or view.field not in request.load_fields:
        return None
    names = [name for name in request.load_fields if name != view.field]
    held = [field.name for field in view.schema.fields]
    refill(request.load_fields, [*names, *(n for n in held if n == view.field or n in view.companions)])
    return session.caller.send("LoadCollection", request)
