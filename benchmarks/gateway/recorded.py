"""An upstream that replays recorded answers, at almost no cost.

As a program, ``python -m benchmarks.gateway.recorded PORT UPSTREAM``. The first request of each kind goes to the
real server; whoever sends the same bytes to the same method afterwards gets the recorded answer. It is for measuring
what stands in front of a server, where the server's own speed is not in question.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Recorder(grpc.GenericRpcHandler):
    """Answers any unary method from memory, and unknown requests from the upstream."""

    def __init__(self, upstream: grpc.aio.Channel) -> None:
        self._upstream = upstream
        self._answers: dict[tuple[str, bytes], bytes] = {}
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of a method."""
        method = details.method
        if method not in self._handlers:
            self._handlers[method] = grpc.unary_unary_rpc_method_handler(self._answer(method))
        return self._handlers[method]

    def _answer(self, method: str) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
        ask = self._upstream.unary_unary(method)

        async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            known = self._answers.get((method, request))
            if known is None:
                known = self._answers[method, request] = await ask(request)
            return known

        return answer


async def serve(port: int, upstream: str) -> None:
    """Serve until the process ends."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Recorder(grpc.aio.insecure_channel(upstream, options=OPTIONS)),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
