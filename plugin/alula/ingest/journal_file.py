"""The file of a journal: an SQLite database with atomic changes for one program."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alula.errors import AlulaError, UsageError

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


class JournalFile:
    """Named JSON values and tables of rows, on disk when a change returns.

    Args:
        path: The file, created if missing; a database in memory if None.

    Raises:
        UsageError: If another program has it open, or it is no journal.
        JournalError: If it cannot be read or written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._lock = threading.RLock()
        try:
            if self.path is not None:  # it contains rows that could not be loaded
                self.path.touch(mode=0o600)
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=0)
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"The journal {path} cannot be opened ({error}); name another file.") from None
        with self._errors():
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA wal_autocheckpoint = 100")  # pages: a small journal stays small
            with self.together():
                if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._db.execute(statement)
                    self.put(format=FORMAT)
                if self.get("format") != FORMAT:
                    raise UsageError(f"{path} is a journal of another version of Alula; name another file.")

    @property
    def folder(self) -> Path:
        """Folder for temporary files: that of the journal."""
        return self.path.absolute().parent if self.path else Path(tempfile.gettempdir())

    def get(self, name: str) -> Any:
        """A named value; None if it was never put."""
        rows = self.rows("SELECT value FROM about WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else None

    def put(self, **values: Any) -> None:
        """Set named values, which JSON can express."""
        with self.together():
            for name, value in values.items():
                self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows of an SQL query."""
        with self._lock:
            return list(self.stream(query, parameters))

    def stream(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of an SQL query, one by one."""
        with self._errors():
            yield from self._db.execute(query, parameters)

    def change(self, statement: str, *rows: Sequence[Any]) -> None:
        """Execute an SQL statement, once per row of parameters."""
        with self.together():
            self._db.executemany(statement, rows)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Group the changes of the outermost block into one transaction."""
        with self._errors():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file, which stays."""
        with self._lock:
            self._db.close()

    def remove(self) -> None:
        """Close the file and delete it."""
        self.close()
        if self.path is not None:
            for name in self.names(self.path):
                name.unlink(missing_ok=True)

    @staticmethod
    def names(path: Path) -> Iterable[Path]:
        """The files of a journal: SQLite's own write-ahead files beside it included."""
        return [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as error:
                text = str(error)
                if "locked" in text:
                    raise UsageError(
                        f"Another load is using the journal {self.path}; wait for it, or name another file."
                    ) from None
                if "not a database" in text:
                    raise UsageError(f"{self.path} is not a journal of Alula; name another file.") from None
                raise JournalError(
                    f"The journal {self.path} cannot be written ({text}); make room or name another disk, then resume."
                ) from None
