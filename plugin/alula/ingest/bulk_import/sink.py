"""Load rows by Milvus's bulk import: as Parquet files that the server reads itself, each row exactly once.

What a server promises decides how. This was run on Milvus 2.3.5 (standalone), whose code says the same:

- Importing a file twice doubles its rows. So what has been asked for must be known beyond every crash: a part is
  recorded in the ledger before the server is asked to import it, and the answer right after.
- In between, nobody knows whether the server was asked. Its list of tasks knows: it outlives the server's restarts, and
  names the files. A part that is not in it could still get there late, from a request that is on its way. Therefore the
  part moves to a new name first, and the old file is removed, and then the list is read: a task that is not listed by
  then can only fail, because it finds no file.
- A server that is killed goes on with tasks that it had not begun, keeps those it had completed, and marks all others
  failed ("task marked failed as service restarted"): their rows never become visible, and the part is imported again.
  With one exception: between making a task's segments visible and marking it completed, two steps. Then its rows are
  seen until the server cleans up after failed tasks, every five minutes. A load waits for that where it may be so.
- Rows become visible 10 to 15 s after a task has completed, or 5 s after it when the collection's load is refreshed.
- Tasks are forgotten after a day. Then the rows themselves say whether a part has arrived.

Newer servers answer the same calls; none was run here. Where one lists its tasks without their files, a submission in
doubt cannot be found, and the load ends with an error that says so. Uploads to an S3 are run against an emulation;
that a server imports from there is Milvus's documented behaviour, not tested.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import tenacity
from pymilvus import BulkInsertState
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError, UsageError
from alula.index_types import FieldSpec
from alula.ingest.bulk_import.import_file import Ledger, Part, PartWriter
from alula.ingest.bulk_import.staging import Stage
from alula.milvus import Columns, Failure, Server, any_of, milvus_errors, server_words, what_failed
from alula.milvus.pymilvus_internals import list_imports, start_import
from alula.sources.base import Cursor

PART_BYTES = 256 << 20
# A data node takes one at a time, and far faster than rows are encoded. Another that waits gains nothing, and may get
# stuck: a server that restarts has given waiting tasks to the node that had died, and took 15 minutes to notice.
IN_FLIGHT = 1
TRIES = 5  # imports of one part that end because the server did
SAMPLE = 16  # rows that are looked for to see whether a part has arrived
POLL_SECONDS = 0.5
RPC_SECONDS = 30.0
OUTAGE_SECONDS = 300.0  # a server with much data takes a minute or two to come back
PATIENCE_SECONDS = 1800.0  # the server itself gives a task up after 900

Progress = Callable[[str, int, int], None]
T = TypeVar("T")

_FAILED = (BulkInsertState.ImportFailed, BulkInsertState.ImportFailedAndCleaned)
_ENDED_BY_SERVER = ("service restarted", "timed out")


class _Task(NamedTuple):
    """A task of the server: its number, the file it names ("" if none), what has become of it."""

    id: int
    file: str
    state: int
    rows: int
    percent: int
    reason: str

    @property
    def failed(self) -> bool:
        return self.state in _FAILED


def can_import(server: Server) -> bool:
    """Whether a server has bulk import: Milvus Lite has none."""
    if server.embedded:
        return False
    try:
        list_imports(server, "", RPC_SECONDS, limit=1)
    except (MilvusException, grpc.RpcError):
        return False
    return True


class ImportSink:
    """Writes rows into one empty collection (or partition) by bulk import.

    `recover` comes first, in a new load too; then `write` for batches in order, then `finish`.

    Args:
        server: The connected server.
        name: The collection; it must be loaded, and nobody else may write to it meanwhile.
        fields: What is written, the primary key first.
        stage: URL under which files are put for the server; see `alula.ingest.bulk_import.staging.Stage`.
        folder: A local folder for the file that is being written.
        ledger: What is known of this load's parts.
        load_id: Names the load among all loads of all collections: letters, digits, ``-`` and ``_``.
        stage_at_server: The stage as the server names it, if it sees it under another name.
        stage_options: What fsspec needs to open the stage.
        partition: Partition to write to; the default one if None.
        part_bytes: Size of a part, in bytes of its columns in memory.
        progress: Called with ``importing`` or ``counting``, the rows that far, and the rows handed over; what it raises
            ends the waiting.

    Raises:
        UsageError: If the load's name or the stage cannot be used.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        fields: Sequence[FieldSpec],
        *,
        stage: str,
        folder: Path,
        ledger: Ledger,
        load_id: str,
        stage_at_server: str | None = None,
        stage_options: Mapping[str, Any] | None = None,
        partition: str | None = None,
        part_bytes: int = PART_BYTES,
        progress: Progress | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", load_id):
            raise UsageError(f"{load_id!r} cannot name a load: use letters, digits, - and _.")
        self._server = server
        self._name = name
        self._fields = fields
        self._key = fields[0].name
        self._stage = Stage(stage, stage_at_server, f"alula-{load_id}", stage_options or {})
        self._own = re.compile(rf"(?:^|/)alula-{load_id}/(\d+)\.\d+\.parquet$")
        self._path = folder / f"alula-{load_id}.parquet"
        self._ledger = ledger
        self._partition = partition or ""
        self._part_bytes = part_bytes
        self._progress = progress or (lambda *_: None)
        self._parts: dict[int, Part] = {}
        self._ended: dict[int, int] = {}  # how often the server ended with a part's import
        self._writer: PartWriter | None = None
        self.bytes = 0  # written in this run

    @property
    def rows(self) -> int:
        """Rows in closed parts."""
        return sum(part.rows for part in self._parts.values())

    def recover(self) -> Cursor | None:
        """Take up what an earlier run of this load has left.

        Returns:
            The cursor of the last row that need not be written again; None at the beginning.

        Raises:
            ServerError: If the server or the stage fails, or has lost what it was given.
        """
        self._path.unlink(missing_ok=True)
        self._parts = {part.number: part for part in (Part(**known) for known in self._ledger.parts())}
        if not self._parts and (there := self._rows_with("")):
            raise UsageError(
                f"{self._name!r} holds {there:,} rows already, and an import could only double rows; load "
                "with --via insert."
            )
        tasks = self._tasks()
        for part in self._unfinished():
            task = tasks.get(part.task or -1)
            if task is None or task.failed:
                self._submit(part, in_doubt=True)
        return self._parts[max(self._parts)].last if self._parts else None

    def write(self, columns: Columns, first: Cursor, last: Cursor) -> None:
        """Write rows, after those of the last call.

        Args:
            columns: The fields' values, of one length.
            first: Cursor of the first row.
            last: Cursor of the last row.

        Raises:
            ServerError: If the server or the stage fails.
        """
        with _disk_errors(self._path):
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = PartWriter(self._path, self._fields, first)
            before = self._writer.bytes
            self._writer.write(columns, last)
        self.bytes += self._writer.bytes - before
        if self._writer.bytes >= self._part_bytes:
            self._close_part()

    def finish(self) -> int:
        """Import what is left, wait until all rows can be found, and remove the files from the stage.

        Returns:
            The rows imported, in this run and earlier ones.

        Raises:
            ServerError: If the server cannot import a part, with its reason; or if it ends with another number of rows.
        """
        self._close_part()
        self._wait(0)
        self._count()
        self._stage.remove()
        return self.rows

    def _close_part(self) -> None:
        if self._writer is None:
            return
        written, number = self._writer, len(self._parts)
        with _disk_errors(self._path):
            written.close()
        # A file of that name may be there, from a run that ended before the next step: no server was asked to read it.
        file = self._stage.upload(self._path, f"{number:06d}.0.parquet")
        part = Part(number, written.first, written.last, written.rows, file)
        self._record(part)
        self._path.unlink()
        self._writer = None
        self._wait(IN_FLIGHT - 1)
        self._submit(part, in_doubt=False)

    def _record(self, part: Part) -> None:
        self._ledger.record_part(part.number, dataclasses.asdict(part))
        self._parts[part.number] = part

    def _unfinished(self) -> list[Part]:
        return [part for _, part in sorted(self._parts.items()) if part.state != "done"]

    # -- asking for an import

    def _submit(self, part: Part, *, in_doubt: bool) -> None:
        """Have a part imported.

        Args:
            part: The part, recorded as ``written``, or with a task that has failed or is forgotten.
            in_doubt: Whether the server may have been asked before.
        """
        with milvus_errors(f"import {part.file!r} into {self._name!r}"):
            for attempt in _retrying():
                with attempt:
                    if in_doubt:
                        part = self._settle(part)
                    in_doubt = True
                    if part.state == "written":
                        part = dataclasses.replace(part, task=self._ask(part.file), state="submitted")
                    self._record(part)

    def _ask(self, file: str) -> int:
        return start_import(self._server, self._name, self._partition, file, RPC_SECONDS)

    def _settle(self, part: Part) -> Part:
        """Find out whether a part is being imported, and otherwise make sure that nobody still can ask for it."""
        # Wait until the collection answers: before, a restarted server may give the task to the data node that died,
        # where it stays for the 15 minutes after which the server itself gives it up.
        self._rows_with("")
        listed = self._of(part)
        if taken := _under_way(listed):
            return dataclasses.replace(part, task=taken.id, state="submitted")
        # with a failed task on the list, a later one would be there too: only without any it can have been forgotten
        if not listed and self._arrived(part):
            return dataclasses.replace(part, state="done")
        old = Path(part.file).name
        number, attempt, _ = old.split(".")
        new = f"{number}.{int(attempt) + 1}.parquet"
        part = dataclasses.replace(part, file=self._stage.copy(old, new), task=None, state="written")
        self._record(part)
        self._stage.keep_of(f"{number}.", new)
        if taken := _under_way(self._of(part)):  # it came in between; should it miss its file, it fails
            return dataclasses.replace(part, task=taken.id, state="submitted")
        return part

    def _arrived(self, part: Part) -> bool:
        """Whether the rows of a part are in the collection."""
        keys = self._stage.column(Path(part.file).name, self._key)
        sample = [keys[i * len(keys) // SAMPLE].as_py() for i in range(SAMPLE)]
        wanted = list(dict.fromkeys(sample))
        found = self._rows_with(any_of(self._key, wanted))
        if found not in {0, len(wanted)}:
            raise ServerError(
                f"Of {len(wanted)} rows of the file {part.file!r}, {found} are in {self._name!r}, which fits no import "
                "of it; drop the collection and load it anew."
            )
        return found > 0

    # -- watching the server

    def _tasks(self) -> dict[int, _Task]:
        """The server's tasks for this collection."""
        states = self._read(
            f"list the imports into {self._name!r}", lambda: list_imports(self._server, self._name, RPC_SECONDS)
        )
        return {s.task_id: _Task(s.task_id, s.files, s.state, s.row_count, s.progress, s.failed_reason) for s in states}

    def _of(self, part: Part) -> list[_Task]:
        """The tasks that were given a file of the part."""
        known = {other.task for other in self._parts.values()}
        mine = []
        for task in self._tasks().values():
            if not task.file and not task.failed and task.id not in known:
                raise ServerError(
                    f"This server does not tell which files it imports, so nobody knows whether it was asked for "
                    f"{part.file!r} before the load broke off; drop the collection and load it anew."
                )
            own = self._own.search(task.file)
            if own and int(own[1]) == part.number:
                mine.append(task)
        return mine

    def _wait(self, most: int) -> None:
        """Wait until at most so many parts are being imported."""
        clock = _Clock()
        while submitted := [part for part in self._unfinished() if part.task is not None]:
            tasks = self._tasks()
            for part in submitted:
                self._follow(part, tasks.get(part.task or -1))
            still = [tasks[part.task] for part in self._unfinished() if part.task in tasks]
            done = sum(part.rows for part in self._parts.values() if part.state == "done")
            rows = {part.task: part.rows for part in submitted}
            self._progress(
                "importing", done + sum(rows.get(task.id, 0) * task.percent // 100 for task in still), self.rows
            )
            if len([part for part in self._unfinished() if part.task is not None]) <= most:
                return
            clock.check(still, f"import {', '.join(part.file for part in submitted)} into {self._name!r}")

    def _follow(self, part: Part, task: _Task | None) -> None:
        if task is None:
            self._submit(part, in_doubt=True)
        elif task.state == BulkInsertState.ImportCompleted:
            self._record(dataclasses.replace(part, state="done"))
        elif task.failed:
            ended = task.file not in {"", part.file} or any(words in task.reason for words in _ENDED_BY_SERVER)
            self._ended[part.number] = self._ended.get(part.number, 0) + 1
            if not ended or self._ended[part.number] >= TRIES:
                raise ServerError(f"Milvus could not import {part.file!r} into {self._name!r}: {task.reason}.")
            self._submit(part, in_doubt=True)

    def _count(self) -> None:
        """Wait until the collection's rows are the imported ones, each once."""
        clock = _Clock()
        refresh = True
        while True:
            found = self._rows_with("")
            left = [task for task in self._tasks().values() if self._own.search(task.file) and _may_show_rows(task)]
            self._progress("counting", found, self.rows)
            if found == self.rows and not left:
                return
            if refresh:  # makes the server look for what was imported, as it does by itself later
                refresh = False
                with suppress(MilvusException, grpc.RpcError):
                    self._server.client.refresh_load(self._name, timeout=RPC_SECONDS)
            clock.check(
                (found, left),
                f"show the rows of {self._name!r}: {self.rows:,} were imported and {found:,} are there; if nobody else "
                "writes to it, drop the collection and load it anew",
            )

    def _rows_with(self, filter_: str) -> int:
        where = {"partition_names": [self._partition]} if self._partition else {}

        def ask() -> int:
            answer = self._server.client.query(
                self._name,
                filter=filter_,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=RPC_SECONDS,
                **where,
            )
            return int(answer[0]["count(*)"])

        return self._read(f"count the rows of {self._name!r}", ask)

    def _read(self, action: str, ask: Callable[[], T]) -> T:
        """What the server answers, asked again while it restarts."""
        with milvus_errors(action):
            return _retrying()(ask)


class _Clock:
    """Waits between two looks at the server, and gives up when nothing changes for `PATIENCE_SECONDS`."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = time.monotonic()

    def check(self, seen: object, action: str) -> None:
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        if time.monotonic() - self._since > PATIENCE_SECONDS:
            raise ServerError(f"Milvus did not {action} (nothing has changed for {PATIENCE_SECONDS / 60:.0f} minutes).")
        time.sleep(POLL_SECONDS)


def _under_way(tasks: Sequence[_Task]) -> _Task | None:
    return next((task for task in tasks if not task.failed), None)


def _may_show_rows(task: _Task) -> bool:
    """Whether the server broke off between making a task's rows visible and noting that it is completed."""
    return (
        task.state == BulkInsertState.ImportFailed
        and task.rows > 0
        and any(words in task.reason for words in _ENDED_BY_SERVER)
    )


def _retrying() -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_passing),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        stop=tenacity.stop_after_delay(OUTAGE_SECONDS),
        reraise=True,
    )


def _passing(error: BaseException) -> bool:
    """Whether a call may work later; a server that starts loads its collections again."""
    if not isinstance(error, MilvusException | grpc.RpcError):
        return False
    return what_failed(error) is not Failure.REFUSED or "not loaded" in server_words(error)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServerError(f"The part {path} cannot be written: {error}; make room there and load again.") from error
