"""Write encoded rows into a collection with Milvus's insert and upsert calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alula.index_types import FieldSpec
from alula.ingest.compare_rows import same_rows
from alula.milvus import Columns, Server, any_of, delete_rows, send, slices, write_request
from alula.milvus.reading import count_rows
from alula.milvus.retrying import RateLimiter


@dataclass(frozen=True)
class WriteResult:
    """The result of a write.

    Args:
        bytes: Bytes of the requests.
        doubtful: True if an answer was lost, so that rows may have been written more than once.
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
        limiter: Limits the calls at a time, and repeats failing ones.
    """

    def __init__(
        self, server: Server, name: str, fields: Sequence[FieldSpec], partition: str | None, limiter: RateLimiter
    ) -> None:
        self._server = server
        self._name = name
        self._fields = fields
        self._key = fields[0].name
        self._partition = partition or ""
        self._limiter = limiter

    def write(self, columns: Columns, *, replace: bool) -> WriteResult:
        """Write rows; returns when Milvus has acknowledged all of them.

        Args:
            columns: The fields' values, of one length.
            replace: True if rows may be there already, to be replaced; a plain insert would double them.

        Raises:
            ServerError: If Milvus refuses them for good; some may have been written.
            StoppedError: If the limiter was stopped.
        """
        size, doubtful = 0, False
        for start, stop in slices(columns, self._fields):

            def call(in_doubt: bool, start: int = start, stop: int = stop) -> None:
                nonlocal size, doubtful
                doubtful |= in_doubt
                over = replace or in_doubt
                if over and not self._server.dialect.upserts:
                    size += self._write_over(columns, start, stop)
                else:
                    size += self._send(columns, start, stop, upsert=over)

            self._limiter.run(f"write rows into {self._name!r}", call)
        return WriteResult(size, doubtful)

    def _send(self, columns: Columns, start: int, stop: int, *, upsert: bool) -> int:
        request = write_request(
            self._name, columns, self._fields, start, stop, partition=self._partition, upsert=upsert
        )
        send(self._server, request, CALL_SECONDS)
        return int(request.ByteSize())

    def _write_over(self, columns: Columns, start: int, stop: int) -> int:
        # Milvus Lite 2.5's upsert is a delete that fails silently on some ids
        keys = list(columns[self._key][start:stop])
        there = set(self.present(keys))
        unchanged = self._unchanged(columns, start, [id_ for id_ in there if not self._server.dialect.can_delete(id_)])
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
        """The given keys that are in the collection."""
        return [row[self._key] for row in self._rows_with(keys, self._key)]

    def count_of(self, keys: Sequence[Any]) -> int:
        """The number of rows with one of the keys: more than keys if rows were doubled."""
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
        """The ids whose rows are stored as they would be written."""
        if not ids:
            return set()
        position = {id_: start + i for i, id_ in enumerate(columns[self._key][start:])}
        stored = self._server.client.query(self._name, filter=any_of(self._key, ids), output_fields=["*"])
        return {
            row[self._key] for row in stored if same_rows(row, columns, position[row[self._key]], self._fields) is None
        }
