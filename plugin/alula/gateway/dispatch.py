"""The methods that the gateway rewrites, and their error handling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from pymilvus.grpc_gen import common_pb2

from alula.errors import AlulaError, ServerError, UsageError
from alula.gateway import entities, hybrid, indexes, schemas, search
from alula.gateway.declaration import as_index_params
from alula.gateway.ops import logs, metrics
from alula.gateway.session import Session
from alula.gateway.status import INTERNAL
from alula.gateway.upstream import RPCS, MilvusError, status_of

# None: forward the call unchanged.
Rewrite = Callable[[Session, Any], "Message | None"]

REWRITES: Mapping[str, Rewrite] = {
    "CreateCollection": schemas.create,
    "AlterCollection": schemas.alter,
    "DescribeCollection": schemas.describe,
    "LoadCollection": schemas.load,
    "CreateIndex": indexes.create,
    "DescribeIndex": indexes.describe,
    "AlterIndex": indexes.for_searched_index("AlterIndex"),
    "DropIndex": indexes.drop,
    "GetIndexStatistics": indexes.for_searched_index("GetIndexStatistics"),
    "GetIndexState": indexes.for_searched_index("GetIndexState"),
    "GetIndexBuildProgress": indexes.for_searched_index("GetIndexBuildProgress"),
    "Insert": entities.write("Insert"),
    "Upsert": entities.write("Upsert"),
    "Query": entities.query,
    "Import": entities.refuse_import,
    "Search": search.search,
    "HybridSearch": hybrid.search,
}
# These never use a cached description: they create or change the collection, or clients keep the answer.
ALWAYS = frozenset({"CreateCollection", "AlterCollection", "CreateIndex", "DescribeCollection"})
# These may take long, the longer the request is.
READING = frozenset({"Query", "Search", "HybridSearch"})
# After these a cached description may be wrong.
CHANGING = frozenset(
    [
        "CreateCollection",
        "DropCollection",
        "RenameCollection",
        "AlterCollection",
        "AlterCollectionField",
        "CreateAlias",
        "DropAlias",
        "AlterAlias",
        "CreateIndex",
        "AlterIndex",
        "DropIndex",
        "AddCollectionField",
        "DropDatabase",
        "TruncateCollection",
        "AlterCollectionSchema",
        "RestoreSnapshot",
    ]
)


def answer(method: str, session: Session, request: bytes) -> bytes | None:
    """Answer a call of a method in `REWRITES`; None to forward it unchanged.

    Another gateway or client may have changed the collection since its description was cached. So a call that fails
    is retried once if the collection is described differently now.

    Raises:
        grpc.RpcError: If Milvus does not answer.
    """
    rpc, rewrite = RPCS[method], REWRITES[method]
    try:
        try:
            response = rewrite(session, _parsed(rpc.request, request))
        except (MilvusError, AlulaError):
            if not session.stale(_parsed(rpc.request, request)):
                raise
            metrics.fell_back("collection looked at again")
            response = rewrite(replace(session, fresh=True), _parsed(rpc.request, request))
    except MilvusError as error:
        response = _refused(rpc.response, _hide_companions(session, _parsed(rpc.request, request), error.status))
    except AlulaError as error:
        response = _refused(rpc.response, _status(error))
    except grpc.RpcError:
        raise
    except Exception as error:  # SDKs would repeat a gRPC error for minutes
        logs.unexpected(method, error)
        response = _refused(rpc.response, _failure(error))
    return None if response is None else response.SerializeToString()


def busy(method: str, reason: str) -> bytes:
    """The response of a full gateway: a rate-limit error, which SDKs retry."""
    status = common_pb2.Status(code=8, error_code=common_pb2.ErrorCode.RateLimit, reason=reason)
    answer: bytes = _refused(RPCS[method].response, status).SerializeToString()
    return answer


def _parsed(message: type[Any], request: bytes) -> Any:
    try:
        return message.FromString(request)
    except DecodeError:
        raise UsageError(f"The request is no {message.DESCRIPTOR.name} of Milvus's protocol.") from None


def _hide_companions(session: Session, request: Any, status: Any) -> Any:
    """An error of Milvus, with the vector field named instead of a companion."""
    info = session.views.cached(session.database(request), getattr(request, "collection_name", ""))
    if info and info.view:
        status.reason = info.view.hide_companions(status.reason)
    return status


def _refused(message: type[Any], status: Any) -> Any:
    response = message()
    filled = status_of(response)
    filled.CopyFrom(status)
    # Milvus Lite sets only the new code, and Node's SDK reads only the old one
    filled.error_code = filled.error_code or common_pb2.ErrorCode.UnexpectedError
    return response


def _failure(error: Exception) -> Any:
    return common_pb2.Status(
        code=INTERNAL,
        error_code=common_pb2.ErrorCode.UnexpectedError,
        reason=f"The gateway failed unexpectedly ({type(error).__name__}); see its log.",
    )


def _status(error: AlulaError) -> Any:
    """An error as a status: 1100 is a wrong parameter, 65535 any other error."""
    unexpected = isinstance(error, ServerError)
    return common_pb2.Status(
        code=65535 if unexpected else 1100,
        error_code=common_pb2.ErrorCode.UnexpectedError if unexpected else common_pb2.ErrorCode.IllegalArgument,
        reason=as_index_params(str(error)),
    )
