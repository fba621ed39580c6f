"""Deliver encoded batches to Milvus, and acknowledge them in the journal."""

from __future__ import annotations

from typing import Protocol

from alula.ingest.journal import Acknowledgement, Journal
from alula.ingest.monitor import LoadMonitor
from alula.ingest.rpc_sink import RpcSink
from alula.milvus import Columns


class Delivery(Protocol):
    """Takes batches from several threads at a time."""

    def deliver(self, number: int, columns: Columns, rows: int, done: Acknowledgement) -> int:
        """Write a batch, and acknowledge it in the journal once none of it can be lost.

        Args:
            number: As `Journal.acknowledge`.
            columns: The rows.
            rows: Their number; may be 0.
            done: The acknowledgement.

        Returns:
            Bytes written.
        """
        ...

    def finish(self, monitor: LoadMonitor) -> None:
        """Return when all delivered rows can be searched."""
        ...

    def stop(self) -> None:
        """End all waiting."""
        ...


class CallDelivery:
    """Writes batches with calls to Milvus, in any order.

    Args:
        sink: Makes the calls.
        journal: Records each batch that Milvus has acknowledged.
        replace: True if rows may be in the collection already.
    """

    def __init__(self, sink: RpcSink, journal: Journal, *, replace: bool) -> None:
        self._sink = sink
        self._journal = journal
        self._replace = replace

    def deliver(self, number: int, columns: Columns, rows: int, done: Acknowledgement) -> int:
        """See `Delivery`."""
        size = 0
        if rows:
            in_doubt = self._journal.in_doubt(done.span)
            written = self._sink.write(columns, replace=self._replace or in_doubt)
            if in_doubt or written.doubtful:
                self._journal.doubt(done.span)
            size = written.bytes
        self._journal.acknowledge(number, done)
        return size

    def finish(self, monitor: LoadMonitor) -> None:
        """See `Delivery`; acknowledged rows can be searched."""

    def stop(self) -> None:
        """See `Delivery`; the limiter ends the waiting."""
