"""Indexes as clients make and see them: one on the vector field, where Milvus has one on each field behind it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.catalog.binding import check_fit, check_index_type
from alula.catalog.create import native_indexes
from alula.catalog.settings import DEFAULTS_INDEX, SETTINGS_PREFIX
from alula.errors import UsageError
from alula.gateway.declaration import Declaration, flat, in_index, lowered, lowering_for
from alula.gateway.session import Session
from alula.gateway.upstream import MilvusError, pairs, refill
from alula.gateway.views import View, describe_indexes
from alula.index_types import NativeIndex

_AUTOMATIC = ("", "AUTOINDEX")
_VECTORS = "vectors"  # suffix of the name of the index on kept vectors


def create(session: Session, request: Any) -> Any:
    """CreateIndex: the native indexes of an index type; an empty ordinary collection is made anew for it."""
    view = session.view(request, fresh=True)
    if view is not None and request.field_name == view.field:
        _check_same(session, request, view)
    elif view is not None:
        return None
    else:
        declared = in_index(request.field_name, request.extra_params)
        if declared is None:
            return None
        _remake(session, request, declared)
        view = session.view(request, fresh=True)
        if view is None:
            raise UsageError(f"The collection {request.collection_name!r} was changed by someone else; try again.")
    for i, native in enumerate(native_indexes(view.lowering)):
        response = session.caller.send("CreateIndex", _request(request, view, native, first=not i))
    return response


def _check_same(session: Session, request: Any, view: View) -> None:
    """Raise a `UsageError` when an index is asked for that is not the collection's own."""
    given = flat(request.extra_params)
    subject, own, asked = f"The field {view.field!r}", view.settings["type"], given.get("index_type", "")
    if asked not in _AUTOMATIC:
        check_index_type(subject, own, asked)
    named = given.get("encoder") or given.get(f"{SETTINGS_PREFIX}encoder")
    encoder = view.lowering.encoder
    if named:
        encoder = session.encoders.named(session.caller, session.database(request), str(named))
    fingerprint = view.settings["encoder"]
    check_fit(
        view.kind,
        encoder,
        subject=subject,
        fingerprint=fingerprint,
        metric=given.get("metric_type"),
        called=str(named or fingerprint[:16]),
    )


def _request(request: Any, view: View, native: NativeIndex, *, first: bool) -> Any:
    """A native index in the place of a client's; the one on kept vectors gets a name of its own."""
    name = (request.index_name if first else "") or view.field
    made = milvus_pb2.CreateIndexRequest(
        db_name=request.db_name,
        collection_name=view.collection,
        field_name=native.field,
        index_name=name if first else f"{name}__{_VECTORS}",
    )
    told = {"index_type": native.index_type, "metric_type": native.metric, **native.params}
    made.extra_params.extend(pairs(told.items()))
    return made


def _remake(session: Session, request: Any, declared: Declaration) -> None:
    """Make an empty ordinary collection anew with the fields of an index type.

    Where Milvus can rename, the old collection is put aside first and looked at again, so that rows which arrive in
    between are found: they get their collection back, and the client is refused. Milvus Lite cannot, and serves one
    process.
    """
    caller, database, name = session.caller, session.database(request), request.collection_name
    about = caller.send(
        "DescribeCollection", milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
    )
    name = about.schema.name or name
    _check_empty(session, database, name, declared, certainly=False)
    if any(f.name == request.field_name for f in about.schema.fields) and _has_index(session, database, name, request):
        raise UsageError(f"The field {request.field_name!r} has an index already; drop it first.")
    schema = lowered(about.schema, lowering_for(session, database, about.schema, declared))
    old, new = (_as_described(about, database, name, kept) for kept in (about.schema, schema))
    partitions = _partitions(session, database, name) if not new.num_partitions else []
    aside = _put_aside(session, database, name)
    if not aside:
        caller.send("DropCollection", milvus_pb2.DropCollectionRequest(db_name=database, collection_name=name))
    try:
        if aside:
            _check_empty(session, database, aside, declared, certainly=True)
        caller.send("CreateCollection", new)
    except BaseException:
        if aside:
            back = milvus_pb2.RenameCollectionRequest(db_name=database, oldName=aside, newName=name)
            caller.send("RenameCollection", back)
        else:
            caller.send("CreateCollection", old)
        raise
    finally:
        session.views.forget(database)
    for partition in partitions:
        made = milvus_pb2.CreatePartitionRequest(db_name=database, collection_name=name, partition_name=partition)
        caller.send("CreatePartition", made)
    for alias in about.aliases if aside else ():
        moved = milvus_pb2.AlterAliasRequest(db_name=database, collection_name=name, alias=alias)
        caller.send("AlterAlias", moved)
    if aside:
        _drop_empty(session, database, aside, declared)


