"""Write encoded rows into a collection with Milvus's insert and upsert calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alula.index_types import FieldSpec
from alula.ingest.compare_rows import same_rows
from alula.milvus import Columns, Server, any_of, deletable, delete_rows, send, slices, write_request
from alula.milvus.reading import count_rows
from alula.milvus.retrying import RateLimiter


@dataclass(frozen=True)
class Sent:
    """What a write did.

    Args:
        bytes: Bytes of the requests.
        doubtful: Whether an answer was lost on the way, so that rows may have been written more than once.
    """

    bytes: int
    doubtful: bool


CALL_SECONDS = 60.0  # after which a call counts as lost
IDS_PER_QUERY = 1000  # keeps a filter far below the servers' limits


class RpcSink:
    """Writes rows into one collection, from several threads at a time.

    Args:
        server: The connected server.
        name: The collection.
        fields: Its fields, the primary key first.
        partition: Partition to write to; the default one if None.
        pace: How many calls run at a time, and how long a failing one is made again.
    """

    def __init__(
        self, server: Server, name: str, fields: Sequence[FieldSpec], partition: str | None, pace: RateLimiter
    ) -> None:
        self._server = server
        self._name = name
        self._fields = fields
        self._key = fields[0].name
        self._partition = partition or ""
        self._pace = pace

    def write(self, columns: Columns, *, replace: bool) -> Sent:
        """Write rows; returns when Milvus has acknowledged all of them.

        Args:
            columns: The fields' values, of one length.
            replace: Whether rows may be there already, to be replaced. A plain insert would double them.

        Raises:
            ServerError: If Milvus refuses them for good; some may have been written.
            StoppedError: If the pace was stopped meanwhile.
        """
        size, doubtful = 0, False
        for start, stop in slices(columns, self._fields):

            def call(in_doubt: bool, start: int = start, stop: int = stop) -> None:
                nonlocal size, doubtful
                doubtful |= in_doubt
                over = replace or in_doubt
                if over and self._server.embedded:
                    size += self._write_over(columns, start, stop)
                else:
                    size += self._send(columns, start, stop, upsert=over)

            self._pace.make(f"write rows into {self._name!r}", call)
        return Sent(size, doubtful)

    def _send(self, columns: Columns, start: int, stop: int, *, upsert: bool) -> int:
        request = write_request(
            self._name, columns, self._fields, start, stop, partition=self._partition, upsert=upsert
        )
        send(self._server, request, CALL_SECONDS)
        return int(request.ByteSize())

    def _write_over(self, columns: Columns, start: int, stop: int) -> int:
        # Milvus Lite 2.5's upsert is a delete that fails on some ids, with no word of why
        keys = list(columns[self._key][start:stop])
        there = set(self.present(keys))
        unchanged = self._unchanged(columns, start, [id_ for id_ in there if not deletable(self._server, id_)])
        delete_rows(self._server, self._name, self._key, sorted(there - unchanged))
        if not unchanged:
            return self._send(columns, start, stop, upsert=False)
        left = [start + i for i, id_ in enumerate(keys) if id_ not in unchanged]
        if not left:
            return 0
        some: dict[str, Any] = {}
        for name, column in columns.items():
            whole: Any = column
            some[name] = [whole[i] for i in left] if isinstance(whole, list) else whole[left]
        return self._send(some, 0, len(left), upsert=False)

    def present(self, keys: Sequence[Any]) -> list[Any]:
        """Those of the keys that rows in the collection have."""
        return [row[self._key] for row in self._rows_with(keys, self._key)]

    def count_of(self, keys: Sequence[Any]) -> int:
        """How many rows have one of the keys: more than there are keys when rows were doubled."""
        pieces = [keys[i : i + IDS_PER_QUERY] for i in range(0, len(keys), IDS_PER_QUERY)]
        return sum(count_rows(self._server, self._name, any_of(self._key, piece)) for piece in pieces)

    def _rows_with(self, keys: Sequence[Any], field: str) -> Iterator[Any]:
        """A field of the rows that have one of the keys."""
        for i in range(0, len(keys), IDS_PER_QUERY):
            filter_ = any_of(self._key, keys[i : i + IDS_PER_QUERY])
            yield from self._server.client.query(
                self._name, filter=filter_, output_fields=[field], consistency_level="Strong"
            )

    def _unchanged(self, columns: Columns, start: int, ids: Sequence[Any]) -> set[Any]:
        """Those of the ids whose rows are stored as they would be written, so that a broken load can be repeated."""
        if not ids:
            return set()
        position = {id_: start + i for i, id_ in enumerate(columns[self._key][start:])}
        stored = self._server.client.query(self._name, filter=any_of(self._key, ids), output_fields=["*"])
        return {
            row[self._key] for row in stored if same_rows(row, columns, position[row[self._key]], self._fields) is None
        }
