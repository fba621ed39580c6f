"""Rows as clients write and read them: floats in the vector field, whatever Milvus holds of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.create import added_fields
from alula.errors import DataError, UsageError
from alula.gateway import functions
from alula.gateway.session import Session
from alula.gateway.upstream import refill
from alula.gateway.views import View
from alula.index_types import Lowering
from alula.milvus.wire.field_data import column, float_vectors, vectors, write_column

_DYNAMIC = "$meta"  # the field that holds all dynamic ones


def write(method: str) -> Any:
    """Insert or Upsert: the companions of the vectors and the outputs of functions go with them."""

    def rewrite(session: Session, request: Any) -> Any:
        known = session.known(request, fresh=True)
        if known.ordinary:
            return None
        functions.fill(request, known.functions, session.encoder_of(request))
        view = known.view
        if view is None:
            return session.caller.send(method, request)
        check_seen([data.field_name for data in request.fields_data], view, request.collection_name)
        given = next((data for data in request.fields_data if data.field_name == view.field), None)
        if given is not None:  # an upsert may leave it out, where Milvus allows that
            refill(request.fields_data, [*_others(request, view), *encoded(view.lowering, given, request.num_rows)])
        request.collection_name = view.collection
        return session.caller.send(method, request)

    return rewrite


def _others(request: Any, view: View) -> list[Any]:
    return [data for data in request.fields_data if data.field_name != view.field]


def encoded(lowering: Lowering, given: Any, rows: int) -> list[Any]:
    """The columns that Milvus is given in the place of vectors.

    Args:
        lowering: How they are stored.
        given: The vectors' ``FieldData``.
        rows: How many there must be.

    Raises:
        DataError, UsageError: If they are not what the encoder takes.
    """
    try:
        matrix = vectors(given)
    except DataError as error:
        raise DataError(f"{error} It takes {lowering.field.dim} dimensions.") from None
    check_dim(matrix, lowering)
    matrix = lowering.encoder.check_vectors(matrix, what=f"vectors of {given.field_name!r}")
    if len(matrix) != rows:
        raise DataError(f"The field {given.field_name!r} has {len(matrix)} vectors for {rows} rows.")
    columns: dict[str, Any] = {lowering.field.name: matrix, **lowering.encode_rows(matrix)}
    made = []
    for spec in added_fields(lowering):
        data = schema_pb2.FieldData(field_name=spec.name, type=DataType[spec.data_type])
        write_column(data, columns[spec.name], spec)
        made.append(data)
    return made


def check_dim(matrix: Any, lowering: Lowering) -> Any:
    """Vectors (n, d); a `DataError` unless they are floats of the field's dimension, in words that name it."""
    field = lowering.field
    if matrix.dtype.kind != "f":
        raise DataError(f"The field {field.name!r} takes vectors of floats, and binary ones were given.")
    if matrix.shape[1] != field.dim:
        raise DataError(f"The field {field.name!r} takes {field.dim} dimensions, and {matrix.shape[1]} were given.")
    return matrix


def query(session: Session, request: Any) -> Any:
    """Query: the vector field, and not what lies in its place."""
    view = session.view(request)
    if view is None:
        return None
    settle_output(request, view)
    request.collection_name = view.collection
    response = session.caller.send("Query", request)
    show(response, view)
    return response


def refuse_import(session: Session, request: Any) -> Any:
    """Import: its files lie where Milvus reads them, without the companions."""
    view = session.view(request)
    if view is None:
        return None
    raise UsageError(
        f"Files for {request.collection_name!r} must hold what {view.settings['type']} stores, which Milvus cannot "
        "make; load them with 'alula load --via import'."
    )


def check_seen(names: Iterable[str], view: View, collection: str) -> None:
    """Raise a `UsageError` for fields that clients do not see."""
    for name in names:
        if name in view.companions:
            raise UsageError(f"The collection {collection!r} has no field {name!r}.")


def settle_output(request: Any, view: View) -> None:
    """Put the fields that clients see in the place of ``*``, for which Milvus would read companions too.

    Raises:
        UsageError: For output fields that clients cannot have.
    """
    names, collection = request.output_fields, request.collection_name
    check_seen(names, view, collection)
    if view.field in names and view.vector.storage == "dropped":
        raise UsageError(f"The vectors of {collection!r} were dropped, so {view.field!r} cannot be returned.")
    if "*" in names:
        refill(names, [field.name for field in view.schema.fields if field.name not in view.companions])
        if view.schema.enable_dynamic_field:
            names.append(_DYNAMIC)


def show(results: Any, view: View) -> None:
    """Turn what Milvus found into what clients see: ``QueryResults``, or the ``SearchResultData`` of a search.

    Clients take names that are no field's for those of dynamic fields, and then show no others of these.
    """
    refill(results.fields_data, shown(results.fields_data, view))
    refill(results.output_fields, [name for name in results.output_fields if name not in view.companions])


def shown(columns: Any, view: View) -> list[Any]:
    """What clients see of columns: no companions, and the vectors as such where they lie in an array column."""
    found = []
    for data in columns:
        if data.field_name in view.companions:
            continue
        if data.field_name == view.field and view.vector.storage == "column":
            matrix = column(data).reshape(-1, view.vector.dim)
            found.append(float_vectors(view.field, matrix, data.field_id))
        else:
            found.append(data)
    return found
