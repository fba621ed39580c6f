"""Writing and reading entities: clients see floats, Milvus the companions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.create import added_fields
from alula.errors import DataError, UsageError
from alula.gateway import function_values
from alula.gateway.session import Session
from alula.gateway.upstream import newer_parts, refill
from alula.gateway.views import View
from alula.index_types import Lowering
from alula.milvus.wire.field_data import column, float_vectors, vectors, write_column

_DYNAMIC = "$meta"  # the field with all dynamic fields


def write(method: str) -> Any:
    """Insert or Upsert: add companions of vectors and outputs of functions."""

    def rewrite(session: Session, request: Any) -> Any:
        info = session.info(request, fresh=True)
        if info.ordinary:
            return None
        function_values.fill(request, info.functions, session.encoder_of(request), session.caller.check)
        view = info.view
        # by its real name: an alias may point to a collection of another encoder by the time the rows are encoded
        request.collection_name = info.name
        if view is None:
            return session.caller.send(method, request)
        check_visible([data.field_name for data in request.fields_data], view, request.collection_name)
        _check_operations(request, view)
        given = next((data for data in request.fields_data if data.field_name == view.field), None)
        if given is not None:  # a partial upsert may leave it out
            refill(request.fields_data, [*_others(request, view), *encoded(view.lowering, given, request.num_rows)])
        return session.caller.send(method, request)

    return rewrite


def _check_operations(request: Any, view: View) -> None:
    """Raise a `UsageError` if an upsert changes vectors in part (Milvus 3.0)."""
    operations = getattr(request, "field_ops", ())  # inserts and upserts of older pymilvus lack it
    check_visible([one.field_name for one in operations], view, request.collection_name)
    if any(one.op and one.field_name == view.field for one in operations):
        raise UsageError(f"A vector of {view.field!r} is replaced as a whole; leave out the operation on a part of it.")


def _others(request: Any, view: View) -> list[Any]:
    return [data for data in request.fields_data if data.field_name != view.field]


def encoded(lowering: Lowering, given: Any, rows: int) -> list[Any]:
    """Encode vectors into the columns that Milvus stores.

    Args:
        lowering: The lowering of the index type.
        given: The vectors' ``FieldData``.
        rows: The number of rows in the request.

    Raises:
        DataError, UsageError: If the vectors do not fit the encoder or the number of rows.
    """
    newer = [*newer_parts(given), *newer_parts(given.vectors)]
    if newer:
        raise UsageError(f"The vectors of {given.field_name!r} have {', '.join(newer)}; leave it out.")
    try:
        matrix = vectors(given)
    except DataError as error:
        raise DataError(f"{error} It takes {lowering.field.dim} dimensions.") from None
    check_dim(matrix, lowering)
    matrix = lowering.encoder.check_vectors(matrix, what=f"vectors of {given.field_name!r}")
    if len(matrix) != rows:
        raise DataError(f"The field {given.field_name!r} has {len(matrix)} vectors for {rows} rows.")
    columns: dict[str, Any] = {lowering.field.name: matrix, **lowering.encode_rows(matrix)}
    encoded_fields = []
    for spec in added_fields(lowering):
        data = schema_pb2.FieldData(field_name=spec.name, type=DataType[spec.data_type])
        write_column(data, columns[spec.name], spec)
        encoded_fields.append(data)
    return encoded_fields


def check_dim(matrix: Any, lowering: Lowering) -> Any:
    """Return vectors (n, d); raise `DataError` for another type or dimension."""
    field = lowering.field
    if matrix.dtype.kind != "f":
        raise DataError(f"The field {field.name!r} takes vectors of floats, and binary vectors were given.")
    if matrix.shape[1] != field.dim:
        raise DataError(f"The field {field.name!r} takes {field.dim} dimensions, and {matrix.shape[1]} were given.")
    return matrix


def query(session: Session, request: Any) -> Any:
    """Query: return the vector field instead of its companions."""
    view = session.view(request)
    if view is None:
        return None
    expand_output(request, view)
    request.collection_name = view.collection
    response = session.caller.send("Query", request)
    show(response, view)
    return response


def refuse_import(session: Session, request: Any) -> Any:
    """Import: rejected, because the files lack the companions."""
    view = session.view(request)
    if view is None:
        return None
    raise UsageError(
        f"An import into {request.collection_name!r} needs files with the encoded fields of {view.settings['type']}, "
        "which Milvus cannot compute; 'alula load --via import' writes and imports such files."
    )


def check_visible(names: Iterable[str], view: View, collection: str) -> None:
    """Raise `UsageError` for companions, which clients do not see."""
    for name in names:
        if name in view.companions:
            raise UsageError(f"The collection {collection!r} has no field {name!r}.")


def expand_output(request: Any, view: View) -> None:
    """Replace ``*`` by the visible fields; Milvus would read companions too.

    Raises:
        UsageError: For companions, and for vectors that were dropped.
    """
    names, collection = request.output_fields, request.collection_name
    check_visible(names, view, collection)
    if view.field in names and view.vector.storage == "dropped":
        raise UsageError(f"The vectors of {collection!r} were dropped, so {view.field!r} cannot be returned.")
    if "*" in names:
        refill(names, [field.name for field in view.schema.fields if field.name not in view.companions])
        if view.schema.enable_dynamic_field:
            names.append(_DYNAMIC)


def show(results: Any, view: View) -> None:
    """Replace companions in results by the vector field, in place.

    Args:
        results: ``QueryResults``, or the ``SearchResultData`` of a search.
        view: The collection.
    """
    # clients take unknown names in output_fields for dynamic fields, and then show no other dynamic fields
    refill(results.fields_data, shown(results.fields_data, view))
    refill(results.output_fields, [name for name in results.output_fields if name not in view.companions])


def shown(columns: Any, view: View) -> list[Any]:
    """Columns without companions; the vectors as float vectors, whatever keeps them."""
    found = []
    for data in columns:
        if data.field_name in view.companions:
            continue
        if data.field_name == view.field and data.type != DataType.FLOAT_VECTOR:
            matrix = column(data).reshape(-1, view.vector.dim)
            found.append(float_vectors(view.field, matrix, data.field_id))
        else:
            found.append(data)
    return found
