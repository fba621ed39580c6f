"""Find duplicate keys and bad rows before the first row is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from alula.errors import DataError
from alula.ingest.duplicates import duplicate_rows
from alula.ingest.journal import Journal
from alula.ingest.monitor import LoadMonitor, Status, StatusCallback
from alula.ingest.target import Target
from alula.milvus.retrying import RateLimiter
from alula.sources import Source


@dataclass
class Preflight:
    """Checks all rows of a source, and reports its progress."""

    target: Target
    source: Source
    monitor: LoadMonitor

    def duplicates(self, journal: Journal) -> None:
        """Record the rows whose key an earlier row has.

        One upsert with two rows of a key keeps either of them.
        """
        if journal.duplicates is not None:
            return
        source, status, key = self.source, self.monitor.status, self.target.primary_key.name
        if source.unique or self.target.auto_ids(source):
            journal.duplicates = []
            return
        most = self.monitor.max_errors
        self.monitor.enter("checking")
        found = duplicate_rows(self._keys(), journal.folder, most=most, progress=self._count)
        if status.total is None:
            status.total = status.read
        status.read = 0
        if len(found) > most:
            raise DataError(
                f"Row {found[0]} of {source.name} has the {key} of an earlier row; they must be unique."
                if not most
                else f"More than {most:,} rows of {source.name} have the {key} of an earlier row, the first is row "
                f"{found[0]}. Raise max_errors=... to leave them out."
            )
        journal.duplicates = found

    def _keys(self) -> Iterator[pa.Array]:
        """The keys as written, null if invalid: "01" and "1" are one INT64."""
        key = self.target.primary_key
        for column in self.source.keys(key.name):
            values, bad = key.convert(column)
            mask = pa.array([i in bad for i in range(len(column))]) if bad else None
            keys = pa.array(values)
            yield keys if mask is None else pc.if_else(mask, None, keys)

    def _count(self, rows: int) -> None:
        self.monitor.set(read=rows)

    def rows(self, size: int) -> None:
        """Raise a `DataError` for the first row that cannot be loaded."""
        status, source = self.monitor.status, self.source
        self.monitor.enter("checking")
        for batch in source.batches(size):
            checked = self.target.check(batch)
            if checked.bad:
                first = min(checked.bad)
                raise DataError(f"Row {batch.start + first} of {source.name} cannot be loaded: {checked.bad[first]}.")
            self.monitor.add(read=len(batch))
        status.total, status.read = status.read, 0


@dataclass(frozen=True)
class DryRun:
    """The expected result of a load.

    Args:
        rows: Rows of the source.
        bad: Rows among them that cannot be loaded.
        reasons: The first of these: (row, reason).
        ignored: Columns of the source without a field in the collection.
    """

    rows: int
    bad: int
    reasons: tuple[tuple[int, str], ...]
    ignored: tuple[str, ...]


def dry_run(target: Target, source: Source, *, show: int = 10, progress: StatusCallback | None = None) -> DryRun:
    """Read and check every row as `load` would, and write nothing.

    Args:
        target: The collection.
        source: The rows.
        show: Number of reasons to keep.
        progress: Called with the status whenever it changes.

    Raises:
        UsageError, DataError: As `load`.
    """
    target.check_source(source)
    status = Status("checking", total=source.rows)
    limiter = RateLimiter(1, 0)
    monitor = LoadMonitor(source.name, status, progress or (lambda _: None), limiter, max_errors=sys.maxsize)
    journal = Journal()
    Preflight(target, source, monitor).duplicates(journal)
    reasons: list[tuple[int, str]] = []
    for batch in source.batches(target.batch_rows):
        checked = target.check(batch, journal.duplicates or ())
        reasons += [(batch.start + i, reason) for i, reason in sorted(checked.bad.items())][: show - len(reasons)]
        monitor.add(read=len(batch), bad=len(checked.bad))
    return DryRun(status.read, status.bad, tuple(reasons), target.ignored(source))
