"""The gateway's server: forwards calls as bytes, or rewrites them."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import Any, NoReturn

import grpc

from alula.errors import ServerError
from alula.gateway.call_log import Call, CallLog
from alula.gateway.capability_cache import CapabilityCache
from alula.gateway.config import Options, split_address
from alula.gateway.cost import is_heavy
from alula.gateway.dispatch import ALWAYS, CHANGING, READING, REWRITES, answer, busy
from alula.gateway.encoder_cache import Encoders
from alula.gateway.logins import Logins, login_of
from alula.gateway.ops import metrics
from alula.gateway.ops.health import Health
from alula.gateway.ops.http import HttpServer
from alula.gateway.ops.tls import channel_credentials, server_credentials
from alula.gateway.peek import NameFields, peek
from alula.gateway.policy import Policy, read_policy
from alula.gateway.session import Session
from alula.gateway.status import refused, status_of
from alula.gateway.upstream import PREFIX, RPCS, Caller, Metadata, Upstream, database_of, forwarded
from alula.gateway.views import CollectionInfo, Views
from alula.gateway.workers import ByteBudget, OverloadedError, Workers
from alula.tracing import with_context

_NAMES = {name: NameFields.of(rpc.request.DESCRIPTOR) for name, rpc in RPCS.items()}
SMALL = 16 << 10  # bytes of a request that is not counted: at most one for each of the calls at a time
UNREADY_SECONDS = 5.0  # two probes of a load balancer that probes every two seconds
Answer = Callable[[Call, bytes], Awaitable[bytes]]


class Gateway:
    """A server in front of Milvus.

    Args:
        options: The gateway's options.

    Attributes:
        health: Its state: ready while Milvus answers.
        logins: The logins that Milvus accepted lately.

    Raises:
        UsageError: If a TLS file or the policy cannot be used.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.encoders = Encoders(options.cache_dir)
        self.views = Views(self.encoders)
        self.upstream = Upstream(options, channel_credentials(options))
        self._credentials = server_credentials(options.tls) if options.tls else None
        self.logins = Logins(self.upstream)
        self._capabilities = CapabilityCache(options)
        self._policy = read_policy(options.policy) if options.policy else Policy()
        self._workers = Workers(options.workers, options.queue)
        self._requests = ByteBudget(options.max_bytes)
        self._reading: dict[tuple[Hashable, str, str], asyncio.Task[CollectionInfo]] = {}
        self._http: HttpServer | None = None

    async def start(self) -> int:
        """Listen, even if Milvus does not answer, and return the port.

        Raises:
            ServerError: If an address is not available.
        """
        self._calls = CallLog(self.options.slow_seconds)
        self.health = Health(self.upstream.aio_channel, self.options.health_seconds)
        self._server = grpc.aio.server(
            options=self.options.server_settings,
            maximum_concurrent_rpcs=self.options.max_calls,
        )
        await self.health.add_to(self._server)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        port = self._listen()
        if self.options.metrics:
            self._http = HttpServer(self.options.metrics, self.health, asyncio.get_running_loop())
        await self._server.start()
        await self.health.check()
        self._watching = asyncio.create_task(self.health.watch())
        return port

    @property
    def metrics_port(self) -> int | None:
        """The port of its HTTP pages, if any."""
        return self._http.port if self._http else None

    async def wait(self) -> None:
        """Wait until the server has stopped."""
        await self._server.wait_for_termination()

    async def stop(self, grace: float) -> None:
        """Reject new calls, and stop when the running ones end or after `grace` seconds.

        While load balancers probe ``/readyz``, the gateway serves until they have seen that it is no longer ready:
        gRPC cancels calls that arrive while a server stops, and a balancer cannot repeat them.
        """
        await self.health.stop()
        self._watching.cancel()
        if self._http and self._http.is_probed:
            await asyncio.sleep(min(grace, UNREADY_SECONDS))
        await self._server.stop(grace)
        self._workers.close()
        await self.upstream.close()
        if self._http:
            await asyncio.to_thread(self._http.close)

    def _listen(self) -> int:
        host, port = split_address(self.options.listen, "listen")
        address = f"{host}:{port}"
        try:
            if self._credentials:
                return int(self._server.add_secure_port(address, self._credentials))
            return int(self._server.add_insecure_port(address))
        except RuntimeError:
            why = _why_not(host, port)
            raise ServerError(
                f"Clients cannot be served at {self.options.listen} ({why}); set listen=... to another address or port."
            ) from None

    async def passed(self, call: Call, request: bytes, metadata: Metadata | None = None) -> bytes:
        """Forward a call, and return Milvus's response."""
        metadata = with_context(forwarded(call.context.invocation_metadata())) if metadata is None else metadata
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
        """Answer a call of a method in `REWRITES`, or forward it."""
        name = call.method
        metadata = with_context(forwarded(call.context.invocation_metadata()))
        database, collection = peek(request, _NAMES[name])
        database = database or database_of(metadata)
        info = None if name in ALWAYS else await self._info(call, metadata, database, collection)
        response = None
        if info and info.ordinary:
            response = await self.passed(call, request, metadata)
            if not refused(status_of(name, response)):
                return response
            # the collection may have changed since its description was cached
        caller = Caller(self.upstream, metadata, call.context.time_remaining())
        caches = (self.views, self.encoders, self._capabilities)
        session = Session(caller, *caches, self._policy, fresh=response is not None)
        call.route = "rewritten"
        try:
            work = functools.partial(answer, name, session, request)
            heavy = name in READING and is_heavy(name, request, info.view if info else None)
            answered = await self._workers.run(_client(call, metadata), work, heavy=heavy)
        except asyncio.CancelledError:
            caller.cancel()
            raise
        except OverloadedError as error:
            return busy(name, str(error))
        except grpc.RpcError as error:
            await self._abort(call, error)
        finally:
            if name in CHANGING:
                self._forget(name, request, metadata)
        if answered is not None:
            return answered
        call.route = "passed"
        return response if response is not None else await self.passed(call, request, metadata)

    async def _info(self, call: Call, metadata: Metadata, database: str, collection: str) -> CollectionInfo | None:
        """The description of a collection; None if it cannot be read.

        A client's calls share one read, in one worker: when a description grows too old, more of them may be under
        way than the workers have room for, and those that pass must not be refused.
        """
        if (cached := self.views.cached(database, collection)) or not collection:
            return cached
        client = _client(call, metadata)
        key = (client, database, collection)
        reading = self._reading.get(key)
        if reading is None:
            caller = Caller(self.upstream, metadata, call.context.time_remaining())
            work = functools.partial(self.views.read, caller, database, collection)
            reading = self._reading[key] = asyncio.create_task(self._workers.run(client, work))
            reading.add_done_callback(functools.partial(self._end_reading, key))
        try:
            return await asyncio.shield(reading)
        except Exception:
            return None  # the call reads it again, and answers with the reason

    def _end_reading(self, key: tuple[Hashable, str, str], reading: asyncio.Task[CollectionInfo]) -> None:
        if self._reading.get(key) is reading:
            del self._reading[key]
        if not reading.cancelled():
            reading.exception()  # or asyncio logs it where all who waited have gone

    def unary(self, method: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """The handler of a unary method of Milvus."""
        respond: Answer = self.rewritten if method in REWRITES else self.passed

        async def serve(request: bytes, context: Any) -> bytes:
            call = Call(method, context, lambda: peek(request, _NAMES[method])[1])
            async with self._calls.record(call):
                small = len(request) <= SMALL
                call.answer = await (respond(call, request) if small else self._in_budget(respond, call, request))
            return call.answer

        return serve

    async def _in_budget(self, respond: Answer, call: Call, request: bytes) -> bytes:
        """Answer a call while its bytes are counted."""
        client = _client(call, call.context.invocation_metadata())
        if not self._requests.take(client, len(request)):
            return busy(call.method, "The gateway holds too many large requests; try again.")
        try:
            return await respond(call, request)
        finally:
            self._requests.give_back(client, len(request))

    def of_unknown_login(self, method: str) -> Callable[[AsyncIterator[bytes], Any], Awaitable[bytes]]:
        """The handler of a unary method for a login that Milvus has not accepted lately.

        The login is checked before the message is received. For all others an interceptor would cost more time.
        """
        answer_known = self.unary(method)

        async def serve(requests: AsyncIterator[bytes], context: Any) -> bytes:
            refusal = await self.logins.refusal(forwarded(context.invocation_metadata()))
            if refusal is not None:
                async with self._calls.record(Call(method, context)):
                    trailing = tuple(refusal.trailing_metadata() or ())
                    await context.abort(refusal.code(), refusal.details() or "", trailing)
            return await answer_known(await anext(requests, b""), context)

        return serve

    def streaming(self, path: str) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        """The handler of a streaming or unknown method: it forwards message by message."""

        async def serve(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            call = Call(path.rpartition("/")[2], context)
            async with self._calls.record(call):
                try:
                    async for response in await self.upstream.stream(path, requests, context):
                        yield response
                except grpc.aio.AioRpcError as error:
                    metrics.upstream_failed(call.method, error.code().name)
                    await self._abort(call, error, error.trailing_metadata())

        return serve

    async def _abort(self, call: Call, error: Any, trailing: Any = ()) -> NoReturn:
        """Abort a call with the error of the call to Milvus."""
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNAVAILABLE:
            details = f"Milvus at {self.options.upstream} does not answer the gateway: {details}"
        if call.route == "rewritten" and code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            details = (
                f"With the fields of the index type, the request is too large for Milvus; send fewer rows. {details}"
            )
        try:
            await call.context.abort(code, details, tuple(trailing or ()))
        except grpc.aio.InternalError:  # the client has disconnected
            raise asyncio.CancelledError from None
        raise error

    def _forget(self, name: str, request: bytes, metadata: Metadata) -> None:
        """Drop a database from the cache: a change may affect several names."""
        database, _ = peek(request, _NAMES[name])
        self.views.forget(database or database_of(metadata))
        self._reading.clear()  # what is being read may be older than the change


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._handlers: dict[str, Any] = {}
        self._of_unknown_logins = {
            PREFIX + name: grpc.stream_unary_rpc_method_handler(gateway.of_unknown_login(name)) for name in RPCS
        }

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        if path in self._of_unknown_logins and not self._gateway.logins.accepted(
            handler_call_details.invocation_metadata
        ):
            return self._of_unknown_logins[path]
        if path not in self._handlers:
            if len(self._handlers) > len(RPCS) + 256:
                self._handlers.clear()  # clients that invent method names must not fill the memory
            self._handlers[path] = self._handler(path)
        return self._handlers[path]

    def _handler(self, path: str) -> Any:
        name = path.removeprefix(PREFIX) if path.startswith(PREFIX) else ""
        if name in RPCS:
            return grpc.unary_unary_rpc_method_handler(self._gateway.unary(name))
        return grpc.stream_stream_rpc_method_handler(self._gateway.streaming(path))


def _client(call: Call, metadata: Metadata) -> tuple[bytes, str]:
    """A client to share with others: its login and its host."""
    return login_of(metadata), str(call.context.peer()).rpartition(":")[0]


def _why_not(host: str, port: int) -> str:
    """The system's reason for which an address is not available; gRPC reports none."""
    try:
        family, socket_type, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, socket_type, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return str(error.strerror).lower()
    return "gRPC could not"
