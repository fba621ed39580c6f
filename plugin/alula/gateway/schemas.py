"""Creating, describing and loading collections, as clients see them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from alula.catalog.settings import MAX_DESCRIPTION, SETTINGS_PREFIX, read_settings, with_settings
from alula.errors import UsageError
from alula.gateway import functions
from alula.gateway.declaration import in_properties, lowered, lowering_for
from alula.gateway.session import Session
from alula.gateway.upstream import MilvusError, pairs, refill
from alula.gateway.views import View

_DESCRIPTION = "collection.description"  # the property by which Milvus 2.5 and later change it


def create(session: Session, request: milvus_pb2.CreateCollectionRequest) -> Any:
    """CreateCollection: add companions, and remove functions of Alula."""
    declared = in_properties(request.properties)
    schema = schema_pb2.CollectionSchema()
    try:
        schema.ParseFromString(request.schema)
    except DecodeError:
        raise UsageError("The collection's schema cannot be parsed.") from None
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
    return send_described(session, "CreateCollection", request, schema.description)


def describe(session: Session, request: milvus_pb2.DescribeCollectionRequest) -> Any:
    """DescribeCollection: show the vector field and functions as declared.

    Clients cache the response, so it is never built from a cached description.
    """
    info = session.info(request, fresh=True)
    if info.ordinary:
        return None
    response = session.caller.send("DescribeCollection", request)
    if info.view is not None:
        show(response, info.view)
    functions.show(response.schema)
    return response


def show(response: milvus_pb2.DescribeCollectionResponse, view: View) -> None:
    """Replace the companions in a description by the vector field, in place."""
    schema = response.schema
    schema.description, _ = read_settings((), schema.description)
    shown, vector = [], schema_pb2.FieldSchema()
    for field in schema.fields:
        if field.name == view.field:
            vector.CopyFrom(field)
        elif field.name not in view.companions:
            shown.append(field)
        elif not vector.name and field.name == view.searched:
            vector.fieldID = field.fieldID  # a dropped vector takes the position of its code
    vector.name, vector.data_type, vector.element_type = view.field, DataType.FLOAT_VECTOR, DataType.NONE
    refill(vector.type_params, pairs([("dim", view.vector.dim)]))
    kept = sorted([*shown, vector], key=lambda field: field.fieldID)
    refill(schema.fields, kept)


def alter(session: Session, request: milvus_pb2.AlterCollectionRequest) -> Any:
    """AlterCollection: keep the stored settings, and reject late declarations."""
    late = [pair.key for pair in request.properties if pair.key.startswith(SETTINGS_PREFIX)]
    if late:
        raise UsageError(
            f"The properties {', '.join(late)} have an effect only when a collection is created. Declare the index "
            'type of an empty collection with create_index: index_type="DRQ" and params={"encoder": NAME}, for example.'
        )
    described = [pair for pair in request.properties if pair.key == _DESCRIPTION]
    view = session.view(request, fresh=True) if described else None
    if view is None:
        return None
    for pair in described:
        pair.value = with_settings(pair.value, view.settings)
    return send_described(session, "AlterCollection", request, described[-1].value)


def send_described(session: Session, method: str, request: Any, description: str) -> Any:
    """Send a request that stores a description with settings.

    Raises:
        UsageError: If Milvus refuses its length.
    """
    try:
        return session.caller.send(method, request)
    except MilvusError as error:
        more = len(description.encode()) - MAX_DESCRIPTION
        if more <= 0 or "description" not in error.status.reason:
            raise
        raise UsageError(
            f"This server takes descriptions of {MAX_DESCRIPTION:,} bytes, and the settings of the index type need a "
            f"part of them; make the collection's description {more} bytes shorter."
        ) from None


def load(session: Session, request: milvus_pb2.LoadCollectionRequest) -> Any:
    """LoadCollection: load the companions with the vector field if fields are listed."""
    view = session.view(request) if request.load_fields else None
    if view is None or view.field not in request.load_fields:
        return None
    names = [name for name in request.load_fields if name != view.field]
    stored = [field.name for field in view.schema.fields]
    refill(request.load_fields, [*names, *(n for n in stored if n == view.field or n in view.companions)])
    return session.caller.send("LoadCollection", request)
