"""Indexes as clients see them: one on the vector field, for all native ones."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from alula.catalog.binding import check_fit, check_index_type
from alula.catalog.create import native_indexes
from alula.catalog.settings import DEFAULTS_INDEX, SETTINGS_PREFIX
from alula.errors import UsageError
from alula.gateway.declaration import Declaration, dim_of, flat, in_index, lowered, lowering_for
from alula.gateway.ops.logs import LOGGER
from alula.gateway.policy import AUTOMATIC
from alula.gateway.schemas import send_described
from alula.gateway.session import Session
from alula.gateway.upstream import MilvusError, changed, pairs, refill
from alula.gateway.views import View, describe_indexes
from alula.index_types import NativeIndex, index_type

RATE_LIMITED = 8  # Milvus's code
FLUSH_SECONDS, FLUSH_POLL = 15.0, 0.5
_VECTORS = "vectors"  # suffix of the name of the index on kept vectors


def create(session: Session, request: milvus_pb2.CreateIndexRequest) -> Any:
    """CreateIndex: create native indexes, on a recreated collection if need be."""
    view = session.view(request, fresh=True)
    if view is not None and request.field_name == view.field:
        _check_same(session, request, view)
    elif view is not None:
        return None
    else:
        declared = in_index(request.field_name, request.extra_params) or _by_policy(session, request)
        if declared is None:
            return None
        _recreate(session, request, declared)
        view = session.view(request, fresh=True)
        if view is None:
            raise UsageError(f"The collection {request.collection_name!r} was changed concurrently; try again.")
    for i, native in enumerate(native_indexes(view.lowering)):
        response = session.caller.send("CreateIndex", _request(request, view, native, first=not i))
    return response


def _by_policy(session: Session, request: milvus_pb2.CreateIndexRequest) -> Declaration | None:
    """The index type that the gateway's policy puts in the place of a native one."""
    given = flat(request.extra_params)
    asked, metric = str(given.get("index_type") or AUTOMATIC), str(given.get("metric_type") or "").upper() or None
    database, name, field = session.database(request), request.collection_name, request.field_name
    rules = session.policy.naming(database, name, field, asked)
    if not rules:
        return None
    describe = milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
    fields = session.caller.send("DescribeCollection", describe).schema.fields
    dim = next((dim_of(one) for one in fields if one.name == field), 0)
    encoders = (session.encoders.named(session.caller, database, rule.encoder) for rule in rules)
    rule = next((rule for rule, encoder in zip(rules, encoders, strict=True) if rule.fits(encoder, dim, metric)), None)
    if rule is None:
        return None
    kind, shown = index_type(rule.index_type), f"Policy: {asked} on {name}.{field}"
    declared = Declaration(kind, rule.encoder, rule.options, field, metric, rule.keep_vectors, rule.vector_type)
    try:
        _check_empty(session, database, name, declared, certainly=False)
    except UsageError:
        LOGGER.warning(f"{shown} stays, since the collection has rows; 'alula migrate' copies them to {kind.name}.")
        return None
    LOGGER.info(f"{shown} becomes {kind.name} with the encoder {rule.encoder!r}.")
    return declared


def _check_same(session: Session, request: milvus_pb2.CreateIndexRequest, view: View) -> None:
    """Raise `UsageError` if the requested index is not the collection's own."""
    given = flat(request.extra_params)
    subject, own, asked = f"The field {view.field!r}", view.settings["type"], given.get("index_type", "")
    where = (session.database(request), view.collection, view.field)
    if asked not in ("", AUTOMATIC) and not session.policy.covers(*where, asked, own):
        check_index_type(subject, own, asked)
    named = given.get("encoder") or given.get(f"{SETTINGS_PREFIX}encoder")
    encoder = view.lowering.encoder
    if named:
        encoder = session.encoders.named(session.caller, session.database(request), str(named))
    fingerprint = view.settings["encoder"]
    check_fit(
        view.index_type,
        encoder,
        subject=subject,
        fingerprint=fingerprint,
        metric=given.get("metric_type"),
        called=str(named or fingerprint[:16]),
    )


def _request(
    request: milvus_pb2.CreateIndexRequest, view: View, native: NativeIndex, *, first: bool
) -> milvus_pb2.CreateIndexRequest:
    """The request for one native index; the index on kept vectors gets a derived name."""
    name = (request.index_name if first else "") or view.field
    params = {"index_type": native.index_type, "metric_type": native.metric, **native.params}
    created: milvus_pb2.CreateIndexRequest = changed(
        request,
        collection_name=view.collection,
        field_name=native.field,
        index_name=name if first else f"{name}__{_VECTORS}",
        extra_params=pairs(params.items()),
    )
    return created


