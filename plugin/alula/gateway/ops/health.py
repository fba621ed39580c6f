"""The gateway's health and reflection services, for probes and grpcurl."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pymilvus.grpc_gen import milvus_pb2

from alula.encoders.session import stuck_runs
from alula.gateway.ops import metrics
from alula.gateway.ops.logs import LOGGER

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].full_name
READY = ("", SERVICE)  # "" is the whole server
ALIVE = "liveness"  # the process alone: a gateway that waits for Milvus must not be killed
TIMEOUT_FACTOR = 5
SILENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The state of one gateway: ready while Milvus and its encoders answer.

    Args:
        upstream: Channel to Milvus.
        seconds: Seconds between two checks; a busy Milvus may take `TIMEOUT_FACTOR` times as long to answer.

    Attributes:
        ready: True if calls can be served.
        version: Version of Milvus in its last answer, such as ``2.3.5``; "" if unknown.
    """

    def __init__(self, upstream: grpc.aio.Channel, seconds: float) -> None:
        self.ready = False
        self.version = ""
        self._upstream = upstream
        self._seconds = seconds
        self._services = _States()
        self._stopping = False
        self._stuck = 0

    @property
    def alive(self) -> bool:
        """False if the gateway must be started again."""
        return not self._stuck

    async def add_to(self, server: grpc.aio.Server) -> None:
        """Serve health and reflection; call it before adding catch-all handlers."""
        health_pb2_grpc.add_HealthServicer_to_server(self._services, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await self._services.set(ALIVE, SERVING)
        await self._publish(ready=False)

    async def watch(self) -> None:
        """Check Milvus periodically, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            before = self.ready
            answers = await self.check()
            if answers != before and not self._stopping:
                words = f"Milvus {self.version}".rstrip() + (" answers." if answers else " no longer answers.")
                LOGGER.log(logging.INFO if answers else logging.WARNING, words)

    async def check(self) -> bool:
        """Check Milvus once, and publish the result."""
        version = await read_version(self._upstream, TIMEOUT_FACTOR * self._seconds)
        answers = version is not None
        self.version = version or self.version
        metrics.upstream_up.set(answers)
        stuck = stuck_runs()
        if stuck > self._stuck:
            LOGGER.error("An encoder does not end; its thread is lost until the gateway is started again.")
        self._stuck = stuck
        await self._services.set(ALIVE, NOT_SERVING if stuck else SERVING)
        await self._publish(ready=answers and not stuck and not self._stopping)
        return answers

    async def stop(self) -> None:
        """Publish NOT_SERVING, and end watchers' streams, which would delay the stop."""
        self._stopping = True
        await self._publish(ready=False)
        self._services.end()

    async def _publish(self, *, ready: bool) -> None:
        self.ready = ready
        for service in READY:
            await self._services.set(service, SERVING if ready else NOT_SERVING)


class _States(health.aio.HealthServicer):  # type: ignore[misc]
    """Service states whose streams can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the protocol's name
        """Send a client every change, until the streams are ended."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((watching, ended), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # so that the last change is sent
        finally:
            watching.cancel()
            ended.cancel()

    def end(self) -> None:
        """End all streams."""
        self._ended.set()


async def read_version(upstream: grpc.aio.Channel, seconds: float) -> str | None:
    """The version of Milvus; "" if a login is missing, None without an answer.

    Args:
        upstream: Channel to Milvus.
        seconds: Timeout.
    """
    get_version = upstream.unary_unary(
        f"/{SERVICE}/GetVersion", response_deserializer=milvus_pb2.GetVersionResponse.FromString
    )
    try:
        answer = await get_version(b"", timeout=seconds)
    except grpc.aio.AioRpcError as error:
        return None if error.code() in SILENT else ""
    return str(answer.version).removeprefix("v")
