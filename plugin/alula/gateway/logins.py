"""Logins that Milvus accepted: checked before a call's message is received."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import grpc

from alula.gateway.upstream import PREFIX, RPCS, Metadata, Upstream, forwarded

ACCEPTED_SECONDS = 10.0  # Milvus checks each of its own calls again, so a withdrawn login only costs some encoding
CHECK_SECONDS = 10.0
MAX_ACCEPTED = 4096
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def login_of(metadata: Metadata) -> bytes:
    """A hash of the login in a call's metadata; equal for calls without one."""
    given = next((value for key, value in metadata if key == "authorization"), "")
    return hashlib.sha256(given if isinstance(given, bytes) else given.encode()).digest()


class Logins(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends calls whose login Milvus refuses, before their message is received.

    Args:
        upstream: The connections to Milvus.
        recorded: Counts and logs a call that is refused, by its method and context.
    """

    def __init__(self, upstream: Upstream, recorded: Any) -> None:
        self._upstream = upstream
        self._recorded = recorded
        self._accepted: dict[bytes, float] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Check the login of a call of Milvus's service."""
        path: str = handler_call_details.method
        if path.startswith(PREFIX) and path.removeprefix(PREFIX) in RPCS:
            refusal = await self._refusal(forwarded(handler_call_details.invocation_metadata))
            if refusal is not None:
                return self._refusing(path.removeprefix(PREFIX), refusal)
        return await continuation(handler_call_details)

    async def _refusal(self, metadata: Metadata) -> grpc.aio.AioRpcError | None:
        """The error with which Milvus refuses a login; None without one."""
        login = login_of(metadata)
        if self._accepted.get(login, 0.0) > time.monotonic():
            return None
        try:
            # every user may ask for the version, and no call without a login
            await self._upstream.passing(f"{PREFIX}GetVersion")(b"", metadata=metadata, timeout=CHECK_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error if error.code() in REFUSALS else None
        if len(self._accepted) >= MAX_ACCEPTED:
            self._accepted.clear()
        self._accepted[login] = time.monotonic() + ACCEPTED_SECONDS
        return None

    def _refusing(self, method: str, refusal: grpc.aio.AioRpcError) -> Any:
        async def refuse(_: Any, context: Any) -> None:
            async with self._recorded(method, context):
                await context.abort(refusal.code(), refusal.details() or "", tuple(refusal.trailing_metadata() or ()))

        return grpc.stream_stream_rpc_method_handler(refuse)
