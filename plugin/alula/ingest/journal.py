"""The journal of a load: the batches that Milvus has acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from alula.ingest.journal_file import JournalFile
from alula.sources import Cursor


@dataclass(frozen=True)
class DeadLetter:
    """A row that could not be loaded.

    Args:
        number: The row's number in its source.
        reason: Why.
        record: The row, as Arrow IPC.
    """

    number: int
    reason: str
    record: bytes


@dataclass(frozen=True)
class Acknowledgement:
    """The rows of one acknowledged batch.

    Args:
        span: The cursors of its first and last row.
        read: Rows in it.
        dead: The rejected ones.
        sample: Rows for the check at the end: (priority, record). The journal keeps those of least priority.
    """

    span: tuple[Cursor, Cursor]
    read: int
    dead: Sequence[DeadLetter] = ()
    sample: Sequence[tuple[int, bytes]] = ()


class Journal:
    """The progress of one load.

    Args:
        path: The file; a journal in memory if None, which ends with the process.

    Attributes:
        file: The SQLite file, which others may keep values of their own in.

    Raises:
        UsageError: If another program has the file open, or it is no journal.
        JournalError: If it cannot be read or written.
    """

    SAMPLE = 64  # rows kept for the check at the end

    def __init__(self, path: str | Path | None = None) -> None:
        self.file = JournalFile(path)
        self.path = self.file.path
        self.folder = self.file.folder
        self._waiting: dict[int, Acknowledgement] = {}
        self._next = 0
        self._sent_before: Cursor | None = None

    # ------------------------------------------------------------------ identity

    @property
    def plan(self) -> Mapping[str, Any] | None:
        """The plan of the load, as `begin` recorded it; None for a new journal."""
        return cast("Mapping[str, Any] | None", self.file.get("job"))  # the key of journals of 0.1

    def begin(self, plan: Mapping[str, Any], rows_before: int) -> None:
        """Record the plan of a load, and the number of rows in the collection before it."""
        self.file.put(job=dict(plan), rows_before=rows_before)

    @property
    def rows_before(self) -> int:
        """Rows in the collection when the load began."""
        return int(self.file.get("rows_before") or 0)

    @property
    def duplicates(self) -> list[int] | None:
        """Numbers of rows whose key an earlier row has; None before the search for them."""
        return cast("list[int] | None", self.file.get("duplicates"))

    @duplicates.setter
    def duplicates(self, numbers: Sequence[int]) -> None:
        self.file.put(duplicates=[int(number) for number in numbers])

    # ------------------------------------------------------------------ acknowledgement

    @property
    def done(self) -> Cursor | None:
        """The cursor up to which every row is acknowledged."""
        return cast("Cursor | None", self.file.get("done"))

    @property
    def done_rows(self) -> int:
        """Rows of the source up to `done`, dead letters included."""
        return int(self.file.get("done_rows") or 0)

    @property
    def read_rows(self) -> int:
        """Acknowledged rows of the source, dead letters included."""
        ((beyond,),) = self.file.rows("SELECT coalesce(sum(rows), 0) FROM acknowledged")
        return self.done_rows + int(beyond)

    @property
    def untouched(self) -> bool:
        """True if nothing was sent to Milvus yet."""
        return self.file.get("sent") is None and self.done is None

    def begin_run(self) -> None:
        """Begin a run: unacknowledged batches of earlier runs are in doubt."""
        self._sent_before = self.file.get("sent")
        self._next = 0
        self._waiting = {}

    def sending(self, span: tuple[Cursor, Cursor]) -> None:
        """Mark a batch as sent: after a crash its rows may or may not be in Milvus."""
        with self.file.together():
            sent = self.file.get("sent")
            if sent is None or span[1] > sent:
                self.file.put(sent=span[1])

    def is_acknowledged(self, span: tuple[Cursor, Cursor]) -> bool:
        """True if a batch after `done` is acknowledged already."""
        return bool(self.file.rows("SELECT 1 FROM acknowledged WHERE first = ? AND last = ?", span))

    def acknowledge(self, number: int, done: Acknowledgement) -> None:
        """Record that Milvus has acknowledged a batch.

        Args:
            number: Index of the batch in this run, starting at 0 after `done`; batches acknowledged earlier count.
            done: Its rows.
        """
        with self.file.together():
            self._waiting[number] = done
            self.file.change("INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?)", (*done.span, done.read))
            self.file.change(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?)", *((d.number, d.reason, d.record) for d in done.dead)
            )
            self.file.change("INSERT OR IGNORE INTO sample VALUES (?, ?)", *done.sample)
            if done.sample:
                self.file.change(
                    "DELETE FROM sample WHERE priority NOT IN (SELECT priority FROM sample ORDER BY priority LIMIT ?)",
                    (self.SAMPLE,),
                )
            reached, rows = self.done, self.done_rows
            while self._next in self._waiting:
                batch = self._waiting.pop(self._next)
                reached, rows = batch.span[1], rows + batch.read
                self.file.change("DELETE FROM acknowledged WHERE first = ? AND last = ?", batch.span)
                self._next += 1
            self.file.put(done=reached, done_rows=rows)

    def together(self) -> AbstractContextManager[None]:
        """Group the changes of the block into one transaction."""
        return self.file.together()

    # ------------------------------------------------------------------ doubt

    def in_doubt(self, span: tuple[Cursor, Cursor]) -> bool:
        """True if an earlier run may have written rows of an unacknowledged batch."""
        sent: Any = self._sent_before
        return sent is not None and bool(span[0] <= sent)

    def doubt(self, span: tuple[Cursor, Cursor]) -> None:
        """Record that the answer about a batch was lost."""
        self.file.change("INSERT OR IGNORE INTO doubtful VALUES (?, ?)", span)

    @property
    def doubtful(self) -> list[tuple[Cursor, Cursor]]:
        """The spans that `doubt` recorded, in order."""
        return [(a, b) for a, b in self.file.rows("SELECT first, last FROM doubtful ORDER BY first")]

    # ------------------------------------------------------------------ dead letters and the sample

    @property
    def dead_count(self) -> int:
        """Number of rejected rows."""
        ((count,),) = self.file.rows("SELECT count(*) FROM dead")
        return int(count)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """The rejected rows, by number."""
        for row in self.file.stream("SELECT number, reason, record FROM dead ORDER BY number"):
            yield DeadLetter(*row)

    @property
    def sample(self) -> list[bytes]:
        """Rows for the check at the end."""
        return [record for _, record in self.ranked_sample]

    @property
    def ranked_sample(self) -> list[tuple[int, bytes]]:
        """The sample with its priorities, least first: (priority, record)."""
        return [(priority, record) for priority, record in self.file.rows("SELECT * FROM sample ORDER BY priority")]

    # ------------------------------------------------------------------ the file

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which stays."""
        self.file.close()

    def leave(self) -> None:
        """Close the file, and delete it if there is nothing to resume."""
        if self.untouched:
            self.remove()
        else:
            self.close()

    def remove(self) -> None:
        """Close the file and delete it."""
        self.file.remove()
