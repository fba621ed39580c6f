"""Look at all rows before the first is written: for keys that are there twice, and for rows that cannot be loaded."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from alula.errors import DataError
from alula.ingest.duplicates import duplicate_rows
from alula.ingest.journal import Journal
from alula.ingest.pipeline import Progress, Status
from alula.ingest.target import Target
from alula.sources import Source


@dataclass
class Preflight:
    """Looks at all rows of a source, and tells how far it is."""

    target: Target
    source: Source
    status: Status
    report: Progress

    def duplicates(self, journal: Journal, most: int) -> None:
        """Note the rows whose key an earlier row has: not even an upsert tells which of two rows of one call stays."""
        if journal.duplicates is not None:
            return
        source, status, key = self.source, self.status, self.target.primary_key.name
        if source.unique or self.target.numbered(source):
            journal.duplicates = []
            return
        status.stage = "checking"
        found = duplicate_rows(source.keys(key), journal.folder, most=most, progress=self._count)
        if status.total is None:
            status.total = status.read
        status.read = 0
        if len(found) > most:
            raise DataError(
                f"Row {found[0]} of {source.name} has the {key} of an earlier row; they must be unique."
                if not most
                else f"More than {most:,} rows of {source.name} have the {key} of an earlier row, the first is row "
                f"{found[0]}. Raise --max-errors to leave them out."
            )
        journal.duplicates = found

    def _count(self, rows: int) -> None:
        self.status.read = rows
        self.report(self.status)

    def rows(self, size: int) -> None:
        """Raise a `DataError` for the first row that cannot be loaded."""
        status, source = self.status, self.source
        status.stage = "checking"
        for batch in source.batches(size):
            checked = self.target.check(batch)
            if checked.bad:
                first = min(checked.bad)
                raise DataError(f"Row {batch.start + first} of {source.name} cannot be loaded: {checked.bad[first]}.")
            self._count(status.read + len(batch))
        status.total, status.read = status.read, 0


@dataclass(frozen=True)
class DryRun:
    """What a load would do.

    Args:
        rows: Rows of the source.
        bad: How many of them cannot be loaded.
        reasons: Why, of the first of them: (row, reason).
        ignored: Columns of the source that the collection has no field for.
    """

    rows: int
    bad: int
    reasons: tuple[tuple[int, str], ...]
    ignored: tuple[str, ...]


def dry_run(target: Target, source: Source, *, show: int = 10, progress: Progress | None = None) -> DryRun:
    """Read and check every row as `load` would, and write nothing.

    Args:
        target: The collection.
        source: The rows.
        show: How many reasons to keep.
        progress: Told how far it is.

    Raises:
        UsageError, DataError: As `load`.
    """
    target.check_source(source)
    report: Progress = progress or (lambda _: None)
    status = Status("checking", total=source.rows)
    journal = Journal()
    Preflight(target, source, status, report).duplicates(journal, sys.maxsize)
    reasons: list[tuple[int, str]] = []
    for batch in source.batches(target.batch_rows):
        checked = target.check(batch, journal.duplicates or ())
        reasons += [(batch.start + i, reason) for i, reason in sorted(checked.bad.items())][: show - len(reasons)]
        status.read += len(batch)
        status.bad += len(checked.bad)
        report(status)
    return DryRun(status.read, status.bad, tuple(reasons), target.ignored(source))
