"""Some consecutive rows of a source whose cursors are numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pyarrow as pa

from alula.sources.base import Batch, Cursor, Source


class SourceSlice:
    """The rows `first` to `last` of a source, with their numbers, as a source.

    Args:
        source: The source. Where its cursors are row numbers, a part may begin and end anywhere; where they are keys,
            only where a batch does.
        first: Cursor of the first row.
        last: Cursor of the last row.
    """

    def __init__(self, source: Source, first: int, last: int) -> None:
        self.name = source.name
        self.input = source.input
        self.scalars = source.scalars
        self.dim = source.dim
        self.unique = source.unique
        self.fingerprint = source.fingerprint
        self.rows: int | None = None
        self._source = source
        self._first = first
        self._last = last

    def batches(self, size: int, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:
        """See `Source.batches`."""
        begin = self._first if after is None else max(self._first, int(after) + 1)
        for batch in self._source.batches(size, after=begin - 1 if begin else None, start=start or begin):
            first, last = map(int, batch.span)
            if first <= self._last:
                yield batch if last <= self._last else _head(batch, self._last + 1 - first)
            if last >= self._last:
                return

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:
        """See `Source.keys`."""
        for batch in self.batches(size):
            yield batch.columns[column]


def _head(batch: Batch, rows: int) -> Batch:
    """The first rows of a batch."""
    return dataclasses.replace(
        batch,
        inputs=batch.inputs[:rows],
        columns={name: column[:rows] for name, column in batch.columns.items()},
        bad={row: why for row, why in batch.bad.items() if row < rows},
        record=None if batch.record is None else batch.record.slice(0, rows),
        last=None,
    )