def _recreate(session: Session, request: milvus_pb2.CreateIndexRequest, declared: Declaration) -> None:
    """Recreate an empty ordinary collection with the fields of an index type.

    If Milvus can rename, the old collection is renamed first and checked again. Rows that arrived in between are then
    found: the old collection gets its name back, and the call is rejected. Milvus Lite cannot rename; it serves one
    process only.
    """
    caller, database, name = session.caller, session.database(request), request.collection_name
    old = caller.send(
        "DescribeCollection", milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
    )
    name = old.schema.name or name
    _check_empty(session, database, name, declared, certainly=False)
    if any(f.name == request.field_name for f in old.schema.fields) and _has_index(session, database, name, request):
        raise UsageError(f"The field {request.field_name!r} has an index already; drop it first.")
    schema = lowered(old.schema, lowering_for(session, database, old.schema, declared))
    restored, new = (_as_described(old, database, name, kept) for kept in (old.schema, schema))
    partitions = _partitions(session, database, name) if not new.num_partitions else []
    aliases = _aliases(session, database, name, old)
    renamed = _rename_away(session, database, name)
    if not renamed:
        caller.send("DropCollection", milvus_pb2.DropCollectionRequest(db_name=database, collection_name=name))
    try:
        if renamed:
            _check_empty(session, database, renamed, declared, certainly=True)
        send_described(session, "CreateCollection", new, schema.description)
    except BaseException:
        if renamed:
            back = milvus_pb2.RenameCollectionRequest(db_name=database, oldName=renamed, newName=name)
            caller.send("RenameCollection", back)
        else:
            caller.send("CreateCollection", restored)
        raise
    finally:
        session.views.forget(database)
    for partition in partitions:
        created = milvus_pb2.CreatePartitionRequest(db_name=database, collection_name=name, partition_name=partition)
        caller.send("CreatePartition", created)
    for alias in aliases if renamed else ():
        moved = milvus_pb2.AlterAliasRequest(db_name=database, collection_name=name, alias=alias)
        caller.send("AlterAlias", moved)
    if renamed:
        _drop_empty(session, database, renamed, declared)


def _drop_empty(session: Session, database: str, renamed: str, declared: Declaration) -> None:
    """Drop the renamed collection, unless an alias or a running call added rows to it."""
    try:
        _check_empty(session, database, renamed, declared, certainly=True)
    except UsageError:
        raise UsageError(
            f"Rows were inserted while the collection was being recreated for {declared.index_type.name}. They are in "
            f"{renamed!r}; copy them over and drop it."
        ) from None
    except MilvusError as error:
        raise UsageError(
            f"The collection was recreated for {declared.index_type.name}, and the old one could not be flushed "
            f"({error.status.reason}). It is {renamed!r}; drop it if it is empty."
        ) from None
    session.caller.send("DropCollection", milvus_pb2.DropCollectionRequest(db_name=database, collection_name=renamed))


def _as_described(
    described: milvus_pb2.DescribeCollectionResponse, database: str, name: str, schema: schema_pb2.CollectionSchema
) -> milvus_pb2.CreateCollectionRequest:
    """The request that creates a collection as described, with another schema."""
    bare = type(schema).FromString(schema.SerializeToString())
    for field in bare.fields:
        field.fieldID = 0
    keyed = any(field.is_partition_key for field in bare.fields)
    return milvus_pb2.CreateCollectionRequest(
        db_name=database,
        collection_name=name,
        schema=bare.SerializeToString(),
        shards_num=described.shards_num,
        consistency_level=described.consistency_level,
        properties=described.properties,
        num_partitions=described.num_partitions if keyed else 0,
    )


def _rename_away(session: Session, database: str, name: str) -> str:
    """Rename a collection to a free name, and return it; "" if Milvus cannot rename."""
    renamed = f"{name[:200]}_alula_{uuid.uuid4().hex[:8]}"
    request = milvus_pb2.RenameCollectionRequest(db_name=database, oldName=name, newName=renamed)
    return renamed if _implemented(session, "RenameCollection", request) is not None else ""


def _implemented(session: Session, method: str, request: Any) -> Any:
    """Call a method that some servers lack; None there."""
    try:
        return session.caller.send(method, request)
    except MilvusError as error:
        if "unimplemented" in error.status.reason.lower():
            return None
        raise
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise


def _check_empty(session: Session, database: str, name: str, declared: Declaration, *, certainly: bool) -> None:
    """Raise `UsageError` unless a collection is empty.

    Args:
        session: The call.
        database: The collection's database.
        name: The collection.
        declared: The declared index type, for the error.
        certainly: True to flush first, so that rows in memory count.
    """
    caller, segments = session.caller, 0
    if certainly:
        flushed = _flush(session, milvus_pb2.FlushRequest(db_name=database, collection_names=[name]))
        both = (*flushed.coll_segIDs.values(), *flushed.flush_coll_segIDs.values())
        segments = sum(len(ids.data) for ids in both)
    statistics = milvus_pb2.GetCollectionStatisticsRequest(db_name=database, collection_name=name)
    rows = {pair.key: pair.value for pair in caller.send("GetCollectionStatistics", statistics).stats}.get(
        "row_count", ""
    )
    if segments or rows != "0":
        index_type = declared.index_type.name
        raise UsageError(
            f"The collection has or had rows, and {index_type} needs fields that cannot be added to it. Declare the "
            "index type before rows are inserted, or copy the collection while it serves: "
            f"'alula migrate --from NAME --to NEW --index-type {index_type} --encoder FILE --uri URI'."
        )


