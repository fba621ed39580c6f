"""Write encoded rows into a collection with Milvus's insert call, in requests of a size that suits the engines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from alula.index_types import Column
from alula.servers import Server, any_of, deletable, delete_rows, milvus_errors

# Milvus refuses requests over 64 MB, and Milvus Lite 2.5 slows down 60-fold above 4 MB; about 1.5 MB was fastest.
REQUEST_BYTES = 1_500_000


class InsertSink:
    """Writes rows into one collection.

    Args:
        server: The connected server.
        name: The collection.
        primary_key: Name of its primary key field.
        partition: Partition to write to; the default one if None.
        replace: Whether rows may be there already, to be replaced. Insert alone would double them.
    """

    def __init__(self, server: Server, name: str, primary_key: str, partition: str | None, *, replace: bool) -> None:
        self._server = server
        self._name = name
        self._primary_key = primary_key
        self._partition = {"partition_name": partition} if partition else {}
        self._replace = replace
        self.written = 0
        self.replaced = 0

    def write(self, columns: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write rows given by columns of one length, the primary key among them.

        Raises:
            ServerError: If Milvus refuses them; `written` says how many rows were acknowledged before.
        """
        with milvus_errors(f"write rows into {self._name!r}"):
            for rows in _requests(columns):
                if self._replace:
                    self._write_over(rows)
                else:
                    self._server.client.insert(self._name, rows, **self._partition)
                self.written += len(rows)

    def _write_over(self, rows: list[dict[str, Any]]) -> None:
        client = self._server.client
        same = any_of(self._primary_key, [row[self._primary_key] for row in rows])
        there = client.query(self._name, filter=same, output_fields=[self._primary_key], consistency_level="Strong")
        self.replaced += len(there)
        if not self._server.embedded:
            client.upsert(self._name, rows, **self._partition)
            return
        # Milvus Lite 2.5's upsert is a delete that fails on some ids, with no word of why
        ids = [row[self._primary_key] for row in there]
        unchanged = self._unchanged(rows, [id_ for id_ in ids if not deletable(self._server, id_)])
        delete_rows(self._server, self._name, self._primary_key, [id_ for id_ in ids if id_ not in unchanged])
        rows = [row for row in rows if row[self._primary_key] not in unchanged]
        if rows:
            client.insert(self._name, rows, **self._partition)

    def _unchanged(self, rows: list[dict[str, Any]], ids: Sequence[Any]) -> set[Any]:
        """Those of the ids whose rows are stored as they would be written, so that a broken load can be repeated."""
        if not ids:
            return set()
        key = self._primary_key
        filter_ = any_of(key, ids)
        stored = self._server.client.query(self._name, filter=filter_, output_fields=["*"])
        wanted = {row[key]: row for row in rows}
        return {
            old[key]
            for old in stored
            if all(_plain(old.get(name)) == _plain(v) for name, v in wanted[old[key]].items())
        }


def _plain(value: Any) -> Any:
    """A value as it compares equal whether it is to be written or was read: a vector's numbers, or its bytes."""
    if isinstance(value, list | np.ndarray):
        first = value[0] if len(value) else None
        return first if isinstance(first, bytes) else np.asarray(value, np.float32).tolist()
    return value


def _requests(columns: Mapping[str, Sequence[Any] | Column]) -> Iterator[list[dict[str, Any]]]:
    """Row dictionaries as pymilvus takes them, in lists of about `REQUEST_BYTES`."""
    names = list(columns)
    values = [_values(column) for column in columns.values()]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    if not rows:
        return
    sample = rows[:: max(1, len(rows) // 16)]
    size = sum(_bytes(value) for row in sample for value in row.values()) / len(sample)
    step = max(1, int(REQUEST_BYTES / size))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _values(column: Sequence[Any] | Column) -> Sequence[Any]:
    """One value per row, as pymilvus takes them."""
    if sp.issparse(column):
        dims, weights = column.indices.tolist(), column.data.tolist()  # type: ignore[union-attr]
        bounds = column.indptr.tolist()  # type: ignore[union-attr]
        return [dict(zip(dims[a:b], weights[a:b], strict=True)) for a, b in itertools.pairwise(bounds)]
    if isinstance(column, np.ndarray):
        if column.ndim == 1:
            return list(column.tolist())
        if column.dtype == np.uint8:
            return [row.tobytes() for row in column]
        return list(column)
    return column


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return 8 * len(value)
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value) if isinstance(value, bytes) else 4 * len(value) if isinstance(value, list) else 8
