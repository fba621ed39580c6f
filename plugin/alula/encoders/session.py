"""Sessions of onnxruntime that share one bounded memory and end at a deadline."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

MAX_BYTES = 8 << 30
MIN_BYTES = 1 << 30
RUN_SECONDS = 600.0  # of one batch
POLL_SECONDS = 0.25
STUCK_SECONDS = 30.0  # that one operator may take after its deadline

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class RunTimeoutError(Exception):
    """A run did not end before its deadline."""


class Session:
    """A graph to run, with bounds.

    The memory of all sessions of a process together is bounded: what lies beyond is an error of the run that asks
    for it. A run that passes its deadline ends after its current operator.

    Args:
        model: The serialised model.
        threads: Threads for one call; 0 lets onnxruntime choose.
        seconds: Longest time of a run.

    Raises:
        Exception: Of any class, if onnxruntime rejects the model.
    """

    def __init__(self, model: bytes, *, threads: int = 0, seconds: float = RUN_SECONDS) -> None:
        _bound_memory()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # its errors become sentences, and none goes to the terminal
        # after a run its threads would keep a core busy for some time, which the server on this machine may need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        # outside the arena, which keeps what it has: weights are given back with the session
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        self._seconds = seconds
        # constants are computed in each run, within its bounds: folded, they would be computed here without bounds
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )

    def run(self, outputs: tuple[str, ...], feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        """Compute outputs.

        Raises:
            RunTimeoutError: If the run takes too long.
            Exception: Of any class, if onnxruntime fails.
        """
        options = onnxruntime.RunOptions()
        run = _Run(options, time.monotonic() + self._seconds)
        with _WATCH.watching(run):
            try:
                return list(self._session.run(list(outputs), dict(feed), options))
            except Exception:
                if run.late():
                    raise RunTimeoutError(f"a batch took more than {self._seconds:g} s") from None
                raise


@cache
def _bound_memory() -> None:
    """Bound the memory of all sessions of this process."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # it extends by doubling: regions of the size that is asked for would stay, one for each size there ever was
    config = onnxruntime.OrtArenaCfg({"max_mem": memory_limit(), "arena_extend_strategy": 0})
    onnxruntime.create_and_register_allocator(info, config)


def memory_limit() -> int:
    """Bytes for all encoders of a process: half of the memory, at most 8 GiB."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2 * MAX_BYTES
    for path in _CGROUP_LIMITS:  # of a container
        try:
            memory = min(memory, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return max(MIN_BYTES, min(MAX_BYTES, memory // 2))


def stuck_runs() -> int:
    """The number of runs that did not end at their deadline, within one operator."""
    return _WATCH.stuck()


@dataclass(eq=False)
class _Run:
    """One run, and when it must end."""

    options: Any
    deadline: float

    def late(self) -> bool:
        """True if its deadline has passed."""
        return time.monotonic() >= self.deadline


class _Watch:
    """A thread that ends late runs."""

    def __init__(self) -> None:
        self._runs: set[_Run] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, run: _Run) -> Iterator[None]:
        """Watch a run while the block runs."""
        with self._changed:
            if not self._runs:
                self._changed.notify()
            self._runs.add(run)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._end_late_runs, name="alula-deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._runs.discard(run)

    def stuck(self) -> int:
        """The number of runs that go on long after their deadline."""
        with self._changed:
            return sum(time.monotonic() > run.deadline + STUCK_SECONDS for run in self._runs)

    def _end_late_runs(self) -> None:
        while True:
            with self._changed:
                for run in self._runs:
                    if run.late():
                        run.options.terminate = True
                self._changed.wait(POLL_SECONDS if self._runs else None)


_WATCH = _Watch()