def _drop_empty(session: Session, database: str, aside: str, declared: Declaration) -> None:
    """Drop what was put aside, unless rows got into it meanwhile by an alias or a call that was under way."""
    try:
        _check_empty(session, database, aside, declared, certainly=True)
    except UsageError:
        raise UsageError(
            f"Rows arrived while the collection was made anew for {declared.kind.name}. They lie in {aside!r}; copy "
            "them from there, and drop it."
        ) from None
    session.caller.send("DropCollection", milvus_pb2.DropCollectionRequest(db_name=database, collection_name=aside))


def _as_described(about: Any, database: str, name: str, schema: Any) -> Any:
    """The request that makes a collection as it is described, with some schema."""
    bare = type(schema).FromString(schema.SerializeToString())
    for field in bare.fields:
        field.fieldID = 0
    keyed = any(field.is_partition_key for field in bare.fields)
    return milvus_pb2.CreateCollectionRequest(
        db_name=database,
        collection_name=name,
        schema=bare.SerializeToString(),
        shards_num=about.shards_num,
        consistency_level=about.consistency_level,
        properties=about.properties,
        num_partitions=about.num_partitions if keyed else 0,
    )


def _put_aside(session: Session, database: str, name: str) -> str:
    """Rename a collection out of the way; "" where Milvus cannot."""
    aside = f"{name[:200]}_alula_{uuid.uuid4().hex[:8]}"
    request = milvus_pb2.RenameCollectionRequest(db_name=database, oldName=name, newName=aside)
    return aside if _implemented(session, "RenameCollection", request) is not None else ""


def _implemented(session: Session, method: str, request: Any) -> Any:
    """Call a method that Milvus Lite does not have; None there."""
    try:
        return session.caller.send(method, request)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise


def _check_empty(session: Session, database: str, name: str, declared: Declaration, *, certainly: bool) -> None:
    """Raise a `UsageError` unless a collection holds no rows.

    Args:
        session: The call.
        database: Its database.
        name: The collection.
        declared: What it is to become, for the error.
        certainly: Flush first, so that rows count which are still in memory.
    """
    caller, segments = session.caller, 0
    if certainly:
        flushed = caller.send("Flush", milvus_pb2.FlushRequest(db_name=database, collection_names=[name]))
        both = (*flushed.coll_segIDs.values(), *flushed.flush_coll_segIDs.values())
        segments = sum(len(held.data) for held in both)
    told = milvus_pb2.GetCollectionStatisticsRequest(db_name=database, collection_name=name)
    rows = {pair.key: pair.value for pair in caller.send("GetCollectionStatistics", told).stats}.get("row_count", "")
    if segments or rows != "0":
        kind = declared.kind.name
        raise UsageError(
            f"This collection holds rows or has held some, and {kind} needs fields that cannot be added to it. Copy it "
            f"with 'alula migrate NAME NEW --index-type {kind} --encoder FILE' (it serves meanwhile, and an alias can "
            "be swapped), or declare the index type before rows are inserted."
        )


