"""Calls of clients as they are counted and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc

from alula.gateway.ops import logs, metrics
from alula.gateway.ops.metrics import Way
from alula.gateway.status import Outcome, outcome_of, status_of

_REQUEST_IDS = ("client-request-id", "client_request_id")  # pymilvus and Node, Go


@dataclass
class Call:
    """One call of a client.

    Attributes:
        method: Name of the method.
        context: gRPC's own.
        collection: Tells which collection it names; asked for when the call is logged.
        way: Whether it is passed on as it came, or rewritten.
        answer: What the client is given.
    """

    method: str
    context: Any
    collection: Callable[[], str] = str
    way: Way = "passed"
    answer: bytes = b""

    @property
    def request_id(self) -> str:
        """The client's own name for it."""
        found = dict(self.context.invocation_metadata())
        return next((str(found[name]) for name in _REQUEST_IDS if found.get(name)), "")


class CallLog:
    """The calls of one gateway.

    Args:
        slow_seconds: Calls that take longer are logged.
    """

    def __init__(self, slow_seconds: float) -> None:
        self._slow_seconds = slow_seconds

    @asynccontextmanager
    async def watch(self, call: Call) -> Any:
        """Count a call for as long as the block inside takes, and log it when it fails, is refused or is slow."""
        began = perf_counter()
        code, reason = "UNKNOWN", ""
        outcome: Outcome = "failed"
        try:
            yield
            status = status_of(call.method, call.answer)
            outcome = outcome_of(status)
            code, reason = (str(status.code or status.error_code), status.reason) if status else ("0", "")
        except asyncio.CancelledError:
            # the client has gone, or waits no longer
            left = call.context.time_remaining()
            code = "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"
            raise
        except grpc.aio.AbortError:
            code, reason = call.context.code().name, call.context.details()
            # newer SDKs ask older servers for what these do not have, as a matter of course
            outcome = "refused" if code == grpc.StatusCode.UNIMPLEMENTED.name else "failed"
            raise
        except Exception as error:
            logs.LOGGER.exception(f"{logs.printable(call.method)} failed unexpectedly")
            reason = f"The gateway failed unexpectedly ({type(error).__name__}); its log says where."
            code = grpc.StatusCode.INTERNAL.name
            await call.context.abort(grpc.StatusCode.INTERNAL, reason)
        finally:
            seconds = perf_counter() - began
            metrics.answered(call.method, call.way, outcome, seconds)
            if outcome != "ok" or seconds > self._slow_seconds:
                named = {"collection": call.collection(), "request_id": call.request_id}
                logs.request(call.method, outcome, seconds, code=code, reason=reason, **named)
