"""A gateway in this process, for tests of what it does to calls: it starts in milliseconds."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families
from pymilvus.grpc_gen import milvus_pb2_grpc

from alula.gateway.config import Options
from alula.gateway.server import Gateway

LOOPBACK = "127.0.0.1"


class RunningGateway:
    """A gateway on free ports of the loopback, in a thread of its own, for as long as the ``with`` block lasts.

    Args:
        upstream: The address of Milvus.
        options: Further fields of `Options`.
    """

    def __init__(self, upstream: str, **options: Any) -> None:
        given = {"listen": f"{LOOPBACK}:0", "metrics": f"{LOOPBACK}:0", "health_seconds": 0.2} | options
        self.options = Options(upstream, **given)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stopped = False

    def __enter__(self) -> RunningGateway:
        self._thread.start()
        self.gateway = Gateway(self.options)
        self.port = self.run(self.gateway.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._stopped:
            self.stop(0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def uri(self) -> str:
        """The address for ``MilvusClient(uri)``."""
        return f"http://{LOOPBACK}:{self.port}"

    def run(self, work: Any) -> Any:
        """Do something in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self, grace: float) -> None:
        """Tell it to stop, and return when it has."""
        self._stopped = True
        self.run(self.gateway.stop(grace))

    def channel(self, **settings: Any) -> grpc.Channel:
        """A connection that no other client shares."""
        given = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), *settings.items()]
        return grpc.insecure_channel(f"{LOOPBACK}:{self.port}", given)

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.gateway.metrics_port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def stub(channel: grpc.Channel) -> Any:
    """Milvus's methods by a channel."""
    return milvus_pb2_grpc.MilvusServiceStub(channel)


def values(gateway: RunningGateway) -> dict[tuple, float]:
    """Every sample of the metrics page: its name and its labels' values give its value."""
    families = text_string_to_metric_families(gateway.page("/metrics")[1])
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
