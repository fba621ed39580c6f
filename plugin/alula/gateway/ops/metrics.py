"""What a gateway counts, for Prometheus. The names of the metrics are a promise: dashboards and alerts hold them.

They are the process's, in Prometheus's own registry, as its client has it for processor, memory and open files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from prometheus_client import Counter, Gauge, Histogram
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.status import Outcome
from alula.index_types import Lowering

T = TypeVar("T")
Way = Literal["passed", "rewritten"]

# Milliseconds for a search in memory, half a minute for a load; each about two and a half times the one before.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset(milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name)
_OTHER = "other"

_requests = Counter("alula_gateway_requests", "Calls of clients", ["method", "outcome"])
_request_seconds = Histogram(
    "alula_gateway_request_seconds", "How long calls of clients took", ["method", "path"], buckets=_SECONDS
)
_encode_seconds = Histogram("alula_gateway_encode_seconds", "How long encoders took", ["kind"], buckets=_SECONDS)
_upstream_errors = Counter("alula_gateway_upstream_errors", "Calls to Milvus that failed", ["method", "code"])
_fallbacks = Counter("alula_gateway_fallbacks", "What was done the slow way", ["reason"])

waiting = Gauge("alula_gateway_waiting", "Calls that wait for a worker")
running = Gauge("alula_gateway_running", "Calls that workers carry out")
encoders_loaded = Gauge("alula_gateway_encoders_loaded", "Encoders in memory")
upstream_up = Gauge("alula_gateway_upstream_up", "Whether Milvus answers")


def answered(method: str, way: Way, outcome: Outcome, seconds: float) -> None:
    """Count one call of a client.

    Args:
        method: Name of the method, without the service.
        way: Whether it was passed on as it came, or rewritten.
        outcome: ok, refused (Milvus's status is not 0), or failed (a gRPC error).
        seconds: How long it took.
    """
    name = _known(method)
    _requests.labels(name, outcome).inc()
    _request_seconds.labels(name, way).observe(seconds)


def upstream_failed(method: str, code: str) -> None:
    """Count one call to Milvus that failed with a gRPC code."""
    _upstream_errors.labels(_known(method), code).inc()


def fell_back(reason: str) -> None:
    """Count one thing that was done the slow way.

    Args:
        reason: Why, in a word of the program's own.
    """
    _fallbacks.labels(reason).inc()


def encoding(kind: Literal["rows", "queries"]) -> AbstractContextManager[Any]:
    """Count what is done inside as encoding."""
    return cast("AbstractContextManager[Any]", _encode_seconds.labels(kind).time())


def encoding_counted(lowering: Lowering) -> Lowering:
    """A lowering whose encoding is counted from now on; the same one."""
    timed = {"encode_rows": _encode_seconds.labels("rows"), "plan_search": _encode_seconds.labels("queries")}
    for name, seconds in timed.items():
        setattr(lowering, name, _timed(getattr(lowering, name), seconds))
    return lowering


def _timed(method: Callable[..., T], seconds: Histogram) -> Callable[..., T]:
    # the histogram's own decorator takes functions alone, and these are methods
    @wraps(method)
    def timed(*arguments: Any, **named: Any) -> T:
        with seconds.time():
            return method(*arguments, **named)

    return timed


def _known(method: str) -> str:
    # clients may make up names of methods, and each label is kept for good
    return method if method in _METHODS else _OTHER
