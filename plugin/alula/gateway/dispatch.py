"""The methods of Milvus's protocol that the gateway does not just pass on, and how a call of one is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from pymilvus.grpc_gen import common_pb2

from alula.errors import AlulaError, ServerError, UsageError
from alula.gateway import entities as rows
from alula.gateway import hybrid, indexes
from alula.gateway import schemas as collections
from alula.gateway import search as searching
from alula.gateway.ops import logs, metrics
from alula.gateway.session import Session
from alula.gateway.status import INTERNAL
from alula.gateway.upstream import RPCS, MilvusError, status_of

# None where the call is none of the gateway's business: it is then passed on as it came.
Rewrite = Callable[[Session, Any], "Message | None"]

REWRITES: Mapping[str, Rewrite] = {
    "CreateCollection": collections.create,
    "AlterCollection": collections.alter,
    "DescribeCollection": collections.describe,
    "LoadCollection": collections.load,
    "CreateIndex": indexes.create,
    "DescribeIndex": indexes.describe,
    "DropIndex": indexes.drop,
    "GetIndexStatistics": indexes.pointed("GetIndexStatistics"),
    "GetIndexState": indexes.pointed("GetIndexState"),
    "GetIndexBuildProgress": indexes.pointed("GetIndexBuildProgress"),
    "Insert": rows.write("Insert"),
    "Upsert": rows.write("Upsert"),
    "Query": rows.query,
    "Import": rows.refuse_import,
    "Search": searching.search,
    "HybridSearch": hybrid.search,
}
# They are about collections of which nothing is known, or which they change, or clients keep the answer: what is
# believed of a collection does not decide who answers.
ALWAYS = frozenset({"CreateCollection", "AlterCollection", "CreateIndex", "DescribeCollection"})
# After them what is known of a collection may be wrong.
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
    """The answer to a call of a method in `REWRITES`; None if it is to be passed on as it came.

    What a collection is may have changed since it was last looked at, by another gateway or client. So a call that
    fails is tried once more on what the collection is now, if that is something else.

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
        response = _refused(rpc.response, _in_own_words(session, _parsed(rpc.request, request), error.status))
    except AlulaError as error:
        response = _refused(rpc.response, _status(error))
    except grpc.RpcError:
        raise
    except Exception as error:  # as a gRPC error SDKs would repeat the call for minutes
        logs.LOGGER.exception(f"{method} failed unexpectedly")
        response = _refused(rpc.response, _failure(error))
    return None if response is None else response.SerializeToString()


def busy(method: str, reason: str) -> bytes:
    """The answer to a call for which there is no room, as Milvus gives it at its rate limits: SDKs then try again."""
    status = common_pb2.Status(code=8, error_code=common_pb2.ErrorCode.RateLimit, reason=reason)
    answer: bytes = _refused(RPCS[method].response, status).SerializeToString()
    return answer


def _parsed(kind: type[Any], request: bytes) -> Any:
    try:
        return kind.FromString(request)
    except DecodeError:
        raise UsageError(f"The request is no {kind.DESCRIPTOR.name} of Milvus's protocol.") from None


def _in_own_words(session: Session, request: Any, status: Any) -> Any:
    """What Milvus says of a field that clients do not see, said of the one that they do."""
    known = session.views.known(session.database(request), getattr(request, "collection_name", ""))
    if known and known.view:
        status.reason = known.view.in_own_words(status.reason)
    return status


def _refused(kind: type[Any], status: Any) -> Any:
    response = kind()
    told = status_of(response)
    told.CopyFrom(status)
    # Milvus Lite gives the new code alone, and Node's SDK looks at the old one
    told.error_code = told.error_code or common_pb2.ErrorCode.UnexpectedError
    return response


def _failure(error: Exception) -> Any:
    return common_pb2.Status(
        code=INTERNAL,
        error_code=common_pb2.ErrorCode.UnexpectedError,
        reason=f"The gateway failed unexpectedly ({type(error).__name__}); its log says where.",
    )


def _status(error: AlulaError) -> Any:
    """An error as Milvus tells it: 1100 is its code for a wrong parameter, 65535 for what has no code."""
    unexpected = isinstance(error, ServerError)
    return common_pb2.Status(
        code=65535 if unexpected else 1100,
        error_code=common_pb2.ErrorCode.UnexpectedError if unexpected else common_pb2.ErrorCode.IllegalArgument,
        reason=str(error),
    )
