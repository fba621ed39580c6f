"""From encoded batches to acknowledged ones: how each sink is told of a batch, and when the journal is."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alula.ingest.bulk_import.sink import ImportSink
from alula.ingest.journal import Acknowledgement, Journal
from alula.ingest.rpc_sink import RpcSink
from alula.milvus import Columns
from alula.milvus.retrying import StoppedError


class Delivery(Protocol):
    """Takes batches from several threads at a time."""

    def deliver(self, number: int, columns: Columns, rows: int, what: Acknowledgement) -> int:
        """Write a batch, and acknowledge it in the journal once nothing can be lost of it.

        Args:
            number: As `Journal.acknowledge`.
            columns: The rows.
            rows: How many there are; there may be none.
            what: What to acknowledge.

        Returns:
            Bytes written.
        """
        ...

    def stop(self) -> None:
        """Let no thread wait any longer."""
        ...

    def shares(self, seconds: float) -> dict[str, float]:
        """As `Pipeline.shares`, for what this does behind the pipeline."""
        ...


class CallDelivery:
    """Writes batches with calls to Milvus, in any order.

    Args:
        sink: Makes the calls.
        journal: Is told of each batch that Milvus has acknowledged.
        replace: Whether rows may be in the collection already.
    """

    def __init__(self, sink: RpcSink, journal: Journal, *, replace: bool) -> None:
        self._sink = sink
        self._journal = journal
        self._replace = replace

    def deliver(self, number: int, columns: Columns, rows: int, what: Acknowledgement) -> int:
        """See `Delivery`."""
        size = 0
        if rows:
            in_doubt = self._journal.in_doubt(what.span)
            sent = self._sink.write(columns, replace=self._replace or in_doubt)
            if in_doubt or sent.doubtful:
                self._journal.doubt(what.span)
            size = sent.bytes
        self._journal.acknowledge(number, what)
        return size

    def stop(self) -> None:
        """See `Delivery`; the pace ends the waiting."""

    def shares(self, seconds: float) -> dict[str, float]:
        """See `Delivery`."""
        del seconds
        return {}


class ImportDelivery:
    """Writes batches into the files of a bulk import, in their order; the ledger of its sink.

    A batch is lost with the process as long as its file is not closed. So it is acknowledged together with its file.

    Args:
        journal: Is told of each file, and of the batches in it.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._next = 0
        self._turn = threading.Condition()
        self._stopped = False
        self.finishing = False
        self._importing = 0.0  # seconds
        self._written: list[tuple[int, Acknowledgement]] = []
        self.sink: ImportSink  # which needs this as its ledger

    def parts(self) -> Sequence[Mapping[str, Any]]:
        """See `alula.ingest.bulk_import.import_file.Ledger`."""
        return self._journal.parts()

    def record_part(self, number: int, part: Mapping[str, Any]) -> None:
        """See `alula.ingest.bulk_import.import_file.Ledger`."""
        with self._journal.together():
            self._journal.record_part(number, part)
            for batch, what in self._written:
                self._journal.acknowledge(batch, what)
        self._written = []

    def deliver(self, number: int, columns: Columns, rows: int, what: Acknowledgement) -> int:
        """See `Delivery`."""
        with self._turn:
            self._turn.wait_for(lambda: self._next == number or self._stopped)
            if self._stopped:
                raise StoppedError("Stopped.")
            try:
                self._written.append((number, what))
                before = self.sink.bytes
                if rows:
                    self.sink.write(columns, *what.span)
                self._next += 1
                return self.sink.bytes - before
            finally:
                self._turn.notify_all()

    def finish(self) -> None:
        """Import what is left, and wait until all rows are there."""
        self.finishing = True
        began = time.perf_counter()
        self.sink.finish()
        self._importing = time.perf_counter() - began
        for batch, what in self._written:  # those without rows, behind the last file
            self._journal.acknowledge(batch, what)
        self._written = []

    def shares(self, seconds: float) -> dict[str, float]:
        """See `Delivery`."""
        return {"importing": self._importing / seconds}

    def check(self) -> None:
        """Raise a `StoppedError` when the load is being stopped; for whoever waits within `deliver`."""
        if self._stopped:
            raise StoppedError("Stopped.")

    def stop(self) -> None:
        """See `Delivery`."""
        self._stopped = True
        if self._turn.acquire(blocking=False):  # else a thread works in its turn, and tells the next
            self._turn.notify_all()
            self._turn.release()
