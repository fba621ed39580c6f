"""Metrics for Prometheus. Their names are stable: dashboards and alerts use them.

They are in the process-wide registry, beside the client's metrics of processor, memory and open files.
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
Route = Literal["passed", "rewritten"]

# From milliseconds for a search in memory to half a minute for a load, by factors of 2 to 2.5.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset(milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name)
_OTHER = "other"

_requests = Counter("alula_gateway_requests", "Calls of clients", ["method", "outcome"])
_request_seconds = Histogram(
    "alula_gateway_request_seconds", "Duration of clients' calls", ["method", "path"], buckets=_SECONDS
)
_encode_seconds = Histogram("alula_gateway_encode_seconds", "Duration of encoding", ["kind"], buckets=_SECONDS)
_upstream_errors = Counter("alula_gateway_upstream_errors", "Calls to Milvus that failed", ["method", "code"])
_fallbacks = Counter("alula_gateway_fallbacks", "Fallbacks to a slow path", ["reason"])

waiting = Gauge("alula_gateway_waiting", "Calls that wait for a worker")
running = Gauge("alula_gateway_running", "Calls that workers are running")
encoders_loaded = Gauge("alula_gateway_encoders_loaded", "Encoders in memory")
upstream_up = Gauge("alula_gateway_upstream_up", "1 if Milvus answers, else 0")


def answered(method: str, route: Route, outcome: Outcome, seconds: float) -> None:
    """Count one call of a client.

    Args:
        method: Name of the method, without the service.
        route: ``passed`` if it was forwarded unchanged, ``rewritten`` otherwise.
        outcome: ok, refused (an error status of Milvus), or failed (a gRPC error).
        seconds: Duration.
    """
    name = _label(method)
    _requests.labels(name, outcome).inc()
    _request_seconds.labels(name, route).observe(seconds)


def upstream_failed(method: str, code: str) -> None:
    """Count one call to Milvus that failed with a gRPC code."""
    _upstream_errors.labels(_label(method), code).inc()


def fell_back(reason: str) -> None:
    """Count one fallback to a slow path.

    Args:
        reason: A fixed text; each one is a label.
    """
    _fallbacks.labels(reason).inc()


def encoding(kind: Literal["rows", "queries"]) -> AbstractContextManager[Any]:
    """Time the block inside as encoding."""
    return cast("AbstractContextManager[Any]", _encode_seconds.labels(kind).time())


def encoding_counted(lowering: Lowering) -> Lowering:
    """Time the encoding of a lowering from now on; returns the same lowering."""
    timed = {"encode_rows": _encode_seconds.labels("rows"), "plan_search": _encode_seconds.labels("queries")}
    for name, seconds in timed.items():
        setattr(lowering, name, _timed(getattr(lowering, name), seconds))
    return lowering


def _timed(method: Callable[..., T], seconds: Histogram) -> Callable[..., T]:
    # the histogram's own decorator takes only functions, and these are methods
    @wraps(method)
    def timed(*arguments: Any, **named: Any) -> T:
        with seconds.time():
            return method(*arguments, **named)

    return timed


def _label(method: str) -> str:
    # clients may invent method names, and labels are never freed
    return method if method in _METHODS else _OTHER
