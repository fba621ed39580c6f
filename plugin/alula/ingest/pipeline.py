"""Read, check, encode and write batches side by side, and keep the journal of what Milvus has acknowledged."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from alula.errors import DataError
from alula.ingest.delivery import Delivery
from alula.ingest.journal import Acknowledgement, DeadLetter, Journal
from alula.ingest.target import Checked, Target, pack
from alula.milvus.retrying import RateLimiter, StoppedError
from alula.sources import Batch, Source

SAMPLE_PER_BATCH = 8
_MIX = 0x9E3779B97F4A7C15  # spreads row numbers, so that those of the least product are a sample


@dataclass
class Status:
    """How far a load is; what a progress bar shows.

    Args:
        stage: What is being done: ``checking``, ``loading``, ``importing`` and ``counting`` (bulk import),
            ``verifying``, or ``reading`` (a replica).
        total: Rows in all, None when that is not known.
        read: Rows read so far, those of earlier runs counted.
        encoded: Rows encoded in this run.
        written: Rows that Milvus has acknowledged in this run.
        bad: Rows that cannot be loaded.
        bytes: Bytes of encoded rows that were written in this run.
        imported: Rows that a bulk import has brought into the collection, those of earlier runs counted.
        slowed: Whether the server has made the load slower than it could be.
        trouble: What the server said to the last call that failed, until one succeeds.
    """

    stage: str = "loading"
    total: int | None = None
    read: int = 0
    encoded: int = 0
    written: int = 0
    bad: int = 0
    bytes: int = 0
    imported: int = 0
    slowed: bool = False
    trouble: str = ""


Progress = Callable[[Status], None]


class Pipeline:
    """Moves the batches of a source into a collection.

    Every batch is checked, encoded and written by one thread of a pool. So many batches encode at a time as there are
    cores, so many write as the pace allows, and no more are read than these threads have: that bounds the memory.

    Args:
        target: The collection.
        source: The rows.
        delivery: Writes them, and acknowledges them in the journal.
        journal: What is acknowledged.
        pace: The pace of the calls.
        size: Rows in a batch, the same as in the runs before.
        max_errors: The most rows that may be left out.
        progress: Told how far it is.
        status: What `progress` is told.
        cores: How many batches to encode at a time; `encoding_threads` by default.
    """

    def __init__(
        self,
        target: Target,
        source: Source,
        delivery: Delivery,
        journal: Journal,
        pace: RateLimiter,
        *,
        size: int,
        max_errors: int,
        progress: Progress,
        status: Status,
        cores: int | None = None,
    ) -> None:
        self._target = target
        self._source = source
        self._delivery = delivery
        self._journal = journal
        self._pace = pace
        self._size = size
        self._max_errors = max_errors
        self._progress = progress
        self.status = status
        cores = cores or encoding_threads(target)
        self._encoding = threading.Semaphore(cores)
        self._threads = cores + pace.most
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self.busy = {"reading": 0.0, "encoding": 0.0, "writing": 0.0}  # seconds, those of all threads added
        self.lanes = {"reading": 1, "encoding": cores, "writing": pace.most}  # how many can be busy at a time

    def run(self) -> None:
        """Move every batch that is not acknowledged yet.

        Raises:
            DataError: If the source is damaged, or more rows than `max_errors` cannot be loaded.
            ServerError: If Milvus refuses rows for good.
            JournalError: If the journal cannot be written.
            KeyboardInterrupt: If the user stopped it; what was in flight is written and acknowledged.
        """
        journal = self._journal
        journal.begin_run()
        duplicates = journal.duplicates or []
        places = threading.Semaphore(self._threads)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="alula-load") as pool:
            try:
                for number, batch in enumerate(self._batches()):
                    if journal.is_acknowledged(batch.span):
                        journal.acknowledge(number, Acknowledgement(batch.span, len(batch)))
                        continue
                    places.acquire()
                    if self._failure is not None:
                        break
                    journal.sending(batch.span)
                    self._report(read=len(batch))
                    pool.submit(self._move, number, batch, duplicates).add_done_callback(lambda _: places.release())
            except BaseException:
                self._stop()
                raise
        self.busy["writing"] = self._pace.busy
        if self._failure is not None:
            raise self._failure

    def _batches(self) -> Iterator[Batch]:
        journal = self._journal
        batches = self._source.batches(self._size, after=journal.done, start=journal.done_rows)
        while True:
            with self._busy_with("reading"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _move(self, number: int, batch: Batch, duplicates: list[int]) -> None:
        try:
            if self._stopping.is_set():
                return
            checked = self._target.check(batch, duplicates)
            self._count_bad(batch.start, len(batch), [(batch.start + i, why) for i, why in sorted(checked.bad.items())])
            with self._encoding, self._busy_with("encoding"):
                if self._stopping.is_set():
                    return
                columns = self._target.encode(checked, encoded=lambda rows: self._report(encoded=rows))
            what = Acknowledgement(batch.span, len(batch), dead_letters(checked), self._sample(checked))
            size = self._delivery.deliver(number, columns, len(checked), what)
            self._report(written=len(checked), bytes=size)
        except BaseException as error:
            with self._lock:
                if self._failure is None and not isinstance(error, StoppedError):
                    self._failure = error
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._pace.stop()
        self._delivery.stop()

    def _count_bad(self, start: int, rows: int, bad: Sequence[tuple[int, str]]) -> None:
        """Stop when too many rows cannot be loaded.

        Args:
            start: Number of the first of the rows.
            rows: How many there are.
            bad: Those that cannot be loaded, by number: (number, reason).
        """
        if not bad:
            return
        self._report(bad=len(bad))
        reason = f"Row {bad[0][0]}: {bad[0][1]}"
        if len(bad) == rows and start == 0:
            raise DataError(f"None of the first {rows:,} rows of {self._source.name} can be loaded. {reason}.")
        if self.status.bad > self._max_errors:
            raise DataError(
                f"{self.status.bad:,} rows of {self._source.name} cannot be loaded, more than --max-errors "
                f"{self._max_errors:,}. {reason}."
            )

    def _sample(self, checked: Checked) -> list[tuple[int, bytes]]:
        ranked = sorted(((checked.batch.start + p) * _MIX % 2**63, i) for i, p in enumerate(checked.positions))
        return [(priority, self._target.remember(checked, i)) for priority, i in ranked[:SAMPLE_PER_BATCH]]

    @contextmanager
    def _busy_with(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.busy[stage] += time.perf_counter() - began

    def shares(self, seconds: float) -> dict[str, float]:
        """How much of the time each stage worked on as much at once as it can: the busiest is the bottleneck.

        Args:
            seconds: How long `run` took.
        """
        return {stage: busy / seconds / self.lanes[stage] for stage, busy in self.busy.items()}

    def _report(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self.status, name, getattr(self.status, name) + value)
            self.status.slowed, self.status.trouble = self._pace.slowed, self._pace.trouble
            self._progress(self.status)


def encoding_threads(target: Target) -> int:
    """How many batches to encode at a time: as many as there are cores, unless one call uses all of them."""
    return available_cores() if target.lowering.encoder.threads == 1 else 1


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def dead_letters(checked: Checked) -> list[DeadLetter]:
    """The rows of a batch that cannot be loaded."""
    batch = checked.batch
    return [DeadLetter(batch.start + i, reason, pack(batch.row(i))) for i, reason in sorted(checked.bad.items())]
