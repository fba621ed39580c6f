"""What a gateway counts, for Prometheus. The names of the metrics are a promise: dashboards and alerts hold them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from pymilvus.grpc_gen import milvus_pb2

Outcome = Literal["ok", "refused", "failed"]
Path = Literal["passed", "rewritten"]

# Milliseconds for a search in memory, half a minute for a load; a bucket for every factor of about two and a half.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset(milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name)
OTHER = "other"


class Metrics:
    """The metrics of one gateway, in a registry of their own.

    Attributes:
        requests: Calls by method and outcome: ok, refused (a status of Milvus other than 0), failed (a gRPC error).
        request_seconds: How long they took, by method and path: passed on as they came, or rewritten.
        encode_seconds: How long encoders took for rows and for queries, per call.
        upstream_errors: Calls to Milvus that failed, by method and gRPC code.
        fallbacks: How often something was done the slow way, by reason.
        waiting: Calls that wait for a worker.
        running: Calls that workers carry out.
        encoders_loaded: Encoders in memory.
        upstream_up: 1 while Milvus answers, else 0.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        requests = ("alula_gateway_requests", "Calls of clients", ("method", "outcome"))
        self.requests = Counter(*requests, registry=self.registry)
        took = ("alula_gateway_request_seconds", "How long calls of clients took", ("method", "path"))
        self.request_seconds = Histogram(*took, buckets=SECONDS, registry=self.registry)
        encoding = ("alula_gateway_encode_seconds", "How long encoders took", ("kind",))
        self.encode_seconds = Histogram(*encoding, buckets=SECONDS, registry=self.registry)
        errors = ("alula_gateway_upstream_errors", "Calls to Milvus that failed", ("method", "code"))
        self.upstream_errors = Counter(*errors, registry=self.registry)
        fallbacks = ("alula_gateway_fallbacks", "What was done the slow way", ("reason",))
        self.fallbacks = Counter(*fallbacks, registry=self.registry)
        self.waiting = Gauge("alula_gateway_waiting", "Calls that wait for a worker", registry=self.registry)
        self.running = Gauge("alula_gateway_running", "Calls that workers carry out", registry=self.registry)
        self.encoders_loaded = Gauge("alula_gateway_encoders_loaded", "Encoders in memory", registry=self.registry)
        self.upstream_up = Gauge("alula_gateway_upstream_up", "Whether Milvus answers", registry=self.registry)

    def answered(self, method: str, path: Path, outcome: Outcome, seconds: float) -> None:
        """Count one call of a client.

        Args:
            method: Name of the method, without the service.
            path: Which way it took.
            outcome: How it ended.
            seconds: From the first byte to the last.
        """
        name = known(method)
        self.requests.labels(name, outcome).inc()
        self.request_seconds.labels(name, path).observe(seconds)

    def upstream_failed(self, method: str, code: str) -> None:
        """Count one call to Milvus that failed with a gRPC code."""
        self.upstream_errors.labels(known(method), code).inc()

    @contextmanager
    def encoding(self, kind: Literal["rows", "queries"]) -> Iterator[None]:
        """Count the time that the block inside takes as an encoder's."""
        began = perf_counter()
        try:
            yield
        finally:
            self.encode_seconds.labels(kind).observe(perf_counter() - began)

    def page(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)


def known(method: str) -> str:
    """A method's name, or ``other`` for one that Milvus does not have: clients must not fill the memory with names."""
    return method if method in METHODS else OTHER
