"""What a gateway serves by HTTP: ``/metrics``, ``/healthz`` (the process answers), ``/readyz`` (so does Milvus).

Probes by HTTP also work where clients need a certificate, which gRPC's probes of Kubernetes cannot show.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from alula.errors import ServerError
from alula.gateway.config import split_address
from alula.gateway.ops.health import Health

LATELY_SECONDS = 15.0  # kubelets ask every 10 seconds, balancers more often
LOOP_SECONDS = 2.0  # a gateway that does nothing for so long is stuck


class Pages:
    """The pages of one gateway, served from threads of their own: they answer while it is busy.

    Args:
        address: Where, as ``HOST:PORT`` or ``:PORT``.
        health: What is ready.
        loop: The gateway's event loop, which must answer for ``/healthz``.

    Raises:
        ServerError: If the address cannot be listened on.
    """

    def __init__(self, address: str, health: Health, loop: asyncio.AbstractEventLoop) -> None:
        host, port = split_address(address, "--metrics")
        pages = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0  # seconds for a request that does not come

            def do_GET(self) -> None:
                if self.path.startswith("/readyz"):
                    pages._asked = time.monotonic()
                status, kind, body = pages._answer(self.path.split("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                del format, args  # a line for every probe says nothing

        self._health, self._loop = health, loop
        self._asked = -math.inf
        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ServerError(
                f"Metrics cannot be served at {address} ({why}); give --metrics another address or port."
            ) from None
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="alula-pages", daemon=True).start()

    @property
    def watched(self) -> bool:
        """Whether somebody has asked lately if the gateway is ready."""
        return time.monotonic() - self._asked < LATELY_SECONDS

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest()
        if path == "/healthz":
            good = self._loop_answers()
        elif path == "/readyz":
            good = self._health.ready
        else:
            return HTTPStatus.NOT_FOUND, "text/plain", b"There are /metrics, /healthz and /readyz.\n"
        if good:
            return HTTPStatus.OK, "text/plain", b"ok\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"not ready\n"

    def _loop_answers(self) -> bool:
        try:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(LOOP_SECONDS)
        except (concurrent.futures.TimeoutError, RuntimeError):
            return False
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has gone."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        host = address[0].strip("[]")
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, address[1]), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:  # "[::]" is every address, IPv4's too
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
