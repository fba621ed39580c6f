"""HTTP pages of a gateway: metrics and probes.

``/healthz`` is 200 while the process answers and no encoder hangs, ``/readyz`` while Milvus answers too. Unlike the
gRPC probes of Kubernetes, they also work if clients need a certificate.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from alula.errors import ServerError
from alula.gateway.config import split_address
from alula.gateway.ops.health import Health

PROBE_SECONDS = 15.0  # kubelets probe every 10 seconds, load balancers more often
LOOP_SECONDS = 2.0  # an event loop that does nothing for this long is stuck
REQUEST_SECONDS = 10.0  # for a request to arrive

_metrics = make_wsgi_app()


class HttpServer:
    """The pages of one gateway, served by threads beside the event loop.

    Args:
        address: ``HOST:PORT`` or ``:PORT``.
        health: The gateway's state.
        loop: The gateway's event loop, which must answer for ``/healthz``.

    Attributes:
        port: The port in use.

    Raises:
        ServerError: If the address is not available.
    """

    def __init__(self, address: str, health: Health, loop: asyncio.AbstractEventLoop) -> None:
        host, port = split_address(address, "metrics")
        self._health, self._loop = health, loop
        self._probed = -math.inf
        try:
            self._server = _Server((host.strip("[]"), port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ServerError(
                f"Metrics cannot be served at {address} ({reason}); set metrics=... to another address or port."
            ) from None
        self._server.set_app(self._respond)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="alula-http", daemon=True).start()

    @property
    def is_probed(self) -> bool:
        """True if ``/readyz`` was requested in the last `PROBE_SECONDS`."""
        return time.monotonic() - self._probed < PROBE_SECONDS

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = _metrics(environ, start_response)
            return page
        status, body = HTTPStatus.NOT_FOUND, b"There are /metrics, /healthz and /readyz.\n"
        if path in ("/healthz", "/readyz"):
            if path == "/readyz":
                self._probed = time.monotonic()
            serves = self._health.ready if path == "/readyz" else self._health.alive and self._loop_answers()
            status = HTTPStatus.OK if serves else HTTPStatus.SERVICE_UNAVAILABLE
            body = b"ok\n" if serves else b"not ready\n"
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain")])
        return [body]

    def _loop_answers(self) -> bool:
        try:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(LOOP_SECONDS)
        except (concurrent.futures.TimeoutError, RuntimeError):
            return False
        return True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:  # "::" is every address, including those of IPv4
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: probes come every few seconds."""