def _has_index(session: Session, database: str, name: str, request: Any) -> bool:
    return any(index["field_name"] == request.field_name for index in describe_indexes(session.caller, database, name))


def _partitions(session: Session, database: str, name: str) -> list[str]:
    """The partitions that were made by hand."""
    shown = _implemented(
        session, "ShowPartitions", milvus_pb2.ShowPartitionsRequest(db_name=database, collection_name=name)
    )
    return [partition for partition in (shown.partition_names if shown else ()) if partition != "_default"]


def describe(session: Session, request: Any) -> Any:
    """DescribeIndex: the index type that was declared, with its encoder."""
    view = session.view(request)
    if view is None:
        return None
    wanted, request.index_name = request.index_name, ""
    field, request.field_name = request.field_name, ""
    response = session.caller.send("DescribeIndex", request)
    shown = _shown(view, response.index_descriptions)
    shown = [i for i in shown if wanted in ("", i.index_name) and field in ("", i.field_name)]
    if not shown:
        raise MilvusError(
            common_pb2.Status(
                code=700, error_code=common_pb2.ErrorCode.IndexNotExist, reason=f"index not found[index={wanted}]"
            )
        )
    refill(response.index_descriptions, shown)
    return response


def _shown(view: View, indexes: Iterable[Any]) -> list[Any]:
    """Those indexes of the collection that clients see, as they see them."""
    settings = {k: v for k, v in view.settings.items() if k not in ("format", "field", "dim", "type", "metric")}
    told = {"index_type": view.settings["type"], "metric_type": view.vector.metric, **settings}
    found = []
    for index in indexes:
        if index.index_name == DEFAULTS_INDEX or index.field_name == view.field:
            continue
        if index.field_name in view.companions:
            index.field_name, index.index_name = view.field, _shown_name(view, index.index_name)
            refill(index.params, pairs([*told.items(), ("params", json.dumps(settings))]))
        found.append(index)
    return found


def _shown_name(view: View, name: str) -> str:
    """The name of an index as clients know it: the vector field's where Milvus named it after a companion."""
    automatic = name in view.companions or name.startswith("_default_idx")
    return view.field if automatic else name


def _behind(request: Any, view: View, indexes: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of the searched index in Milvus, if the index that a request is about is the one in front of it."""
    if request.field_name in ("", view.field):
        for index in indexes:
            name = str(index["index_name"])
            if index["field_name"] == view.searched and request.index_name in ("", name, _shown_name(view, name)):
                return name
    return None


def drop(session: Session, request: Any) -> Any:
    """DropIndex: all native indexes behind the one that clients see."""
    view = session.view(request, fresh=True)
    if view is None:
        return None
    indexes = describe_indexes(session.caller, session.database(request), view.collection)
    searched = _behind(request, view, indexes)
    if searched is None:
        return None
    for index in indexes:
        if index["field_name"] == view.field:
            session.caller.send("DropIndex", _named(request, view, view.field, index["index_name"]))
    return session.caller.send("DropIndex", _named(request, view, view.searched, searched))


def _named(request: Any, view: View, field: str, name: str) -> Any:
    return milvus_pb2.DropIndexRequest(
        db_name=request.db_name, collection_name=view.collection, field_name=field, index_name=name
    )


def pointed(method: str) -> Any:
    """A method that asks for the state of an index by its name: it is asked of the index behind that."""

    def rewrite(session: Session, request: Any) -> Any:
        view = session.view(request)
        if view is None:
            return None
        indexes = describe_indexes(session.caller, session.database(request), view.collection)
        searched = _behind(request, view, indexes)
        if searched is None:
            return None
        request.index_name, request.field_name = searched, view.searched
        response = session.caller.send(method, request)
        if hasattr(response, "index_descriptions"):
            refill(response.index_descriptions, _shown(view, response.index_descriptions))
        return response

    return rewrite