def _flush(session: Session, request: milvus_pb2.FlushRequest) -> Any:
    """Flush a collection, which Milvus 2.4 and later allow once in ten seconds."""
    deadline = time.monotonic() + FLUSH_SECONDS
    while True:
        try:
            return session.caller.send("Flush", request)
        except MilvusError as error:
            if error.status.code != RATE_LIMITED or time.monotonic() > deadline:
                raise
        time.sleep(FLUSH_POLL)


def _has_index(session: Session, database: str, name: str, request: milvus_pb2.CreateIndexRequest) -> bool:
    return any(index["field_name"] == request.field_name for index in describe_indexes(session.caller, database, name))


def _partitions(session: Session, database: str, name: str) -> list[str]:
    """The partitions that a client created."""
    shown = _implemented(
        session, "ShowPartitions", milvus_pb2.ShowPartitionsRequest(db_name=database, collection_name=name)
    )
    return [partition for partition in (shown.partition_names if shown else ()) if partition != "_default"]


def _aliases(session: Session, database: str, name: str, described: milvus_pb2.DescribeCollectionResponse) -> list[str]:
    """The aliases of a collection; see `alula.milvus.aliases_of`."""
    listed = _implemented(session, "ListAliases", milvus_pb2.ListAliasesRequest(db_name=database, collection_name=name))
    return list((listed or described).aliases)


def describe(session: Session, request: milvus_pb2.DescribeIndexRequest) -> Any:
    """DescribeIndex: the declared index type with its encoder."""
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
    """The indexes as clients see them, without those on companions and defaults."""
    settings = {k: v for k, v in view.settings.items() if k not in ("format", "field", "dim", "type", "metric")}
    params = {"index_type": view.settings["type"], "metric_type": view.vector.metric, **settings}
    visible = []
    for index in indexes:
        if index.index_name == DEFAULTS_INDEX or index.field_name == view.field:
            continue
        if index.field_name in view.companions:
            index.field_name, index.index_name = view.field, _shown_name(view, index.index_name)
            refill(index.params, pairs([*params.items(), ("params", json.dumps(settings))]))
        visible.append(index)
    return visible


def _shown_name(view: View, name: str) -> str:
    """The name of an index for clients: the vector field's if Milvus chose the name."""
    automatic = name in view.companions or name.startswith("_default_idx")
    return view.field if automatic else name


def _searched_index(request: Any, view: View, indexes: Iterable[Mapping[str, Any]]) -> str | None:
    """Milvus's name of the searched index, if a request is about the index type."""
    if getattr(request, "field_name", "") in ("", view.field):
        for index in indexes:
            name = str(index["index_name"])
            if index["field_name"] == view.searched and request.index_name in ("", name, _shown_name(view, name)):
                return name
    return None


def drop(session: Session, request: milvus_pb2.DropIndexRequest) -> Any:
    """DropIndex: drop all native indexes of the index type."""
    view = session.view(request, fresh=True)
    if view is None:
        return None
    indexes = describe_indexes(session.caller, session.database(request), view.collection)
    searched = _searched_index(request, view, indexes)
    if searched is None:
        return None
    for index in indexes:
        if index["field_name"] == view.field:
            _drop_native(session, request, view, view.field, index["index_name"])
    return _drop_native(session, request, view, view.searched, searched)


def _drop_native(session: Session, request: milvus_pb2.DropIndexRequest, view: View, field: str, name: str) -> Any:
    native = changed(request, collection_name=view.collection, field_name=field, index_name=name)
    return session.caller.send("DropIndex", native)


def for_searched_index(method: str) -> Any:
    """A method about one index by name, redirected to the index that Milvus searches."""

    def rewrite(session: Session, request: Any) -> Any:
        view = session.view(request)
        if view is None:
            return None
        indexes = describe_indexes(session.caller, session.database(request), view.collection)
        searched = _searched_index(request, view, indexes)
        if searched is None:
            return None
        request.index_name = searched
        if hasattr(request, "field_name"):  # a request to alter an index has none
            request.field_name = view.searched
        response = session.caller.send(method, request)
        if hasattr(response, "index_descriptions"):
            refill(response.index_descriptions, _shown(view, response.index_descriptions))
        return response

    return rewrite
