"""Whether a gateway serves, by gRPC's health protocol, by its pages and by its metrics, while Milvus comes and goes."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from alula.gateway.ops import health as health_module
from tests.engines.gateway.running import RunningGateway
from tests.waiting import wait_until

SERVICE = "milvus.proto.milvus.MilvusService"
FOREVER = 3600.0  # seconds: longer than pytest lets a test run
STATES = health_pb2.HealthCheckResponse.ServingStatus


@pytest.fixture
def gateway(proxy):
    with RunningGateway(proxy.uri) as gateway:
        yield gateway


def state(gateway: RunningGateway, service: str = "") -> str:
    with gateway.channel() as channel:
        asked = health_pb2.HealthCheckRequest(service=service)
        return STATES.Name(health_pb2_grpc.HealthStub(channel).Check(asked).status)


def test_it_serves_while_milvus_answers(gateway, proxy, milvus_server, dead_port):
    wait_until(lambda: state(gateway) == "SERVING", "the gateway to serve")
    assert state(gateway, SERVICE) == state(gateway, "liveness") == "SERVING"
    assert gateway.page("/readyz") == (200, "ok\n")
    assert "alula_gateway_upstream_up 1.0" in gateway.page("/metrics")[1]
    assert gateway.gateway.health.version.startswith("2.3.5")

    proxy.target = dead_port
    proxy.cut_now()
    wait_until(lambda: state(gateway) == "NOT_SERVING", "the gateway to stop serving")
    assert state(gateway, SERVICE) == "NOT_SERVING"
    assert state(gateway, "liveness") == "SERVING"
    assert gateway.page("/readyz")[0] == 503
    assert gateway.page("/healthz") == (200, "ok\n")
    assert "alula_gateway_upstream_up 0.0" in gateway.page("/metrics")[1]

    proxy.target = milvus_server.port
    wait_until(lambda: state(gateway) == "SERVING", "the gateway to serve")


def test_a_milvus_that_accepts_and_says_nothing_is_not_served(gateway, proxy):
    wait_until(lambda: state(gateway) == "SERVING", "the gateway to serve")
    proxy.hold()
    wait_until(lambda: state(gateway) == "NOT_SERVING", "the gateway to stop serving")
    proxy.release()
    wait_until(lambda: state(gateway) == "SERVING", "the gateway to serve")


def test_who_watches_is_told_when_it_stops(gateway):
    wait_until(lambda: state(gateway) == "SERVING", "the gateway to serve")
    with gateway.channel() as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert STATES.Name(next(watched).status) == "SERVING"
        gateway.stop(FOREVER)  # which a watcher does not make it wait
        assert STATES.Name(next(watched).status) == "NOT_SERVING"


def test_an_encoder_that_hangs(gateway, monkeypatch):
    """Its thread is lost, so the gateway is neither ready nor alive until it is started again."""
    wait_until(lambda: gateway.page("/readyz")[0] == 200, "the gateway to serve")
    monkeypatch.setattr(health_module, "stuck_runs", lambda: 1)
    wait_until(lambda: gateway.page("/readyz")[0] == 503, "the gateway to see it")
    assert gateway.page("/healthz")[0] == 503
    assert state(gateway) == state(gateway, "liveness") == "NOT_SERVING"
    monkeypatch.setattr(health_module, "stuck_runs", lambda: 0)
    wait_until(lambda: gateway.page("/readyz")[0] == 200, "the gateway to serve again")
    assert gateway.page("/healthz")[0] == 200


def test_a_service_that_is_not_there(gateway):
    with pytest.raises(grpc.RpcError) as error:
        state(gateway, "no.such.Service")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_pages_that_are_not_there(gateway):
    assert gateway.page("/")[0] == 404
    assert gateway.page("/metrics?name=x")[0] == 200


def test_reflection_describes_every_method(gateway):
    with gateway.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        assert service.methods_by_name["Search"].input_type.fields_by_name["dsl"].number == 5
