"""Whether a gateway serves: gRPC's health protocol and reflection, which load balancers, probes and grpcurl ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.logs import LOGGER
from alula.gateway.metrics import Metrics

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].full_name
READY = ("", SERVICE)  # what is asked for when no service is named, and by name
ALIVE = "liveness"  # the process alone: one that waits for Milvus must not be killed for it
SILENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The state of one gateway: ready while Milvus answers, until it is told to stop.

    Args:
        upstream: Channel to Milvus.
        seconds: How often Milvus is asked, and how long it may take.
        metrics: Where it is shown.
    """

    def __init__(self, upstream: grpc.aio.Channel, seconds: float, metrics: Metrics) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._metrics = metrics
        self._services = health.aio.HealthServicer()
        self._stopping = False
        self.ready = False

    async def add_to(self, server: grpc.aio.Server) -> None:
        """Serve health and reflection; before any handler that takes every method."""
        health_pb2_grpc.add_HealthServicer_to_server(self._services, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        await self._services.set(ALIVE, SERVING)
        await self._show(False)

    async def watch(self) -> None:
        """Ask Milvus again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._seconds)

    async def look(self) -> bool:
        """Ask Milvus once, and show what came of it."""
        answered = await answers(self._upstream, self._seconds)
        if answered != self.ready and not self._stopping:
            LOGGER.log(*((20, "Milvus answers.") if answered else (30, "Milvus does not answer.")))
        await self._show(answered and not self._stopping)
        return answered

    async def stop(self) -> None:
        """Show NOT_SERVING from now on."""
        self._stopping = True
        await self._show(False)

    async def _show(self, ready: bool) -> None:
        self.ready = ready
        if not self._stopping:
            self._metrics.upstream_up.set(ready)
        for service in READY:
            await self._services.set(service, SERVING if ready else NOT_SERVING)


async def answers(upstream: grpc.aio.Channel, seconds: float) -> bool:
    """Whether Milvus answers at all; a refusal, as without a login, is an answer.

    Args:
        upstream: Channel to it.
        seconds: How long it may take.
    """
    try:
        await upstream.unary_unary(f"/{SERVICE}/GetVersion")(b"", timeout=seconds)
    except grpc.aio.AioRpcError as error:
        return error.code() not in SILENT
    return True
