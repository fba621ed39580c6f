"""Threads for calls that are encoded, searched and re-ranked here, and a limit on how many may wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from alula.errors import AlulaError

T = TypeVar("T")


class TooBusyError(AlulaError):
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

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something in a thread.

        Raises:
            TooBusyError: If too many calls wait already.
        """
        if self._taken >= self._most:
            raise TooBusyError("The gateway has more calls under way than it may; try again, or run more gateways.")
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """End the threads when they have done what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)
