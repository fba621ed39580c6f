"""Threads for calls that are encoded, searched and re-ranked here, and a limit on how many may wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from alula.errors import AlulaError
from alula.gateway.ops import metrics

T = TypeVar("T")


class OverloadedError(AlulaError):
    """More calls wait than may."""


class Workers:
    """Threads.

    Args:
        threads: How many.
        queue: How many calls may wait for one.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="alula")
        self._most = threads + queue
        self._taken = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something in a thread; who is cancelled while waiting for one frees the place.

        Raises:
            OverloadedError: If too many calls wait already.
        """
        with self._lock:
            if self._taken >= self._most:
                raise OverloadedError(
                    "The gateway has more calls under way than it may; try again, or run more gateways."
                )
            self._taken += 1
        metrics.waiting.inc()
        future = self._pool.submit(_carry_out, work, arguments)
        # not when the client goes away: the thread is taken until the work is done
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the threads when they have done what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: Future[Any]) -> None:
        if future.cancelled():
            metrics.waiting.dec()
        with self._lock:
            self._taken -= 1


def _carry_out(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    metrics.waiting.dec()
    with metrics.running.track_inprogress():
        return work(*arguments)
