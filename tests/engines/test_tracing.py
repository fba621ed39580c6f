"""Traces of the command line, a load and the gateway, as a collector on the loopback receives them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from tests.fixtures.command_line import check_failure, finish, start, write_rows
from tests.waiting import wait_until
from tools.servers.gateway import GatewayProgram

LOOPBACK = "127.0.0.1"
PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it receives, with the name of their service."""

    def __init__(self):
        self.spans = []
        self._lock = threading.Lock()

    def Export(self, request, context):  # noqa: N802 (of the protocol)
        with self._lock:
            for resource in request.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                self.spans += [(names["service.name"], span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name):
        return [span for _, span in self.spans if span.name == name]


@pytest.fixture
def collector(monkeypatch):
    servicer, server = Collector(), grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{LOOPBACK}:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield servicer
    server.stop(None)


class Recorder(grpc.GenericRpcHandler):
    """A server that answers every call with an empty message, and keeps the metadata of each."""

    def __init__(self):
        self.calls = []

    def service(self, details):
        self.calls.append((details.method.rpartition("/")[2], dict(details.invocation_metadata)))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


@pytest.fixture
def recorder():
    handler, server = Recorder(), grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    handler.port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield handler
    server.stop(None)


def attributes(span):
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_load(starts_engine, collector, drq, tmp_path):
    rows = write_rows(tmp_path / "rows.parquet", 50)
    opened = ["--uri", str(tmp_path / "traced.db"), "--encoder", drq]
    created = finish(start("create", "words", "--index-type", "DRQ", "--like", rows, *opened, cwd=tmp_path))
    assert created.code == 0, created
    loaded = finish(start("load", "words", rows, *opened, cwd=tmp_path))
    assert loaded.code == 0, loaded
    wait_until(lambda: collector.named("alula load"), "the command's span")
    (command,) = collector.named("alula load")
    (write,), (verify,) = collector.named("alula.load.write"), collector.named("alula.load.verify")
    assert write.parent_span_id == verify.parent_span_id == command.span_id
    assert attributes(verify) == {"alula.collection": "words", "alula.rows": 50, "alula.rejected": 0}
    calls = [span for _, span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT and "/Upsert" in span.name]
    calls += [span for _, span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT and "/Insert" in span.name]
    assert calls
    assert {call.trace_id for call in calls} == {command.trace_id}, "of the threads that write, too"
    assert {service for service, _ in collector.spans} == {"alula"}


def test_a_command_that_fails(starts_engine, collector, tmp_path):
    check_failure(finish(start("describe", "none", "--uri", tmp_path / "none.db", cwd=tmp_path)), 2, "none.db")
    wait_until(lambda: collector.named("alula describe"), "the command's span")
    assert collector.named("alula describe")[0].status.code == Status.STATUS_CODE_ERROR


def test_a_call_through_the_gateway(starts_engine, collector, recorder):
    with (
        GatewayProgram(f"http://{LOOPBACK}:{recorder.port}") as gateway,
        grpc.insecure_channel(gateway.address) as channel,
    ):
        stub = milvus_pb2_grpc.MilvusServiceStub(channel)
        for method in ("ShowCollections", "DescribeCollection"):  # forwarded, and rewritten
            getattr(stub, method)(getattr(milvus_pb2, f"{method}Request")(), metadata=[("traceparent", PARENT)])
            name = f"milvus.proto.milvus.MilvusService/{method}"
            wait_until(lambda name=name: collector.named(name), "the call's span")
            (span,) = collector.named(name)
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
            assert span.kind == Span.SPAN_KIND_SERVER
            assert attributes(span)["rpc.method"] == method
            sent = [metadata["traceparent"] for called, metadata in recorder.calls if called == method]
            assert set(sent) == {f"00-{'ab' * 16}-{span.span_id.hex()}-01"}
    assert {service for service, _ in collector.spans} == {"alula-gateway"}


def test_without_a_collector_metadata_passes_unchanged(starts_engine, recorder, monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with (
        GatewayProgram(f"http://{LOOPBACK}:{recorder.port}") as gateway,
        grpc.insecure_channel(gateway.address) as channel,
    ):
        stub = milvus_pb2_grpc.MilvusServiceStub(channel)
        stub.ShowCollections(milvus_pb2.ShowCollectionsRequest(), metadata=[("traceparent", PARENT)])
    assert [data["traceparent"] for called, data in recorder.calls if called == "ShowCollections"] == [PARENT]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_does_not_answer(starts_engine, monkeypatch, protocol, drq, tmp_path):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{LOOPBACK}:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    result = finish(start("inspect", drq, cwd=tmp_path))
    assert (result.code, result.err) == (0, "")
    assert "drq.onnx" in result.out


def test_an_exporter_that_is_unknown(starts_engine, monkeypatch, drq, tmp_path):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,zipkin")
    check_failure(finish(start("inspect", drq, cwd=tmp_path)), 2, "'zipkin'", "console and none")
