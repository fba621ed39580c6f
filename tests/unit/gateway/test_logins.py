"""Milvus is asked for each login once in a while, and not for each call."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from alula.gateway.logins import Logins

LOGIN = (("authorization", "cm9vdDpNaWx2dXM="),)


class Milvus:
    """Answers calls that pass with a status code, OK for none."""

    def __init__(self, code: grpc.StatusCode | None) -> None:
        self.code = code

    def passing(self, path):
        assert path.endswith("/GetVersion")

        async def call(request, **_):
            if self.code:
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(self.code, nothing, nothing, details="no")
            return request

        return call


@pytest.mark.parametrize(
    ("code", "refused", "accepted"),
    [
        (None, False, True),
        (grpc.StatusCode.UNIMPLEMENTED, False, True),  # Milvus Lite 2.5
        (grpc.StatusCode.UNAVAILABLE, False, False),
        (grpc.StatusCode.UNAUTHENTICATED, True, False),
        (grpc.StatusCode.PERMISSION_DENIED, True, False),
    ],
)
def test_answers_of_milvus(code, refused, accepted):
    logins = Logins(Milvus(code))
    assert not logins.accepted(LOGIN)
    refusal = asyncio.run(logins.refusal(LOGIN))
    assert (refusal is not None) == refused
    assert refusal is None or refusal.code() == code
    assert logins.accepted((("user-agent", "x"), *LOGIN)) == accepted
    assert not logins.accepted(())
