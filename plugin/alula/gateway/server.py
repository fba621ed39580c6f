"""The gateway's server: it passes calls on as bytes, and answers those itself that an index type of Alula's is in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from alula.gateway.capabilities import CapabilitiesOf
from alula.gateway.encoders import Encoders
from alula.gateway.options import Options, split_address
from alula.gateway.peek import NameFields, peek, refused
from alula.gateway.rewriting import ALWAYS, CHANGING, REWRITES, answer
from alula.gateway.session import Session
from alula.gateway.upstream import PREFIX, RPCS, Caller, Upstream, forwarded
from alula.gateway.views import Views
from alula.gateway.workers import Workers

_NAMES = {name: NameFields.of(rpc.request.DESCRIPTOR) for name, rpc in RPCS.items()}
Answer = Callable[[bytes, Any], Awaitable[bytes]]


class Gateway:
    """A server in front of Milvus.

    Args:
        options: Its settings.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.encoders = Encoders(options.cache_dir)
        self.views = Views(self.encoders)
        self._capabilities = CapabilitiesOf(options)
        self._workers = Workers(options.workers, options.queue)
        self._upstream: Upstream | None = None
        self._server: Any = None

    async def start(self) -> int:
        """Listen; the port that was taken."""
        self._upstream = Upstream(self.options)
        self._server = grpc.aio.server(options=self.options.server_settings)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        host, port = split_address(self.options.listen, "--listen")
        taken: int = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        return taken

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()

    async def stop(self, grace: float) -> None:
        """Take no new calls, and end when those under way have, at the latest after `grace` seconds."""
        await self._server.stop(grace)
        self._workers.close()
        if self._upstream:
            await self._upstream.close()

    @property
    def upstream(self) -> Upstream:
        """The connections to Milvus."""
        if self._upstream is None:
            raise RuntimeError("the gateway was not started")
        return self._upstream

    def passing(self, path: str) -> Answer:
        """How a method is answered that is passed on as it comes."""
        forward = self.upstream.passing(path)
        name = path.removeprefix(PREFIX)

        async def answer_by_milvus(request: bytes, context: Any) -> bytes:
            metadata = forwarded(context.invocation_metadata())
            try:
                response = await forward(request, metadata=metadata, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", error.trailing_metadata())
                raise
            if name in CHANGING:
                self._forget(name, request, metadata)
            return response

        return answer_by_milvus

    def rewriting(self, path: str) -> Answer:
        """How a method is answered that may be about an index type of Alula's."""
        name = path.removeprefix(PREFIX)
        names = _NAMES[name]
        pass_on = self.passing(path)

        async def answer_here(request: bytes, context: Any) -> bytes:
            caller = Caller(self.upstream, forwarded(context.invocation_metadata()), context.time_remaining())
            database, collection = peek(request, names)
            known = None if name in ALWAYS else self.views.known(database or caller.database, collection)
            if known and known.ordinary:
                response = await pass_on(request, context)
                if not refused(response):
                    return response
                # perhaps it is another collection by now
            session = Session(caller, self.views, self.encoders, self._capabilities, fresh=known is not None)
            try:
                made = await self._workers.run(answer, name, session, request)
            except grpc.RpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise
            finally:
                if name in CHANGING:
                    self._forget(name, request, caller.metadata)
            if made is not None:
                return made
            return response if known and known.ordinary else await pass_on(request, context)

        return answer_here

    def streaming(self, path: str) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        """How a method is answered that streams, or that this version does not know: message by message."""
        forward = self.upstream.streaming(path)

        async def answer_by_milvus(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            metadata = forwarded(context.invocation_metadata())
            try:
                async for response in forward(requests, metadata=metadata, timeout=context.time_remaining()):
                    yield response
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", error.trailing_metadata())

        return answer_by_milvus

    def _forget(self, name: str, request: bytes, metadata: Any) -> None:
        """Forget what was known before a call that changed it; names change too, so it is all of the database."""
        database, _ = peek(request, _NAMES[name])
        self.views.forget(database or Caller(self.upstream, metadata, None).database)


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
        if name in REWRITES:
            return grpc.unary_unary_rpc_method_handler(self._gateway.rewriting(path))
        if name in RPCS:
            return grpc.unary_unary_rpc_method_handler(self._gateway.passing(path))
        return grpc.stream_stream_rpc_method_handler(self._gateway.streaming(path))
