"""Waits for what a test expects: they poll, and know a process that hangs from one that is slow."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

PATIENCE = 600.0  # seconds: for a machine that is busy with other work
POLL = 0.02
ROUND = 1.0  # seconds between two looks at the CPU time of processes
IDLE_ROUNDS = 30  # rounds in a row without work after which a process hangs
IDLE_SHARE = 0.03  # of a CPU: what a process takes that waits, its health checks included


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when the condition is true.

    Raises:
        AssertionError: It was not, for as long as the busiest machine could need.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"Waited {PATIENCE:.0f} s in vain for {what}."
        time.sleep(POLL)


def finished(future: Any, what: str, *pids: int | None) -> None:
    """Wait for a future of gRPC or of a thread, for as long as one of these processes works.

    Raises:
        AssertionError: The future is pending, and none of the processes has used its CPU time for `IDLE_ROUNDS`.
    """
    idle, before = 0, _cpu_seconds(pids)
    while not _is_done(future, ROUND):
        now = _cpu_seconds(pids)
        idle = idle + 1 if 0 <= now - before < IDLE_SHARE * ROUND else 0
        before = now
        assert idle < IDLE_ROUNDS, f"{what} hangs: nothing has worked on it for {idle} s."


def within(function: Callable[[], Any], what: str, *pids: int | None) -> Any:
    """The result of a call that blocks, under the same watch."""
    with ThreadPoolExecutor(1) as pool:
        future: Future[Any] = pool.submit(function)
        finished(future, what, *pids)
        return future.result()


def _is_done(future: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not future.done() and time.monotonic() < end:
        time.sleep(0.001)
    return bool(future.done())


def _cpu_seconds(pids: tuple[int | None, ...]) -> float:
    """The CPU time that these processes have used; those that have ended count 0.

    Where there is no /proc, the clock counts as work: pytest's own limit then ends the test.
    """
    if not sys.platform.startswith("linux"):
        return time.monotonic()
    used = 0
    for pid in filter(None, pids):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            used += int(user) + int(system)
    return used / os.sysconf("SC_CLK_TCK")
