"""Whether a gateway serves: gRPC's health protocol and reflection, which load balancers, probes and grpcurl ask for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.ops import metrics
from alula.gateway.ops.logs import LOGGER

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].full_name
READY = ("", SERVICE)  # what is asked for when no service is named, and by name
ALIVE = "liveness"  # the process alone: one that waits for Milvus must not be killed for it
PATIENCE = 5
SILENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The state of one gateway: ready while Milvus answers, until it is told to stop.

    Args:
        upstream: Channel to Milvus.
        seconds: How often Milvus is asked; it may take `PATIENCE` times as long, as it may just be busy.

    Attributes:
        ready: Whether calls can be served now.
        version: What Milvus called itself when it last answered, as ``2.3.5``; empty when it did not say.
    """

    def __init__(self, upstream: grpc.aio.Channel, seconds: float) -> None:
        self.ready = False
        self.version = ""
        self._upstream = upstream
        self._seconds = seconds
        self._services = _States()
        self._stopping = False

    async def add_to(self, server: grpc.aio.Server) -> None:
        """Serve health and reflection; to be called before a handler that takes every method is added."""
        health_pb2_grpc.add_HealthServicer_to_server(self._services, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await self._services.set(ALIVE, SERVING)
        await self._show(ready=False)

    async def watch(self) -> None:
        """Ask Milvus again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            before = self.ready
            answers = await self.look()
            if answers != before and not self._stopping:
                words = f"Milvus {self.version}".rstrip() + (" answers." if answers else " does not answer any more.")
                LOGGER.log(logging.INFO if answers else logging.WARNING, words)

    async def look(self) -> bool:
        """Ask Milvus once, and show what came of it."""
        version = await ask_version(self._upstream, PATIENCE * self._seconds)
        answers = version is not None
        self.version = version or self.version
        metrics.upstream_up.set(answers)
        await self._show(ready=answers and not self._stopping)
        return answers

    async def stop(self) -> None:
        """Show NOT_SERVING from now on, and let nobody wait for more: whoever watches would hold up the end."""
        self._stopping = True
        await self._show(ready=False)
        self._services.end()

    async def _show(self, *, ready: bool) -> None:
        self.ready = ready
        for service in READY:
            await self._services.set(service, SERVING if ready else NOT_SERVING)


class _States(health.aio.HealthServicer):  # type: ignore[misc]
    """States of services, whose streams can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the protocol's name
        """Tell a client of every change, until the end."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((watching, ended), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # the last change is told
        finally:
            watching.cancel()
            ended.cancel()

    def end(self) -> None:
        """End all streams."""
        self._ended.set()


async def ask_version(upstream: grpc.aio.Channel, seconds: float) -> str | None:
    """What Milvus calls itself, empty when it does not say (as without a login), or None when it does not answer.

    Args:
        upstream: Channel to it.
        seconds: How long it may take.
    """
    ask = upstream.unary_unary(f"/{SERVICE}/GetVersion", response_deserializer=milvus_pb2.GetVersionResponse.FromString)
    try:
        answer = await ask(b"", timeout=seconds)
    except grpc.aio.AioRpcError as error:
        return None if error.code() in SILENT else ""
    return str(answer.version).removeprefix("v")
