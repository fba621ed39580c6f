"""Import files into the server, each exactly once, and wait for their rows.

The steps follow from the guarantees of a server. This was run on Milvus 2.3.5 (standalone), whose code agrees:

- Importing a file twice doubles its rows. So every request must be known after any crash: a file is recorded in the
  ledger before the server is asked to import it, and the answer right after.
- Between the two, a request may have been sent or not. The server's list of tasks is the evidence: it outlives the
  server's restarts, and names the files. A file that is not listed could still be imported late, by a request under
  way. Therefore the file is renamed first, the old one removed, and then the list is read: a task that is not listed
  by then can only fail, because its file is missing.
- A killed server resumes tasks that it had not begun, keeps completed ones, and marks all others failed ("task marked
  failed as service restarted"): their rows never become visible, and the file is imported again. One exception:
  between making a task's segments visible and marking it completed, two steps. Then its rows are visible until the
  server cleans up after failed tasks, every five minutes. A load waits for that where it may be so.
- Rows become visible 10 to 15 s after a task has completed, or 5 s after it when the collection's load is refreshed.
- Tasks are forgotten after a day. Then the rows themselves show whether a file was imported.

Milvus 2.4 and later list their tasks without numbers and files (by their source; none was run here). A task is
followed by its number, which they know. For a request in doubt the file is renamed, and then the tasks on the list are
counted: no more of them than the numbers on record means that the request was lost. With more of them, the rows of the
file show up when these tasks have ended, or the load ends with an error that says so.

Milvus 2.6.24 and 3.0.2 know a request by its key (by their documentation; none was run here). There a request in doubt
is repeated for an hour, and a second one gets the task of the first.

Uploads to an S3 are run against an emulation; that a server imports from there is Milvus's documented behaviour, not
tested.
"""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

from alula.errors import ServerError
from alula.ingest.bulk_import.import_file import ImportFile, Ledger
from alula.ingest.bulk_import.staging import StagingArea
from alula.ingest.bulk_import.tasks import POLL_SECONDS, RETRY_TIMEOUT, ImportTask, ImportTasks, StallClock, under_way
from alula.milvus import any_of, milvus_errors
from alula.milvus.retrying import retry_policy
from alula.progress import Progress

REPEATABLE_SECONDS = 3600.0  # the server remembers a request for a day, and less if many others follow
TRIES = 5  # imports of one file that end because the server did
SHOWN_SECONDS = 120.0  # rows become visible after some 15 s
SAMPLE = 16  # rows that are looked up to see whether a file was imported


