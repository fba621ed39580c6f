"""Counting and logging the calls of clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc

from alula.gateway.ops import logs, metrics
from alula.gateway.ops.metrics import Route
from alula.gateway.status import Outcome, outcome_of, status_of
from alula.gateway.upstream import SERVICE
from alula.tracing import server_span

_REQUEST_IDS = ("client-request-id", "client_request_id")  # pymilvus and Node, Go


@dataclass
class Call:
    """One call of a client.

    Attributes:
        method: Name of the method.
        context: Its gRPC context.
        collection: Returns the collection that it names; called only when the call is logged.
        route: ``passed`` if it is forwarded unchanged, ``rewritten`` otherwise.
        answer: The serialised response.
    """

    method: str
    context: Any
    collection: Callable[[], str] = str
    route: Route = "passed"
    answer: bytes = b""

    @property
    def request_id(self) -> str:
        """The client's identifier of the call, "" without one."""
        found = dict(self.context.invocation_metadata())
        return next((str(found[name]) for name in _REQUEST_IDS if found.get(name)), "")


class CallLog:
    """The calls of one gateway.

    Args:
        slow_seconds: Duration from which a call is logged.
    """

    def __init__(self, slow_seconds: float) -> None:
        self._slow_seconds = slow_seconds

    @asynccontextmanager
    async def record(self, call: Call) -> Any:
        """Count, time and trace the call inside; log a failed, rejected or slow one."""
        with server_span(SERVICE.full_name, logs.printable(call.method), call.context.invocation_metadata) as end:
            async with self._recorded(call, end):
                yield

    @asynccontextmanager
    async def _recorded(self, call: Call, end: Callable[..., None]) -> Any:
        began = perf_counter()
        code, reason = "UNKNOWN", ""
        outcome: Outcome = "failed"
        try:
            yield
            status = status_of(call.method, call.answer)
            outcome = outcome_of(status)
            code, reason = (str(status.code or status.error_code), status.reason) if status else ("0", "")
        except asyncio.CancelledError:
            # the client has disconnected, or its deadline has passed
            left = call.context.time_remaining()
            code = "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"
            raise
        except grpc.aio.AbortError:
            code, reason = call.context.code().name, call.context.details()
            # newer SDKs routinely call methods that older servers lack
            outcome = "refused" if code == grpc.StatusCode.UNIMPLEMENTED.name else "failed"
            raise
        except Exception as error:
            logs.unexpected(call.method, error)
            reason = f"The gateway failed unexpectedly ({type(error).__name__}); see its log."
            code = grpc.StatusCode.INTERNAL.name
            await call.context.abort(grpc.StatusCode.INTERNAL, reason)
        finally:
            seconds = perf_counter() - began
            metrics.answered(call.method, call.route, outcome, seconds)
            end(failed=outcome == "failed", outcome=outcome, route=call.route, code=code)
            if outcome != "ok" or seconds > self._slow_seconds:
                named = {"collection": call.collection(), "request_id": call.request_id}
                logs.request(call.method, outcome, seconds, code=code, reason=reason, **named)
