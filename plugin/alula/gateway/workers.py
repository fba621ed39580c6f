"""Threads for rewritten calls, with a bounded queue."""

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
    """The queue of calls is full."""


class Workers:
    """A bounded thread pool.

    Args:
        threads: Number of threads.
        queue: Number of calls that may wait for a thread.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="alula")
        self._capacity = threads + queue
        self._taken = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a function in a thread; cancelling it while it waits frees its slot.

        Raises:
            OverloadedError: If the queue is full.
        """
        with self._lock:
            if self._taken >= self._capacity:
                raise OverloadedError("The gateway is overloaded; try again, or run more gateways.")
            self._taken += 1
        metrics.waiting.inc()
        future = self._pool.submit(_measured, work, arguments)
        # not when the client disconnects: the thread is busy until the work is done
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Stop the threads after their current calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: Future[Any]) -> None:
        if future.cancelled():
            metrics.waiting.dec()
        with self._lock:
            self._taken -= 1


def _measured(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    metrics.waiting.dec()
    with metrics.running.track_inprogress():
        return work(*arguments)
