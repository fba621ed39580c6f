"""The journal of a load: what has been acknowledged, on disk, so that a load can go on after any crash.

It is one SQLite file. SQLite writes a change whole or not at all, on disk when it says so, and lets one program have
the file: what a journal must do, and what is hard to get right by hand.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from alula.errors import AlulaError, UsageError
from alula.sources import Cursor

FORMAT = 1
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE acknowledged (first, last, rows INTEGER NOT NULL, PRIMARY KEY (first, last));
CREATE TABLE doubtful (first, last, PRIMARY KEY (first, last));
CREATE TABLE dead (number INTEGER PRIMARY KEY, reason TEXT NOT NULL, record BLOB NOT NULL);
CREATE TABLE sample (priority INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE parts (number INTEGER PRIMARY KEY, part TEXT NOT NULL);
"""


class JournalError(AlulaError):
    """A journal cannot be written or read: the disk is full, the file damaged."""


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
    """What happened to the rows of one batch.

    Args:
        span: The cursors of its first and last row.
        read: Rows in it.
        dead: Those that could not be loaded.
        sample: Some rows for the check at the end: (priority, record); those of the least priority are kept.
    """

    span: tuple[Cursor, Cursor]
    read: int
    dead: Sequence[DeadLetter] = ()
    sample: Sequence[tuple[int, bytes]] = ()


