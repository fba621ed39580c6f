"""Progress of a load: row counts, busy seconds, and rejected rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from alula.errors import DataError
from alula.milvus.retrying import RateLimiter


@dataclass
class Status:
    """Progress of a load, as a progress bar shows it.

    Args:
        stage: The current stage: ``checking``, ``loading``, ``importing`` and ``counting`` (bulk import),
            ``verifying``, or ``reading`` (a replica).
        total: All rows of the source; None when unknown.
        read: Rows read so far, including earlier runs.
        encoded: Rows encoded in this run.
        written: Rows that Milvus has acknowledged in this run.
        bad: Rejected rows.
        bytes: Bytes of encoded rows written in this run.
        imported: Rows that a bulk import has brought into the collection, including earlier runs.
        slowed: True while the server limits the number of concurrent calls.
        trouble: The server's words for the last failed call, until a call succeeds.
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


StatusCallback = Callable[[Status], None]


class LoadMonitor:
    """Counts the rows and seconds of a load; used from several threads.

    Args:
        source: Name of the source, for errors.
        status: The counters.
        progress: Called with the counters whenever they change.
        limiter: Limits the calls to Milvus.
        max_errors: The most rows that may be rejected.

    Attributes:
        busy: Seconds spent in each stage, summed over all threads.
        lanes: Threads that can work on each stage at a time.
    """

    def __init__(
        self, source: str, status: Status, progress: StatusCallback, limiter: RateLimiter, *, max_errors: int
    ) -> None:
        self.status = status
        self.max_errors = max_errors
        self.busy = {"reading": 0.0, "encoding": 0.0, "writing": 0.0}
        self.lanes = {"reading": 1, "encoding": 1, "writing": limiter.limit}
        self._source = source
        self._progress = progress
        self._limiter = limiter
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to counters of the status by name, and report it."""
        with self._lock:
            for name, value in counts.items():
                setattr(self.status, name, getattr(self.status, name) + value)
            self._report()

    def enter(self, stage: str) -> None:
        """Set the current stage, and report it."""
        with self._lock:
            self.status.stage = stage
            self._report()

    def set(self, **counts: int) -> None:
        """Set counters of the status by name, and report it."""
        with self._lock:
            for name, value in counts.items():
                setattr(self.status, name, value)
            self._report()

    def _report(self) -> None:
        self.status.slowed, self.status.trouble = self._limiter.slowed, self._limiter.trouble
        self._progress(self.status)

    def reject(self, start: int, rows: int, bad: Sequence[tuple[int, str]]) -> None:
        """Count rejected rows.

        Args:
            start: Number of the first row of the batch.
            rows: Rows in the batch.
            bad: The rejected ones: (number, reason).

        Raises:
            DataError: If all rows of the first batch are rejected, or more than `max_errors` in all.
        """
        if not bad:
            return
        self.add(bad=len(bad))
        reason = f"Row {bad[0][0]}: {bad[0][1]}"
        if len(bad) == rows and start == 0:
            raise DataError(f"None of the first {rows:,} rows of {self._source} can be loaded. {reason}.")
        if self.status.bad > self.max_errors:
            raise DataError(
                f"{self.status.bad:,} rows of {self._source} cannot be loaded, more than "
                f"max_errors={self.max_errors}. {reason}."
            )

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Count the time of the block as busy seconds of a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.worked(stage, time.perf_counter() - began)

    def worked(self, stage: str, seconds: float) -> None:
        """Add busy seconds to a stage."""
        with self._lock:
            self.busy[stage] += seconds

    def shares(self, seconds: float) -> dict[str, float]:
        """Busy share of each stage, 1 if all of its threads were always busy.

        Args:
            seconds: Duration of the load.
        """
        return {stage: busy / seconds / self.lanes.get(stage, 1) for stage, busy in self.busy.items()}
