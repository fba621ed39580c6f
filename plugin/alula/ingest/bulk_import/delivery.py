"""Deliver batches as files of a bulk import, and acknowledge them file by file."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

from alula.ingest.bulk_import.import_file import ImportFile
from alula.ingest.bulk_import.sink import ImportSink
from alula.ingest.journal import Acknowledgement, Journal
from alula.ingest.monitor import LoadMonitor
from alula.milvus import Columns
from alula.milvus.retrying import StoppedError


class ImportLedger:
    """The files of a bulk import in the journal of its load.

    A batch is lost with the process as long as its file is not closed. So it is acknowledged together with its file.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._unacknowledged: list[tuple[int, Acknowledgement]] = []

    def files(self) -> list[ImportFile]:
        """The recorded files, by number."""
        rows = self._journal.file.rows("SELECT part FROM parts ORDER BY number")
        return [ImportFile(**json.loads(row[0])) for row in rows]

    def add(self, number: int, done: Acknowledgement) -> None:
        """Acknowledge a batch together with the next file."""
        self._unacknowledged.append((number, done))

    def record(self, file: ImportFile) -> None:
        """Record a file and acknowledge its batches, on disk when this returns."""
        with self._journal.together():
            row = (file.number, json.dumps(dataclasses.asdict(file)))
            self._journal.file.change("INSERT OR REPLACE INTO parts VALUES (?, ?)", row)
            self.acknowledge()

    def acknowledge(self) -> None:
        """Acknowledge the batches that were added."""
        for number, done in self._unacknowledged:
            self._journal.acknowledge(number, done)
        self._unacknowledged = []


class ImportDelivery:
    """Writes batches into the files of a bulk import, in their order.

    See `alula.ingest.delivery.Delivery`.

    Args:
        sink: Writes and imports the files, after `ImportSink.recover`.
        ledger: Records them; the sink calls its `record`.
        stopping: Set when the load is being stopped.
    """

    def __init__(self, sink: ImportSink, ledger: ImportLedger, stopping: threading.Event) -> None:
        self._sink = sink
        self._ledger = ledger
        self._stopping = stopping
        self._next = 0
        self._turn = threading.Condition()

    def deliver(self, number: int, columns: Columns, rows: int, done: Acknowledgement) -> int:
        """See `Delivery`."""
        with self._turn:
            self._turn.wait_for(lambda: self._next == number or self._stopping.is_set())
            if self._stopping.is_set():
                raise StoppedError("Stopped.")
            try:
                self._ledger.add(number, done)
                before = self._sink.bytes
                if rows:
                    self._sink.write(columns, *done.span)
                self._next += 1
                return self._sink.bytes - before
            finally:
                self._turn.notify_all()

    def finish(self, monitor: LoadMonitor) -> None:
        """Import the last file, and wait until all rows can be searched."""
        monitor.enter("importing")
        began = time.perf_counter()
        self._sink.finish()
        monitor.busy["importing"] = time.perf_counter() - began
        self._ledger.acknowledge()  # batches without rows, after the last file

    def stop(self) -> None:
        """See `Delivery`."""
        self._stopping.set()
        if self._turn.acquire(blocking=False):  # else a thread works in its turn, and notifies the next
            self._turn.notify_all()
            self._turn.release()
