"""Logins that Milvus accepted: checked before a call's message is received."""

from __future__ import annotations

import hashlib
import time

import grpc

from alula.gateway.upstream import PREFIX, Metadata, Upstream

ACCEPTED_SECONDS = 10.0  # Milvus checks each of its own calls again, so a withdrawn login only costs some encoding
CHECK_SECONDS = 10.0
MAX_ACCEPTED = 4096
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def login_of(metadata: Metadata) -> bytes:
    """A hash of the login in a call's metadata; equal for calls without one."""
    given = next((value for key, value in metadata if key == "authorization"), "")
    return hashlib.sha256(given if isinstance(given, bytes) else given.encode()).digest()


class Logins:
    """The logins that Milvus accepted lately.

    Args:
        upstream: The connections to Milvus.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._accepted: dict[bytes, float] = {}

    def accepted(self, metadata: Metadata) -> bool:
        """True if Milvus accepted the login of a call a moment ago."""
        return self._accepted.get(login_of(metadata), 0.0) > time.monotonic()

    async def refusal(self, metadata: Metadata) -> grpc.aio.AioRpcError | None:
        """The error with which Milvus refuses a login; None without one.

        Args:
            metadata: The metadata of the call that go on to Milvus.
        """
        try:
            # every user may ask for the version, and no call without a login
            await self._upstream.passing(f"{PREFIX}GetVersion")(b"", metadata=metadata, timeout=CHECK_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSALS:
                return error
            if error.code() != grpc.StatusCode.UNIMPLEMENTED:  # Milvus Lite 2.5 has no such method, and no logins
                return None
        if len(self._accepted) >= MAX_ACCEPTED:
            self._accepted.clear()
        self._accepted[login_of(metadata)] = time.monotonic() + ACCEPTED_SECONDS
        return None
