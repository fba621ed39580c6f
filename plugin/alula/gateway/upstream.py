"""Calls to the upstream Milvus on behalf of a client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.errors import AlulaError
from alula.gateway.config import Options
from alula.gateway.ops import metrics
from alula.milvus.dialect import LITE, MILVUS, Dialect
from alula.milvus.expressions import IdTemplates

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
PREFIX = f"/{SERVICE.full_name}/"
Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"

# Seconds to wait for a second message: a single request is followed at once by the end of the stream, while a client
# that streams may never send another message.
SECOND_MESSAGE_SECONDS = 0.02

# gRPC sets these itself for each call
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


class CallEndedError(AlulaError):
    """The client of a call has gone."""


class MilvusError(Exception):
    """Milvus returned an error status.

    Args:
        status: The ``common_pb2.Status``.
    """

    def __init__(self, status: Any) -> None:
        super().__init__(status.reason)
        self.status = status


class Upstream:
    """Connections to Milvus: one for the event loop, one for worker threads.

    Args:
        options: The gateway's options.
        credentials: Credentials for TLS; None for no TLS.
    """

    def __init__(self, options: Options, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._options = options
        self._credentials = credentials
        self._sync: dict[str, Callable[..., Any]] = {}
        self.has_clock: bool | None = None  # False if AllocTimestamp is missing, as in Milvus Lite; None before a call
        self.id_templates = IdTemplates()
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
        """A unary method with serialised messages, for the event loop."""
        if path not in self._passing:
            self._passing[path] = self.aio_channel.unary_unary(path)
        return self._passing[path]

    async def stream(self, path: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Call a streaming or unknown method with serialised messages, for the event loop.

        A single request, as most methods of later versions have, is sent as a unary request: if Milvus rejects a
        stream while it is being written, gRPC loses the reason.

        Args:
            path: The method.
            requests: The client's messages.
            context: The client's call.
        """
        given = {"metadata": forwarded(context.invocation_metadata()), "timeout": context.time_remaining()}

        async def next_message() -> bytes | None:
            try:
                return await anext(requests, None)
            except grpc.aio.AbortError:  # the call has ended
                return None

        first_messages: list[asyncio.Future[bytes | None]] = []
        for _ in range(2):
            first_messages.append(asyncio.ensure_future(next_message()))
            await asyncio.wait(first_messages[-1:], timeout=SECOND_MESSAGE_SECONDS)
            if not first_messages[-1].done() or first_messages[-1].result() is None:
                break
        if len(first_messages) == 2 and first_messages[1].done() and first_messages[1].result() is None:
            single: AsyncIterator[bytes] = self.aio_channel.unary_stream(path)(first_messages[0].result(), **given)
            return single

        async def all_messages() -> AsyncIterator[bytes]:
            for first in first_messages:
                request = await first
                if request is None:
                    return
                yield request
            while (request := await next_message()) is not None:
                yield request

        several: AsyncIterator[bytes] = self.aio_channel.stream_stream(path)(all_messages(), **given)
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
    """A client, with whose login and deadline calls are sent to Milvus.

    Args:
        upstream: The connections to Milvus.
        metadata: The client's metadata, which contain its login.
        seconds: Seconds until its deadline, None without one.
    """

    def __init__(self, upstream: Upstream, metadata: Metadata, seconds: float | None) -> None:
        self.upstream = upstream
        self.metadata = metadata
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End the work for a client that has gone, at the next `check`."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise `CallEndedError` if the client has gone, as after its deadline."""
        if self._cancelled.is_set():
            raise CallEndedError("The client has gone.")

    @property
    def database(self) -> str:
        """The database of the call, "" for the default one."""
        return database_of(self.metadata)

    def seconds(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else max(0.001, self._deadline - time.monotonic())

    def send(self, method: str, request: Message) -> Any:
        """Call a method of Milvus.

        Raises:
            MilvusError: If Milvus returns an error status.
            grpc.RpcError: If the call fails.
            CallEndedError: If the client has gone.
        """
        self.check()
        try:
            response = self.upstream.method(method)(request, metadata=self.metadata, timeout=self.seconds())
        except grpc.RpcError as error:
            metrics.upstream_failed(method, error.code().name)
            raise
        check(response)
        return response

    def now(self) -> int:
        """The current timestamp of Milvus; 0 if the server has no clock."""
        if self.upstream.has_clock is False:
            return 0
        try:
            timestamp = int(self.send("AllocTimestamp", milvus_pb2.AllocTimestampRequest()).timestamp)
        except MilvusError:
            self.upstream.has_clock = True  # for logins with the right to ask
            return 0
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                raise
            timestamp = 0
        self.upstream.has_clock = timestamp > 0
        return timestamp

    @property
    def dialect(self) -> Dialect:
        """The abilities and limits of the server; no server but Milvus Lite lacks a clock."""
        if self.upstream.has_clock is None:
            self.now()
        return MILVUS if self.upstream.has_clock else LITE


def forwarded(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """The client's metadata without the entries that gRPC sets itself."""
    return tuple((k, v) for k, v in metadata if k not in _OWN_METADATA and not k.startswith(("grpc-", ":")))


def database_of(metadata: Metadata) -> str:
    """The database in a call's metadata, "" for the default one."""
    return next((str(value) for key, value in metadata if key == "dbname"), "")


def status_of(response: Any) -> Any:
    """The status of a response, which may be a Status itself."""
    return response if isinstance(response, common_pb2.Status) else getattr(response, "status", None)


def check(response: Any) -> None:
    """Raise `MilvusError` if the status of a response is an error."""
    status = status_of(response)
    if status is not None and (status.code or status.error_code):
        raise MilvusError(status)


def pairs(values: Iterable[tuple[str, Any]]) -> Sequence[Any]:
    """Key-value pairs of the protocol, with values as text."""
    return [common_pb2.KeyValuePair(key=key, value=str(value)) for key, value in values]


def changed(request: Any, **fields: Any) -> Any:
    """A copy of a request with other fields; unknown parts stay in it.

    Args:
        request: The request.
        fields: New values of its fields; None clears one, a sequence replaces the values of a repeated one.
    """
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in fields.items():
        copy.ClearField(name)
        if isinstance(value, str):
            setattr(copy, name, value)
        elif value is not None:
            getattr(copy, name).extend(value)
    return copy


def newer_parts(message: Message) -> list[str]:
    """The unknown fields of a message, in words for an error."""
    return [f"field {part.field_number}, which is newer than this gateway" for part in UnknownFieldSet(message)]


def refill(repeated: Any, values: Iterable[Any]) -> None:
    """Replace the contents of a repeated field; new values may be old ones."""
    kept = list(values)
    del repeated[:]
    repeated.extend(kept)
