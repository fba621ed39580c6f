"""Classify failed calls: try again, slow down, or stop."""

from __future__ import annotations

from enum import Enum

import grpc
from pymilvus.exceptions import MilvusException


class Failure(Enum):
    """The kinds of failed calls.

    Attributes:
        BUSY: Milvus rejected it for now (rate limit, quota, memory): nothing was written, slow down and retry.
        UNKNOWN: The answer was lost, and the call may have been carried out; retry it in an idempotent way.
        REFUSED: A retry would change nothing.
    """

    BUSY = "busy"
    UNKNOWN = "unknown"
    REFUSED = "refused"


# Milvus's codes: memory limit, request limit, disk limit, rate limit, write denied; then their older numbers. 2.3.5
# gives both, and its `retriable` is false whatever happened. The last code is a schema of which the proxy has an older
# version, while a field is added.
_BUSY_CODES = {3, 4, 7, 8, 9, 109}
_BUSY_OLD_CODES = {48, 49, 50, 51, 52, 53}
_BUSY_WORDS = ("rate limit", "quota", "memory limit", "disk limit", "time tick long delay", "too many requests")
# Service not ready, unavailable and internal; then channels, nodes, storage and message queue.
_PASSING_CODES = {1, 2, 5, *range(500, 700), *range(900, 1100), *range(1300, 1400)}
STARTING = "has not been init"  # Milvus Lite 2.5 answers before it is ready, on a busy machine
_PASSING_WORDS = (
    "stack trace",  # the server's own failure, as while it restarts, and no rejection
    "statuscode.unavailable",
    "statuscode.deadline_exceeded",
    "fail connecting",
    "server id mismatch",
    "not ready",
    "not loaded",
    "not fully loaded",
    "not healthy",
    STARTING,
    "unhealthy",
    "unavailable",
    "timeout",
    "context canceled",
    "context deadline",
    "connection refused",
    "node offline",
    "node not match",
    "channel not",
    "closed channel",
    "allocate",
    "no available",
    "retry run out",
)
# the second for a JSON document that is no object, which 2.3.5 refuses as if its disk had failed
_REFUSED_WORDS = ("deactivated by the administrator", "json: cannot unmarshal")
_REFUSED_RPC = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}


def what_failed(error: MilvusException | grpc.RpcError) -> Failure:
    """Classify the error of a failed call."""
    rpc = error if isinstance(error, grpc.RpcError) else error.__cause__  # futures wrap it
    if isinstance(rpc, grpc.RpcError):
        return _of_call(rpc)
    return _of_answer(error) if isinstance(error, MilvusException) else Failure.UNKNOWN


def is_unimplemented(error: MilvusException | grpc.RpcError) -> bool:
    """True if the server lacks the method; some versions say so in a status."""
    if isinstance(error, grpc.RpcError):
        return bool(error.code() == grpc.StatusCode.UNIMPLEMENTED)
    return "unimplemented" in str(error.message).lower()


def is_denied(error: MilvusException | grpc.RpcError) -> bool:
    """True if the login lacks the right to make the call."""
    if isinstance(error, grpc.RpcError):
        return bool(error.code() == grpc.StatusCode.PERMISSION_DENIED)
    words = str(error.message).lower()
    return "permission deny" in words or "permission denied" in words


def _of_call(error: grpc.RpcError) -> Failure:
    code = error.code() if hasattr(error, "code") else None
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Failure.REFUSED if "larger than max" in str(error.details()) else Failure.BUSY
    return Failure.REFUSED if code in _REFUSED_RPC else Failure.UNKNOWN


def _of_answer(error: MilvusException) -> Failure:
    words = str(error.message).lower()
    if any(word in words for word in _REFUSED_WORDS):
        return Failure.REFUSED
    old = getattr(error, "compatible_code", None)
    if error.code in _BUSY_CODES or old in _BUSY_OLD_CODES or any(word in words for word in _BUSY_WORDS):
        return Failure.BUSY
    retriable = getattr(error, "retriable", False)  # pymilvus 3
    if retriable or error.code in _PASSING_CODES or any(word in words for word in _PASSING_WORDS):
        return Failure.UNKNOWN
    return Failure.REFUSED
