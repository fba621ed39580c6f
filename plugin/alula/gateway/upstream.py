"""Calls to the Milvus behind the gateway, in the name of the client that called the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.gateway.config import Options
from alula.gateway.ops import metrics

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
PREFIX = f"/{SERVICE.full_name}/"
Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"

# The end of a request that has one part comes with it; a client that streams may let the next part wait for good.
SOON = 0.02

# gRPC makes these itself for each call
_OWN_METADATA = ("user-agent", "te", "content-type")


@dataclass(frozen=True)
class Rpc:
    """A method of Milvus's service.

    Args:
        request: Class of its requests.
        response: Class of its responses.
    """

    request: type[Any]
    response: type[Any]


RPCS = {
    method.name: Rpc(GetMessageClass(method.input_type), GetMessageClass(method.output_type))
    for method in SERVICE.methods
    if not (method.client_streaming or method.server_streaming)
}


class MilvusError(Exception):
    """Milvus answered with an error.

    Args:
        status: Its ``common_pb2.Status``.
    """

    def __init__(self, status: Any) -> None:
        super().__init__(status.reason)
        self.status = status


class Upstream:
    """Connections to Milvus: one for what the event loop passes on, one for worker threads.

    Args:
        options: The gateway's.
        credentials: For TLS.
    """

    def __init__(self, options: Options, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._options = options
        self._credentials = credentials
        self._sync: dict[str, Callable[..., Any]] = {}
        self.tells_time = True  # until Milvus is found not to: Milvus Lite has no clock to ask
        self._passing: dict[str, Callable[..., Awaitable[bytes]]] = {}

    @cached_property
    def aio_channel(self) -> Any:
        """The channel of the event loop."""
        target, settings = self._options.upstream_target, self._options.channel_settings
        if self._credentials:
            return grpc.aio.secure_channel(target, self._credentials, settings)
        return grpc.aio.insecure_channel(target, settings)

    @cached_property
    def channel(self) -> Any:
        """The channel of worker threads."""
        target, settings = self._options.upstream_target, self._options.channel_settings
        if self._credentials:
            return grpc.secure_channel(target, self._credentials, settings)
        return grpc.insecure_channel(target, settings)

    def passing(self, path: str) -> Callable[..., Awaitable[bytes]]:
        """A method's calls in bytes, for the event loop."""
        if path not in self._passing:
            self._passing[path] = self.aio_channel.unary_unary(path)
        return self._passing[path]

    async def stream(self, path: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """A streaming or unknown method's answers in bytes, for the event loop.

        A single request, which is what methods of later versions mostly have, goes out at once and in one piece: when
        Milvus refuses a stream while it is being written to, gRPC forgets why.

        Args:
            path: The method.
            requests: What the client sends.
            context: The client's call.
        """
        given = {"metadata": forwarded(context.invocation_metadata()), "timeout": context.time_remaining()}

        async def coming() -> bytes | None:
            try:
                return await anext(requests, None)
            except grpc.aio.AbortError:  # the call has ended, and nobody waits for what was to come
                return None

        begin: list[asyncio.Future[bytes | None]] = []
        for _ in range(2):
            begin.append(asyncio.ensure_future(coming()))
            await asyncio.wait(begin[-1:], timeout=SOON)
            if not begin[-1].done() or begin[-1].result() is None:
                break
        if len(begin) == 2 and begin[1].done() and begin[1].result() is None:
            single: AsyncIterator[bytes] = self.aio_channel.unary_stream(path)(begin[0].result(), **given)
            return single

        async def all_of_them() -> AsyncIterator[bytes]:
            for first in begin:
                request = await first
                if request is None:
                    return
                yield request
            while (request := await coming()) is not None:
                yield request

        several: AsyncIterator[bytes] = self.aio_channel.stream_stream(path)(all_of_them(), **given)
        return several

    def method(self, name: str) -> Callable[..., Any]:
        """A method of Milvus's service, for worker threads."""
        if name not in self._sync:
            rpc = RPCS[name]
            self._sync[name] = self.channel.unary_unary(
                PREFIX + name,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
        return self._sync[name]

    async def close(self) -> None:
        """Close the connections."""
        if "aio_channel" in self.__dict__:
            await self.aio_channel.close()
        if "channel" in self.__dict__:
            self.channel.close()


class Caller:
    """A client whose call the gateway answers: what is sent to Milvus for it goes with its login and its deadline.

    Args:
        upstream: Where to.
        metadata: The client's metadata; its login is in it.
        seconds: Until its deadline, None without one.
    """

    def __init__(self, upstream: Upstream, metadata: Metadata, seconds: float | None) -> None:
        self.upstream = upstream
        self.metadata = metadata
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @property
    def database(self) -> str:
        """The database of the call, "" for the default one."""
        return database_of(self.metadata)

    def seconds(self) -> float | None:
        """What is left until the deadline."""
        return None if self._deadline is None else max(0.001, self._deadline - time.monotonic())

    def send(self, method: str, request: Message) -> Any:
        """Call a method of Milvus.

        Raises:
            MilvusError: If Milvus answers with an error.
            grpc.RpcError: If the call fails.
        """
        try:
            response = self.upstream.method(method)(request, metadata=self.metadata, timeout=self.seconds())
        except grpc.RpcError as error:
            metrics.upstream_failed(method, error.code().name)
            raise
        check(response)
        return response

    def now(self) -> int:
        """Milvus's own time, as a guarantee timestamp; 0 where it does not tell it."""
        if not self.upstream.tells_time:
            return 0
        try:
            return int(self.send("AllocTimestamp", milvus_pb2.AllocTimestampRequest()).timestamp)
        except MilvusError:
            return 0
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                raise
            self.upstream.tells_time = False
            return 0


def forwarded(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """What of a client's metadata goes upstream: all but what gRPC writes itself."""
    return tuple((k, v) for k, v in metadata if k not in _OWN_METADATA and not k.startswith(("grpc-", ":")))


def database_of(metadata: Metadata) -> str:
    """The database that a call's metadata name, "" for the default one."""
    return next((str(value) for key, value in metadata if key == "dbname"), "")


def status_of(response: Any) -> Any:
    """The status of a response, whose class may be Status itself."""
    return response if isinstance(response, common_pb2.Status) else getattr(response, "status", None)


def check(response: Any) -> None:
    """Raise a `MilvusError` if a response is an error."""
    status = status_of(response)
    if status is not None and (status.code or status.error_code):
        raise MilvusError(status)


def pairs(values: Iterable[tuple[str, Any]]) -> Sequence[Any]:
    """Milvus's key-value pairs."""
    return [common_pb2.KeyValuePair(key=key, value=str(value)) for key, value in values]


def refill(repeated: Any, values: Iterable[Any]) -> None:
    """Replace what a repeated field holds, of which some may be the new values: who holds messages keeps them alive."""
    kept = list(values)
    del repeated[:]
    repeated.extend(kept)
