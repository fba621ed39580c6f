"""Rows as clients write and read them: floats in the vector field, whatever Milvus holds of them."""

from __future__ import annotations

from typing import Any

from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.collections import added_fields
from alula.errors import DataError, UsageError
from alula.gateway import functions
from alula.gateway.field_data import column, float_vectors, vectors
from alula.gateway.session import Session
from alula.gateway.upstream import refill
from alula.gateway.views import View
from alula.index_types import Lowering
from alula.ingest.target import SLICE_ROWS, join
from alula.servers import fill_field


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
        for data in request.fields_data:
            if data.field_name in view.companions:
                raise UsageError(f"The collection {request.collection_name!r} has no field {data.field_name!r}.")
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
    matrix = check_dim(vectors(given), lowering)
    lowering.encoder.check_vectors(matrix, what=f"vectors of {given.field_name!r}")
    if len(matrix) != rows:
        raise DataError(f"The field {given.field_name!r} has {len(matrix)} vectors for {rows} rows.")
    pieces = [lowering.encode_rows(matrix[i : i + SLICE_ROWS]) for i in range(0, rows, SLICE_ROWS)]
    columns: dict[str, Any] = {lowering.field.name: matrix}
    for name in pieces[0] if pieces else ():
        columns[name] = join([piece[name] for piece in pieces])
    made = []
    for spec in added_fields(lowering):
        data = schema_pb2.FieldData(field_name=spec.name, type=DataType[spec.data_type])
        fill_field(data, columns[spec.name], spec, slice(None))
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
    check_output(request.output_fields, view, request.collection_name)
    request.collection_name = view.collection
    response = session.caller.send("Query", request)
    refill(response.fields_data, shown(response.fields_data, view))
    names = [name for name in response.output_fields if name not in view.companions]
    del response.output_fields[:]
    response.output_fields.extend(names)
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


def check_output(names: Any, view: View, collection: str) -> None:
    """Raise a `UsageError` for output fields that clients cannot have."""
    for name in names:
        if name in view.companions:
            raise UsageError(f"The collection {collection!r} has no field {name!r}.")
        if name == view.field and view.vector.storage == "dropped":
            raise UsageError(f"The vectors of {collection!r} were dropped, so {name!r} cannot be returned.")


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
