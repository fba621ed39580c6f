"""The gateway's server: it passes calls on as bytes, and answers those itself that an index type of Alula's is in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from alula.errors import ServerError
from alula.gateway.call_log import Call, CallLog
from alula.gateway.capability_cache import CapabilitiesOf
from alula.gateway.config import Options, split_address
from alula.gateway.dispatch import ALWAYS, CHANGING, REWRITES, answer, busy
from alula.gateway.encoder_cache import Encoders
from alula.gateway.ops import metrics
from alula.gateway.ops.health import Health
from alula.gateway.ops.http import Pages
from alula.gateway.ops.tls import channel_credentials, server_credentials
from alula.gateway.peek import NameFields, peek
from alula.gateway.session import Session
from alula.gateway.status import refused, status_of
from alula.gateway.upstream import PREFIX, RPCS, Caller, Metadata, Upstream, database_of, forwarded
from alula.gateway.views import Views
from alula.gateway.workers import OverloadedError, Workers

_NAMES = {name: NameFields.of(rpc.request.DESCRIPTOR) for name, rpc in RPCS.items()}
SEEN_SECONDS = 5.0  # two probes of a balancer that asks every two seconds
Answer = Callable[[Call, bytes], Awaitable[bytes]]


class Gateway:
    """A server in front of Milvus.

    Args:
        options: Its settings.

    Attributes:
        health: Whether it serves.

    Raises:
        UsageError: If a file of TLS cannot be used.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.encoders = Encoders(options.cache_dir)
        self.views = Views(self.encoders)
        self.upstream = Upstream(options, channel_credentials(options))
        self._credentials = server_credentials(options.tls) if options.tls else None
        self._capabilities = CapabilitiesOf(options)
        self._workers = Workers(options.workers, options.queue)
        self._pages: Pages | None = None

    async def start(self) -> int:
        """Listen, whether Milvus answers or not; the port that was taken.

        Raises:
            ServerError: If an address cannot be listened on.
        """
        self._observed = CallLog(self.options.slow_seconds)
        self.health = Health(self.upstream.aio_channel, self.options.health_seconds)
        self._server = grpc.aio.server(options=self.options.server_settings)
        await self.health.add_to(self._server)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        port = self._listen()
        if self.options.metrics:
            self._pages = Pages(self.options.metrics, self.health, asyncio.get_running_loop())
        await self._server.start()
        await self.health.look()
        self._watching = asyncio.create_task(self.health.watch())
        return port

    @property
    def metrics_port(self) -> int | None:
        """The port of its pages, if it has any."""
        return self._pages.port if self._pages else None

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()

    async def stop(self, grace: float) -> None:
        """Take no new calls, and end when those under way have, at the latest after `grace` seconds.

        While somebody asks whether the gateway is ready, it first goes on for as long as balancers take to see that it
        is not any more: gRPC cancels calls that arrive just when a server stops, and a balancer cannot send them again.
        """
        await self.health.stop()
        self._watching.cancel()
        if self._pages and self._pages.watched:
            await asyncio.sleep(min(grace, SEEN_SECONDS))
        await self._server.stop(grace)
        self._workers.close()
        await self.upstream.close()
        if self._pages:
            await asyncio.to_thread(self._pages.close)

    def _listen(self) -> int:
        host, port = split_address(self.options.listen, "--listen")
        address = f"{host}:{port}"
        try:
            if self._credentials:
                return int(self._server.add_secure_port(address, self._credentials))
            return int(self._server.add_insecure_port(address))
        except RuntimeError:
            why = _why_not(host, port)
            raise ServerError(
                f"Clients cannot be served at {self.options.listen} ({why}); give --listen another address or port."
            ) from None

    async def passed(self, call: Call, request: bytes, metadata: Metadata | None = None) -> bytes:
        """Milvus's own answer to a call."""
        metadata = forwarded(call.context.invocation_metadata()) if metadata is None else metadata
        forward = self.upstream.passing(PREFIX + call.method)
        try:
            response = await forward(request, metadata=metadata, timeout=call.context.time_remaining())
        except grpc.aio.AioRpcError as error:
            metrics.upstream_failed(call.method, error.code().name)
            await self._abort(call, error, error.trailing_metadata())
        if call.method in CHANGING:
            self._forget(call.method, request, metadata)
        return response

    async def rewritten(self, call: Call, request: bytes) -> bytes:
        """The answer to a call that may be about an index type of Alula's."""
        name = call.method
        metadata = forwarded(call.context.invocation_metadata())
        database, collection = peek(request, _NAMES[name])
        known = None if name in ALWAYS else self.views.known(database or database_of(metadata), collection)
        response = None
        if known and known.ordinary:
            response = await self.passed(call, request, metadata)
            if not refused(status_of(name, response)):
                return response
            # perhaps it is another collection by now
        caller = Caller(self.upstream, metadata, call.context.time_remaining())
        session = Session(caller, self.views, self.encoders, self._capabilities, fresh=response is not None)
        call.way = "rewritten"
        try:
            made = await self._workers.run(answer, name, session, request)
        except OverloadedError as error:
            return busy(name, str(error))
        except grpc.RpcError as error:
            await self._abort(call, error)
        finally:
            if name in CHANGING:
                self._forget(name, request, metadata)
        if made is not None:
            return made
        call.way = "passed"
        return response if response is not None else await self.passed(call, request, metadata)

    def unary(self, method: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """How a method of Milvus's is served."""
        respond: Answer = self.rewritten if method in REWRITES else self.passed

        async def serve(request: bytes, context: Any) -> bytes:
            call = Call(method, context, lambda: peek(request, _NAMES[method])[1])
            async with self._observed.watch(call):
                call.answer = await respond(call, request)
            return call.answer

        return serve

    def streaming(self, path: str) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        """How a method is served that streams, or that this version does not know: message by message."""

        async def serve(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            call = Call(path.rpartition("/")[2], context)
            async with self._observed.watch(call):
                try:
                    async for response in await self.upstream.stream(path, requests, context):
                        yield response
                except grpc.aio.AioRpcError as error:
                    metrics.upstream_failed(call.method, error.code().name)
                    await self._abort(call, error, error.trailing_metadata())

        return serve

    async def _abort(self, call: Call, error: Any, trailing: Any = ()) -> NoReturn:
        """End a call as Milvus's failed."""
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNAVAILABLE:
            details = f"The gateway has no answer of Milvus at {self.options.upstream}: {details}"
        if call.way == "rewritten" and code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            details = (
                f"With what the index type adds, the request is larger than Milvus takes: send fewer rows. {details}"
            )
        try:
            await call.context.abort(code, details, tuple(trailing or ()))
        except grpc.aio.InternalError:  # the client has gone meanwhile, and cannot be told
            raise asyncio.CancelledError from None
        raise error

    def _forget(self, name: str, request: bytes, metadata: Metadata) -> None:
        """Forget what was known before a call that changed it; names change too, so it is all of the database."""
        database, _ = peek(request, _NAMES[name])
        self.views.forget(database or database_of(metadata))


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._made: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        if path not in self._made:
            if len(self._made) > len(RPCS) + 256:
                self._made.clear()  # whoever makes up names of methods must not fill the memory
            self._made[path] = self._make(path)
        return self._made[path]

    def _make(self, path: str) -> Any:
        name = path.removeprefix(PREFIX) if path.startswith(PREFIX) else ""
        if name in RPCS:
            return grpc.unary_unary_rpc_method_handler(self._gateway.unary(name))
        return grpc.stream_stream_rpc_method_handler(self._gateway.streaming(path))


def _why_not(host: str, port: int) -> str:
    """Why an address cannot be listened on, in the system's words: gRPC does not tell."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return str(error.strerror).lower()
    return "gRPC could not"
