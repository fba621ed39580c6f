"""Write rows into the files of a bulk import."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alula.errors import ServerError, UsageError
from alula.index_types import FieldSpec
from alula.ingest.bulk_import.import_file import ImportFile, ImportFileWriter, Ledger
from alula.ingest.bulk_import.importer import Importer
from alula.ingest.bulk_import.staging import StagingArea
from alula.ingest.bulk_import.tasks import ImportTasks
from alula.milvus import Columns, Server
from alula.progress import Progress, silent
from alula.sources.base import Cursor

FILE_BYTES = 256 << 20
# A data node takes one at a time, and far faster than rows are encoded. Another that waits gains nothing, and may get
# stuck: a server that restarts has given waiting tasks to the node that had died, and took 15 minutes to notice.
IN_FLIGHT = 1


class ImportSink:
    """Writes rows into one empty collection (or partition) by bulk import.

    Call `recover` first, in a new load too; then `write` for batches in order, then `finish`.

    Args:
        server: The connected server.
        name: The collection; it must be loaded, without concurrent writers.
        fields: The written fields, the primary key first.
        stage: URL of the folder that the server reads; see `alula.ingest.bulk_import.staging.StagingArea`.
        folder: A local folder for the file that is being written.
        ledger: Records the files of this load.
        load_id: A name unique among all loads of all collections: letters, digits, ``-`` and ``_``.
        stage_at_server: The staging area as the server names it, if the name differs.
        stage_options: Options of fsspec for the staging area.
        partition: Partition to write to; the default one if None.
        file_bytes: Size of a file, in bytes of its columns in memory.
        progress: Called with ``importing`` or ``counting``, the rows so far, and the rows in closed files; its errors
            end the waiting.

    Raises:
        UsageError: If the load's name or the staging area cannot be used.
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
        file_bytes: int = FILE_BYTES,
        progress: Progress | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", load_id):
            raise UsageError(f"{load_id!r} cannot name a load: use letters, digits, - and _.")
        self._name = name
        self._fields = fields
        folder_name = f"alula-{load_id}"
        self._stage = StagingArea(stage, stage_at_server, folder_name, stage_options or {})
        self._tasks = ImportTasks(server, name, partition or "")
        self._importer = Importer(
            name,
            fields[0].name,
            tasks=self._tasks,
            stage=self._stage,
            ledger=ledger,
            folder=folder_name,
            progress=progress or silent,
        )
        self._path = folder / f"{folder_name}.parquet"
        self._file_bytes = file_bytes
        self._number = 0
        self._writer: ImportFileWriter | None = None
        self.bytes = 0  # written in this run

    def recover(self) -> Cursor | None:
        """Resume the files of an earlier run of this load.

        Returns:
            The cursor of the last row that need not be written again; None at the beginning.

        Raises:
            UsageError: If the collection contains rows before the first file.
            ServerError: If the server or the staging area fails, or has lost files.
        """
        self._path.unlink(missing_ok=True)
        self._importer.recover()
        last = self._importer.last
        if last is None and (there := self._tasks.count()):
            raise UsageError(
                f"{self._name!r} contains {there:,} rows already, and an import could only double rows; load with "
                'via="insert".'
            )
        self._number = 0 if last is None else last.number + 1
        return None if last is None else last.last

    def write(self, columns: Columns, first: Cursor, last: Cursor) -> None:
        """Write rows, after those of the last call.

        Args:
            columns: The fields' values, of one length.
            first: Cursor of the first row.
            last: Cursor of the last row.

        Raises:
            ServerError: If the server or the staging area fails.
        """
        with _disk_errors(self._path):
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = ImportFileWriter(self._path, self._fields, first)
            before = self._writer.bytes
            self._writer.write(columns, last)
        self.bytes += self._writer.bytes - before
        if self._writer.bytes >= self._file_bytes:
            self._close_file()

    def finish(self) -> int:
        """Import the last file, wait until all rows are visible, remove the files.

        Returns:
            The rows imported, including earlier runs.

        Raises:
            ServerError: If the server cannot import a file, with its reason; or if it ends with another number of rows.
        """
        self._close_file()
        self._importer.wait(0)
        self._importer.wait_until_visible()
        self._stage.remove()
        return self._importer.rows

    def _close_file(self) -> None:
        if self._writer is None:
            return
        written, number = self._writer, self._number
        with _disk_errors(self._path):
            written.close()
        # A file of that name may be there, from a run that ended before the next step: no server was asked to read it.
        path = self._stage.upload(self._path, f"{number:06d}.0.parquet")
        file = ImportFile(number, written.first, written.last, written.rows, path, written=time.time())
        self._importer.record(file)
        self._number += 1
        self._path.unlink()
        self._writer = None
        self._importer.wait(IN_FLIGHT - 1)
        self._importer.submit(file, in_doubt=False)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServerError(f"The file {path} cannot be written: {error}; make room there and load again.") from error
