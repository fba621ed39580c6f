"""Read, check, encode and write batches concurrently."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from alula.ingest.delivery import Delivery
from alula.ingest.journal import Acknowledgement, DeadLetter, Journal
from alula.ingest.monitor import LoadMonitor
from alula.ingest.target import CheckedRows, Target, pack
from alula.milvus.retrying import RateLimiter, StoppedError
from alula.sources import Batch, Source

Via = Literal["auto", "insert", "import"]
SAMPLE_PER_BATCH = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)  # spreads row numbers, so that those of the least product are a sample
_MOST = np.uint64(2**63 - 1)  # the journal's integers are signed


@dataclass(frozen=True)
class LoadTask:
    """A planned load, ready to run.

    Args:
        target: The collection.
        source: The rows.
        delivery: Writes batches, and acknowledges them in the journal.
        journal: The record of acknowledged batches.
        limiter: Limits the calls to Milvus.
        monitor: Counts rows and seconds.
        batch_rows: Rows in a batch, the same in all runs of a load.
        partition: Partition to write to; the default one if None.
        replace: True if rows may be in the collection already.
    """

    target: Target
    source: Source
    delivery: Delivery
    journal: Journal
    limiter: RateLimiter
    monitor: LoadMonitor
    batch_rows: int
    partition: str | None = None
    replace: bool = True


class Runner(Protocol):
    """Moves all rows of a `LoadTask` that are not acknowledged yet."""

    def run(self) -> None:
        """Move the rows; returns when all of them are acknowledged."""
        ...


class Engine(Protocol):
    """Chooses the machines that read, encode and write a load."""

    @property
    def name(self) -> str:
        """The name that journals record: each engine cuts a source in other places."""
        ...

    def check(self, target: Target, source: Source, via: Via) -> Via:
        """The way rows are written.

        Raises:
            UsageError: If the engine cannot load this source into this collection, or not this way.
        """
        ...

    def pipeline(self, task: LoadTask) -> Runner:
        """The runner of a task."""
        ...


class LocalEngine:
    """Loads with the threads of this process."""

    name = "local"

    def check(self, target: Target, source: Source, via: Via) -> Via:
        """See `Engine`; every way is possible."""
        del target, source
        return via

    def pipeline(self, task: LoadTask) -> Runner:
        """See `Engine`."""
        return Pipeline(task)


class Pipeline:
    """Moves the batches of a source into a collection.

    Each thread of a pool checks, encodes and writes one batch at a time. At most `cores` batches encode at a time and
    `limiter.allowed` calls write, and one batch per thread is in memory.

    Args:
        task: The load.
        cores: Batches to encode at a time; `encoding_threads` by default.
    """

    def __init__(self, task: LoadTask, *, cores: int | None = None) -> None:
        self._task = task
        cores = cores or encoding_threads(task.target)
        self._encoding = threading.Semaphore(cores)
        self._threads = cores + task.limiter.limit
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        task.monitor.lanes["encoding"] = cores

    def run(self) -> None:
        """Move every batch that is not acknowledged yet.

        Raises:
            DataError: If the source is damaged, or more than `max_errors` rows are rejected.
            ServerError: If Milvus refuses rows for good.
            JournalError: If the journal cannot be written.
            KeyboardInterrupt: If the user stopped it; batches in flight are written and acknowledged.
        """
        journal, monitor = self._task.journal, self._task.monitor
        journal.begin_run()
        duplicates = journal.duplicates or []
        free = threading.Semaphore(self._threads)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="alula-load") as pool:
            try:
                for number, batch in enumerate(self._batches()):
                    if journal.is_acknowledged(batch.span):
                        journal.acknowledge(number, Acknowledgement(batch.span, len(batch)))
                        continue
                    free.acquire()
                    if self._failure is not None:
                        break
                    journal.sending(batch.span)
                    monitor.add(read=len(batch))
                    pool.submit(self._move, number, batch, duplicates).add_done_callback(lambda _: free.release())
            except BaseException:
                self._stop()
                raise
        monitor.busy["writing"] = self._task.limiter.busy
        if self._failure is not None:
            raise self._failure

    def _batches(self) -> Iterator[Batch]:
        journal = self._task.journal
        batches = self._task.source.batches(self._task.batch_rows, after=journal.done, start=journal.done_rows)
        while True:
            with self._task.monitor.working("reading"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _move(self, number: int, batch: Batch, duplicates: list[int]) -> None:
        monitor, target = self._task.monitor, self._task.target
        try:
            if self._stopping.is_set():
                return
            checked = target.check(batch, duplicates)
            monitor.reject(batch.start, len(batch), [(batch.start + i, why) for i, why in sorted(checked.bad.items())])
            with self._encoding, monitor.working("encoding"):
                if self._stopping.is_set():
                    return
                columns = target.encode(checked, encoded=lambda rows: monitor.add(encoded=rows))
            done = Acknowledgement(batch.span, len(batch), dead_letters(checked), self._sample(checked))
            size = self._task.delivery.deliver(number, columns, len(checked), done)
            monitor.add(written=len(checked), bytes=size)
        except BaseException as error:
            with self._lock:
                if self._failure is None and not isinstance(error, StoppedError):
                    self._failure = error
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._task.limiter.stop()
        self._task.delivery.stop()

    def _sample(self, checked: CheckedRows) -> list[tuple[int, bytes]]:
        numbers = checked.batch.start + np.asarray(checked.positions, np.uint64)
        priorities = numbers * _MIX & _MOST
        least = np.argsort(priorities)[:SAMPLE_PER_BATCH]
        return [(int(priorities[i]), self._task.target.remember(checked, i)) for i in least.tolist()]


def encoding_threads(target: Target) -> int:
    """Batches to encode at a time: one per core, or one if a call uses all."""
    return available_cores() if target.lowering.encoder.threads == 1 else 1


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def dead_letters(checked: CheckedRows) -> list[DeadLetter]:
    """The rejected rows of a batch."""
    batch = checked.batch
    return [DeadLetter(batch.start + i, reason, pack(batch.row(i))) for i, reason in sorted(checked.bad.items())]
