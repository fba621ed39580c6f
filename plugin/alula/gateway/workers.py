"""Threads for rewritten calls, with a bounded queue that clients share."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from alula.errors import AlulaError
from alula.gateway.ops import metrics

T = TypeVar("T")
Work = tuple["Future[Any]", Callable[[], Any]]


class OverloadedError(AlulaError):
    """The queue of calls is full."""


class Workers:
    """A bounded thread pool that takes the calls of clients in turn.

    One client has at most three quarters of the threads and of the queue, so that others find room.

    Args:
        threads: Number of threads.
        queue: Number of calls that may wait for a thread.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="alula")
        self._threads, self._share = threads, share(threads)
        self._capacity, self._queue_share = threads + queue, share(queue)
        self._waiting: OrderedDict[Hashable, deque[Work]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    async def run(self, client: Hashable, work: Callable[[], T]) -> T:
        """Run a function in a thread; cancelling it while it waits frees its slot.

        Args:
            client: The client whose share it takes.
            work: The function.

        Raises:
            OverloadedError: If the queue or the client's share of it is full.
        """
        future: Future[T] = Future()
        with self._lock:
            self._forget_cancelled()
            waiting = self._waiting.setdefault(client, deque())
            total = self._running.total() + sum(map(len, self._waiting.values()))
            has_thread = self._running.total() < self._threads and self._running[client] < self._share
            if total >= self._capacity or (not has_thread and len(waiting) >= self._queue_share):
                if not waiting:
                    del self._waiting[client]
                raise OverloadedError("The gateway is overloaded; try again, or run more gateways.")
            waiting.append((future, work))
            metrics.waiting.inc()
            self._start_next()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Stop the threads after their current calls."""
        with self._lock:
            for waiting in self._waiting.values():
                for future, _ in waiting:
                    future.cancel()
            self._forget_cancelled()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_next(self) -> None:
        """Start waiting calls, of one client after another, while there are threads."""
        while self._running.total() < self._threads:
            ready = (client for client in self._waiting if self._running[client] < self._share)
            client = next(ready, None)
            if client is None:
                return
            waiting = self._waiting.pop(client)
            future, work = waiting.popleft()
            if waiting:
                self._waiting[client] = waiting  # at the end, behind the other clients
            metrics.waiting.dec()
            if future.set_running_or_notify_cancel():
                self._running[client] += 1
                self._pool.submit(self._work, client, future, work)

    def _work(self, client: Hashable, future: Future[T], work: Callable[[], T]) -> None:
        try:
            with metrics.running.track_inprogress():
                result = work()
        except BaseException as error:
            self._ended(client)
            future.set_exception(error)
        else:
            self._ended(client)
            future.set_result(result)

    def _ended(self, client: Hashable) -> None:
        # not when the client disconnects: the thread is busy until the work is done
        with self._lock:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
            self._forget_cancelled()
            self._start_next()

    def _forget_cancelled(self) -> None:
        for client, waiting in list(self._waiting.items()):
            kept = deque(one for one in waiting if not one[0].cancelled())
            metrics.waiting.dec(len(waiting) - len(kept))
            if kept:
                self._waiting[client] = kept
            else:
                del self._waiting[client]


def share(places: int) -> int:
    """Three quarters of some places, and at least one if there are any."""
    return places - max(1, places // 4) if places > 1 else places


class ByteBudget:
    """Bytes that requests may take at once; a client has three quarters of them.

    Args:
        total: The bytes.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken: Counter[Hashable] = Counter()

    def take(self, client: Hashable, count: int) -> bool:
        """Take bytes for a client; False if there are too few."""
        if self._taken.total() + count > self._total or self._taken[client] + count > share(self._total):
            return False
        self._taken[client] += count
        return True

    def give_back(self, client: Hashable, count: int) -> None:
        """Return taken bytes."""
        self._taken[client] -= count
        if not self._taken[client]:
            del self._taken[client]
