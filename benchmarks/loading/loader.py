"""``alula load`` as a process that can be killed and resumed."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PATIENCE = 120  # seconds for which the loader itself is to try again
LIMIT = 300.0  # seconds after which a loader hangs
POLL = 0.005


class LoaderHangsError(RuntimeError):
    """A loader did not end within `LIMIT`; it has been killed."""


class Loader:
    """The command ``alula load`` for one load, with its journal.

    Args:
        place: Directory of the journal and of what the loader prints.
        name: The collection.
        source: The rows.
        encoder: The encoder file.
        uri: The server.
        options: Further options of the command.
        journal: The journal, by default in ``place``.
    """

    def __init__(
        self,
        place: Path,
        name: str,
        source: Path,
        encoder: Path,
        uri: str,
        *,
        options: Sequence[str] = (),
        journal: Path | None = None,
    ) -> None:
        self.place = place
        self.journal = journal or place / "load.journal"
        self.command = [sys.executable, "-m", "alula.cli", "load", name, str(source), "--uri", uri]
        self.command += ["--encoder", str(encoder), "--journal", str(self.journal)]
        self.command += ["--retry-timeout", str(PATIENCE), "--quiet", "--json-logs", *options]
        self.codes: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._counted: subprocess.Popen[bytes] | None = None  # whose exit status is in `codes`

    @property
    def log(self) -> Path:
        """The output of all processes of this load."""
        return self.place / "loader.log"

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def change(self, option: str, value: str) -> None:
        """Give another value to an option of the command."""
        self.command[self.command.index(option) + 1] = value

    def twin(self) -> Loader:
        """Another loader with the same command and journal."""
        twin = copy.copy(self)
        twin.codes, twin._process, twin._counted = [], None, None
        return twin

    def start(self, *, resume: bool | None = None) -> None:
        """Start the command, and return when it has touched its journal (or has ended).

        Args:
            resume: True to give ``--resume``; by default from the second start on.
        """
        before = self._touched()
        self.launch(resume=resume)
        while self.alive and self._touched() == before:
            time.sleep(POLL)

    def _touched(self) -> int:
        """When the journal was last written, in whatever unit."""
        files = [self.journal, Path(f"{self.journal}-wal")]
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)

    def launch(self, *, resume: bool | None = None) -> None:
        """Start the command, and return at once."""
        resume = bool(self.codes) if resume is None else resume

        with self.log.open("ab") as log:
            log.write(f"--- {' '.join(self.command)}{' --resume' if resume else ''}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [*self.command, *(["--resume"] if resume else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def still_writing(self, rows: int) -> bool:
        """True if the journal has fewer rows: for statistics, never for a verdict.

        It is read from a copy, since a running loader locks its journal.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                shutil.copy(self.journal, Path(folder, "copy"))
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(f"{self.journal}-wal", Path(folder, "copy-wal"))
                with contextlib.closing(sqlite3.connect(Path(folder, "copy"))) as journal:
                    done = journal.execute("SELECT value FROM about WHERE name = 'done_rows'").fetchone()
                    beyond = journal.execute("SELECT sum(rows) FROM acknowledged").fetchone()
            except FileNotFoundError:  # it has just ended
                return False
            except sqlite3.Error:  # it has just begun
                return True
        return int(done[0] if done else 0) + int(beyond[0] or 0) < rows

    def wait(self, seconds: float = LIMIT) -> int:
        """The exit status.

        Raises:
            LoaderHangsError: If it does not end in time.
        """
        assert self._process is not None
        if self._process.returncode is not None and self._counted is self._process:
            return self.codes[-1]
        try:
            self.codes.append(self._process.wait(seconds))
            self._counted = self._process
        except subprocess.TimeoutExpired:
            self.kill(engine=True)
            raise LoaderHangsError(f"The loader did not end within {seconds:.0f} s; it printed {self.log}.") from None
        return self.codes[-1]

    def kill(self, *, engine: bool = False) -> bool:
        """Kill -9 the loader, with ``engine`` its children too; whether it was running."""
        assert self._process is not None
        if not self.alive:
            self.wait()
            return False
        victims = [*(children(self.pid) if engine else ()), self.pid]
        for pid in reversed(victims):
            os.kill(pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def children(pid: int) -> list[int]:
    """The direct children of a process: for a loader into Milvus Lite, the engine."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        found += [int(child) for child in (task / "children").read_text().split()]
    return found