class Importer:
    """Imports the files of one load into one collection.

    Args:
        name: The collection.
        key: Its primary key.
        tasks: The server's tasks for it.
        stage: The staging area of the load.
        ledger: Records the files.
        folder: Name of the load's folder in the staging area.
        progress: As in `alula.ingest.bulk_import.sink.ImportSink`.
    """

    def __init__(
        self,
        name: str,
        key: str,
        *,
        tasks: ImportTasks,
        stage: StagingArea,
        ledger: Ledger,
        folder: str,
        progress: Progress,
    ) -> None:
        self._name = name
        self._key = key
        self._tasks = tasks
        self._stage = stage
        self._ledger = ledger
        self._own = re.compile(rf"(?:^|/){folder}/(\d+)\.\d+\.parquet$")
        self._progress = progress
        self._files: dict[int, ImportFile] = {}
        self._ended: dict[int, int] = {}  # how often the server ended during a file's import

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self._files.values())

    @property
    def last(self) -> ImportFile | None:
        """The last file; None without files."""
        return self._files[max(self._files)] if self._files else None

    def recover(self) -> None:
        """Resume the recorded files of an earlier run.

        Raises:
            ServerError: If the server or the staging area fails, or has lost files.
        """
        self._files = {file.number: file for file in self._ledger.files()}
        tasks = self._tasks.of(file.task for file in self._unfinished())
        for file in self._unfinished():
            task = tasks.get(file.task or -1)
            if task is None or task.failed:
                self.submit(file, in_doubt=True)

    def record(self, file: ImportFile) -> None:
        """Record the state of a file."""
        self._ledger.record(file)
        self._files[file.number] = file

    def _unfinished(self) -> list[ImportFile]:
        return [file for _, file in sorted(self._files.items()) if file.state != "done"]

    # ------------------------------------------------------------------ requests

    def submit(self, file: ImportFile, *, in_doubt: bool) -> None:
        """Have a file imported.

        Args:
            file: The file, recorded as ``written``, or with a task that has failed or is forgotten.
            in_doubt: True if an earlier request may have reached the server.
        """
        with milvus_errors(f"import {file.file!r} into {self._name!r}"):
            for attempt in retry_policy(RETRY_TIMEOUT):
                with attempt:
                    if in_doubt and not self._may_repeat(file):
                        file = self._resolve(file)
                    in_doubt = True
                    if file.state == "written":
                        file = dataclasses.replace(file, task=self._tasks.submit(file.file), state="submitted")
                    self.record(file)

    def _may_repeat(self, file: ImportFile) -> bool:
        """True if a request that was sent is still known to the server by its key."""
        recent = file.state == "written" and time.time() - file.written < REPEATABLE_SECONDS
        return recent and self._tasks.repeatable

    def _resolve(self, file: ImportFile) -> ImportFile:
        """Find the task of a file, or make sure that no late request can import it."""
        # Wait until the collection answers: before, a restarted server may give the task to the data node that died,
        # where it stays for the 15 minutes after which the server itself gives it up.
        self._tasks.count()
        listed = self._tasks.listed()
        if any(not task.file for task in listed):
            return self._settle(self._rename(file))
        mine = self._own_tasks(listed, file)
        if taken := under_way(mine):
            return dataclasses.replace(file, task=taken.id, state="submitted")
        # with a failed task on the list, a later one would be there too: only without any it can have been forgotten
        if not mine and self._was_imported(file):
            return dataclasses.replace(file, state="done")
        file = self._rename(file)
        listed = self._tasks.listed()
        if any(not task.file for task in listed):
            return self._settle(file)
        if taken := under_way(self._own_tasks(listed, file)):  # it came in between; should it miss its file, it fails
            return dataclasses.replace(file, task=taken.id, state="submitted")
        return file

    def _rename(self, file: ImportFile) -> ImportFile:
        """Rename a file, so that a request for it that arrives late can only fail."""
        old = Path(file.file).name
        number, attempt, _ = old.split(".")
        new = f"{number}.{int(attempt) + 1}.parquet"
        name = self._stage.copy(old, new)
        file = dataclasses.replace(file, file=name, task=None, state="written", written=time.time())
        self.record(file)
        self._stage.keep_of(f"{number}.", new)
        return file

    def _settle(self, file: ImportFile) -> ImportFile:
        """Find out by its rows if a renamed file was imported."""
        clock = StallClock()
        while True:
            listed = self._tasks.listed()
            known = self._tasks.of(other.task for other in self._files.values()).values()
            running = sum(task.running for task in listed) - sum(task.running for task in known)
            if running <= 0:
                break
            clock.wait(listed, f"end the imports into {self._name!r}")
        if sum(task.completed for task in listed) <= sum(task.completed for task in known):
            return dataclasses.replace(file, state="done") if self._was_imported(file) else file
        self._tasks.refresh()
        deadline = time.monotonic() + SHOWN_SECONDS
        while time.monotonic() < deadline:
            found, wanted = self._sample(file)
            if found == wanted:
                return dataclasses.replace(file, state="done")
            time.sleep(POLL_SECONDS)
        raise ServerError(
            "This server does not list the files that it imports, so it is unknown whether it was asked for "
            f"{file.file!r} before the load ended; drop the collection, create it and load it again."
        )

    def _was_imported(self, file: ImportFile) -> bool:
        """True if the rows of a file are in the collection."""
        found, wanted = self._sample(file)
        if found not in {0, wanted}:
            raise ServerError(
                f"Of {wanted} rows of the file {file.file!r}, {found} are in {self._name!r}, which fits no import "
                "of it; drop the collection, create it and load it again."
            )
        return found > 0

    def _sample(self, file: ImportFile) -> tuple[int, int]:
        """Of a sample of a file's rows, those in the collection, and all."""
        keys = self._stage.column(Path(file.file).name, self._key)
        sample = [keys[i * len(keys) // SAMPLE].as_py() for i in range(SAMPLE)]
        wanted = list(dict.fromkeys(sample))
        return self._tasks.count(any_of(self._key, wanted)), len(wanted)

    # ------------------------------------------------------------------ waiting for the server

    def _own_tasks(self, listed: list[ImportTask], file: ImportFile) -> list[ImportTask]:
        """The tasks that import a file under any of its names."""
        own = [(self._own.search(task.file), task) for task in listed]
        return [task for match, task in own if match and int(match[1]) == file.number]

    def wait(self, limit: int) -> None:
        """Wait until at most `limit` imports are running."""
        clock = StallClock()
        while submitted := [file for file in self._unfinished() if file.task is not None]:
            tasks = self._tasks.of(file.task for file in submitted)
            for file in submitted:
                self._follow(file, tasks.get(file.task or -1))
            still = [tasks[file.task] for file in self._unfinished() if file.task in tasks]
            done = sum(file.rows for file in self._files.values() if file.state == "done")
            rows = {file.task: file.rows for file in submitted}
            self._progress(
                "importing", done + sum(rows.get(task.id, 0) * task.percent // 100 for task in still), self.rows
            )
            if len([file for file in self._unfinished() if file.task is not None]) <= limit:
                return
            clock.wait(still, f"import {', '.join(file.file for file in submitted)} into {self._name!r}")

    def _follow(self, file: ImportFile, task: ImportTask | None) -> None:
        if task is None:
            self.submit(file, in_doubt=True)
        elif task.completed:
            self.record(dataclasses.replace(file, state="done"))
        elif task.failed:
            renamed = task.file not in {"", file.file}
            self._ended[file.number] = self._ended.get(file.number, 0) + 1
            if not (renamed or task.ended_by_server) or self._ended[file.number] >= TRIES:
                raise ServerError(f"Milvus could not import {file.file!r} into {self._name!r}: {task.reason}.")
            self.submit(file, in_doubt=True)

    def wait_until_visible(self) -> None:
        """Wait until the collection contains the imported rows, each once."""
        clock = StallClock()
        refresh = True
        while True:
            found = self._tasks.count()
            left = [task for task in self._tasks.listed() if self._own.search(task.file) and task.may_show_rows]
            self._progress("counting", found, self.rows)
            if found == self.rows and not left:
                return
            if refresh:
                refresh = False
                self._tasks.refresh()
            clock.wait(
                (found, left),
                f"show the rows of {self._name!r}: {self.rows:,} were imported and {found:,} are there; if there is no "
                "other writer, drop the collection, create it and load it again",
            )