class Journal:
    """What a load has done.

    Args:
        path: The file; a journal in memory if None, for loads that need none.

    Raises:
        UsageError: If another program has it, or it is no journal.
        JournalError: If it cannot be read or written.
    """

    SAMPLE = 64  # rows kept for the check at the end

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._lock = threading.RLock()
        self._waiting: dict[int, Acknowledgement] = {}
        self._next = 0
        self._sent_before: Cursor | None = None
        try:
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=0)
        except sqlite3.Error as error:
            raise JournalError(
                f"The journal {path} cannot be opened ({error}); name another one (--journal)."
            ) from None
        with self._errors():
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA wal_autocheckpoint = 100")  # pages: a small journal stays small
            with self.together():
                if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._db.execute(statement)
                    self._set(format=FORMAT)
                if self._get("format") != FORMAT:
                    raise UsageError(f"{path} is a journal of another version of Alula; name another one (--journal).")

    @property
    def folder(self) -> Path:
        """Where files may be put that a load needs for a while."""
        return self.path.absolute().parent if self.path else Path(tempfile.gettempdir())

    # ------------------------------------------------------------------ what is loaded

    @property
    def job(self) -> Mapping[str, Any] | None:
        """What is loaded where, as `begin` was told; None for a new journal."""
        return cast("Mapping[str, Any] | None", self._get("job"))

    def begin(self, job: Mapping[str, Any], rows_before: int) -> None:
        """Write down what is loaded, and how many rows the collection held before."""
        with self.together():
            self._set(job=dict(job), rows_before=rows_before)

    @property
    def rows_before(self) -> int:
        """Rows that the collection held when the load began."""
        return int(self._get("rows_before") or 0)

    @property
    def duplicates(self) -> list[int] | None:
        """Numbers of rows whose key an earlier row has; None until they were looked for."""
        return cast("list[int] | None", self._get("duplicates"))

    @duplicates.setter
    def duplicates(self, numbers: Sequence[int]) -> None:
        with self.together():
            self._set(duplicates=[int(number) for number in numbers])

    @property
    def migration(self) -> Mapping[str, Any] | None:
        """What a migration must know to go on; None where there is none, or none that began."""
        return cast("Mapping[str, Any] | None", self._get("migration"))

    @migration.setter
    def migration(self, state: Mapping[str, Any]) -> None:
        with self.together():
            self._set(migration=dict(state))

    # ------------------------------------------------------------------ how far it is

    @property
    def done(self) -> Cursor | None:
        """The cursor up to which every row is acknowledged."""
        return cast("Cursor | None", self._get("done"))

    @property
    def done_rows(self) -> int:
        """Rows of the source up to `done`, dead letters counted."""
        return int(self._get("done_rows") or 0)

    @property
    def read_rows(self) -> int:
        """Rows of the source that are acknowledged anywhere, dead letters counted."""
        with self._errors():
            beyond = self._db.execute("SELECT coalesce(sum(rows), 0) FROM acknowledged").fetchone()[0]
        return self.done_rows + int(beyond)

    @property
    def untouched(self) -> bool:
        """Whether nothing was sent to Milvus yet."""
        return self._get("sent") is None and self.done is None

    def sending(self, span: tuple[Cursor, Cursor]) -> None:
        """Say that rows up to the last of a batch may reach Milvus from now on, which a crash would leave in doubt."""
        with self.together():
            sent = self._get("sent")
            if sent is None or span[1] > sent:
                self._set(sent=span[1])

    def in_doubt(self, span: tuple[Cursor, Cursor]) -> bool:
        """Whether rows of a batch that is not acknowledged may have reached Milvus in an earlier run."""
        sent: Any = self._sent_before
        return sent is not None and bool(span[0] <= sent)

    def is_acknowledged(self, span: tuple[Cursor, Cursor]) -> bool:
        """Whether a batch behind `done` is acknowledged already."""
        with self._errors():
            return (
                self._db.execute("SELECT 1 FROM acknowledged WHERE first = ? AND last = ?", span).fetchone() is not None
            )

    def begin_run(self) -> None:
        """Take what was sent and not acknowledged before as being in doubt."""
        self._sent_before = self._get("sent")
        self._next = 0
        self._waiting = {}

    def acknowledge(self, number: int, what: Acknowledgement) -> None:
        """Write down that Milvus has a batch.

        Args:
            number: The how many-th batch behind `done` it was when this run began, counted from 0, those counted that
                were acknowledged before.
            what: What became of its rows.
        """
        with self.together():
            self._waiting[number] = what
            first, last = what.span
            self._db.execute("INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?)", (first, last, what.read))
            self._db.executemany(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?)", [(d.number, d.reason, d.record) for d in what.dead]
            )
            self._db.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?)", what.sample)
            if what.sample:
                self._db.execute(
                    "DELETE FROM sample WHERE priority NOT IN (SELECT priority FROM sample ORDER BY priority LIMIT ?)",
                    (self.SAMPLE,),
                )
            done, rows = self.done, self.done_rows
            while self._next in self._waiting:
                batch = self._waiting.pop(self._next)
                done, rows = batch.span[1], rows + batch.read
                self._db.execute("DELETE FROM acknowledged WHERE first = ? AND last = ?", batch.span)
                self._next += 1
            self._set(done=done, done_rows=rows)

    def doubt(self, span: tuple[Cursor, Cursor]) -> None:
        """Write down that an answer about a batch was lost: at the end its rows are looked for once more."""
        with self.together():
            self._db.execute("INSERT OR IGNORE INTO doubtful VALUES (?, ?)", span)

    @property
    def doubtful(self) -> list[tuple[Cursor, Cursor]]:
        """The batches that `doubt` was told of."""
        with self._errors():
            return [(a, b) for a, b in self._db.execute("SELECT first, last FROM doubtful ORDER BY first")]

    # ------------------------------------------------------------------ what was put aside

    @property
    def dead_count(self) -> int:
        """Rows that could not be loaded."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM dead").fetchone()[0])

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Rows that could not be loaded, by number."""
        with self._errors():
            for row in self._db.execute("SELECT number, reason, record FROM dead ORDER BY number"):
                yield DeadLetter(*row)

    @property
    def sample(self) -> list[bytes]:
        """Rows for the check at the end."""
        return [record for _, record in self.ranked_sample]

    @property
    def ranked_sample(self) -> list[tuple[int, bytes]]:
        """The same as `Acknowledgement` has them: (priority, record), the least priority first."""
        with self._errors():
            return self._db.execute("SELECT priority, record FROM sample ORDER BY priority").fetchall()

    # ------------------------------------------------------------------ files of a bulk import

    def parts(self) -> list[dict[str, Any]]:
        """The parts of a bulk import, by number."""
        with self._errors():
            return [json.loads(row[0]) for row in self._db.execute("SELECT part FROM parts ORDER BY number")]

    def record_part(self, number: int, part: Mapping[str, Any]) -> None:
        """Write down what is known of a part, in place of what was."""
        with self.together():
            self._db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (number, json.dumps(dict(part))))

    # ------------------------------------------------------------------ the file

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it stays."""
        with self._lock:
            self._db.close()

    def leave(self) -> None:
        """Close the file, and delete it where nothing was sent to Milvus: then there is nothing to go on with."""
        if self.untouched:
            self.remove()
        else:
            self.close()

    def remove(self) -> None:
        """Close the file and delete it."""
        self.close()
        if self.path is not None:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _get(self, name: str) -> Any:
        with self._errors():
            row = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make the changes of the block one: on disk when the outermost such block ends, or none of them."""
        with self._errors():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as error:
                text = str(error)
                if "locked" in text:
                    raise UsageError(
                        f"Another load is using the journal {self.path}; wait for it, or name another one (--journal)."
                    ) from None
                if "not a database" in text:
                    raise UsageError(f"{self.path} is not a journal of Alula; name another file (--journal).") from None
                raise JournalError(
                    f"The journal {self.path} cannot be written ({text}); make room or name another disk, then go on "
                    "with --resume."
                ) from None
