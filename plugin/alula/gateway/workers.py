"""Threads for rewritten calls, with a bounded queue that clients share."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from alula.errors import AlulaError
from alula.gateway.ops import metrics

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Work:
    """A call that waits for a thread."""

    future: Future[Any]
    function: Callable[[], Any]
    heavy: bool


class OverloadedError(AlulaError):
    """The queue of calls is full."""


class Workers:
    """A bounded thread pool that takes the calls of clients in turn.

    One client has at most three quarters of the threads and of the queue, so that others find room. Its heavy calls
    have a sixteenth of the threads: several at once would keep Python and Milvus from everyone's light ones.

    Args:
        threads: Number of threads.
        queue: Number of calls that may wait for a thread.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="alula")
        self._threads, self._share, self._heavy_share = threads, share(threads), max(1, threads // 16)
        self._capacity, self._queue_share = threads + queue, share(queue)
        self._waiting: OrderedDict[Hashable, deque[_Work]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()
        self._heavy: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    async def run(self, client: Hashable, function: Callable[[], T], *, heavy: bool = False) -> T:
        """Run a function in a thread; cancelling it while it waits frees its slot.

        Args:
            client: The client whose share it takes.
            function: The function.
            heavy: True if it may take long.

        Raises:
            OverloadedError: If the queue or the client's share of it is full.
        """
        work = _Work(Future(), function, heavy)
        with self._lock:
            self._forget_cancelled()
            waiting = self._waiting.setdefault(client, deque())
            total = self._running.total() + sum(map(len, self._waiting.values()))
            has_thread = self._running.total() < self._threads and self._may_start(client, work)
            if total >= self._capacity or (not has_thread and len(waiting) >= self._queue_share):
                if not waiting:
                    del self._waiting[client]
                raise OverloadedError("The gateway is overloaded; try again, or run more gateways.")
            waiting.append(work)
            metrics.waiting.inc()
            self._start_next()
        result: T = await asyncio.wrap_future(work.future)
        return result

    def close(self) -> None:
        """Stop the threads after their current calls."""
        with self._lock:
            for waiting in self._waiting.values():
                for work in waiting:
                    work.future.cancel()
            self._forget_cancelled()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _may_start(self, client: Hashable, work: _Work) -> bool:
        """True if the client's share of threads allows it."""
        return self._running[client] < self._share and not (work.heavy and self._heavy[client] >= self._heavy_share)

    def _start_next(self) -> None:
        """Start waiting calls, of one client after another, while there are threads."""
        while self._running.total() < self._threads:
            each = ((client, work) for client, waiting in self._waiting.items() for work in waiting)
            client, work = next((one for one in each if self._may_start(*one)), (None, None))
            if work is None:
                return
            waiting = self._waiting.pop(client)
            waiting.remove(work)
            if waiting:
                self._waiting[client] = waiting  # at the end, behind the other clients
            metrics.waiting.dec()
            if work.future.set_running_or_notify_cancel():
                self._running[client] += 1
                self._heavy[client] += work.heavy
                self._pool.submit(self._work, client, work)

    def _work(self, client: Hashable, work: _Work) -> None:
        try:
            with metrics.running.track_inprogress():
                result = work.function()
        except BaseException as error:
            self._ended(client, work)
            work.future.set_exception(error)
        else:
            self._ended(client, work)
            work.future.set_result(result)

    def _ended(self, client: Hashable, work: _Work) -> None:
        # not when the client disconnects: the thread is busy until the work is done
        with self._lock:
            self._running[client] -= 1
            self._heavy[client] -= work.heavy
            if not self._running[client]:
                del self._running[client], self._heavy[client]
            self._forget_cancelled()
            self._start_next()

    def _forget_cancelled(self) -> None:
        for client, waiting in list(self._waiting.items()):
            kept = deque(one for one in waiting if not one.future.cancelled())
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
