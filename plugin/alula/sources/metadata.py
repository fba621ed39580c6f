"""A table beside an array: its row i belongs to the vector or image i."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from alula.errors import DataError
from alula.sources.reading import Piece, Reader, read_pieces


class WithMetadata:
    """The columns of an array file and of the table beside it; see `Reader`.

    Args:
        arrays: The vectors or images.
        table: The readers of the table's files.
        name: The table in words.

    Raises:
        DataError: If the table has another number of rows, or a column of the same name; where the number is not known
            before, while reading.
    """

    def __init__(self, arrays: Reader, table: Sequence[Reader], name: str) -> None:
        self.file = arrays.file
        self.rows = arrays.rows
        self.column = arrays.column
        self.shape = arrays.shape
        self._arrays, self._table, self._name = arrays, table, name
        counts = [reader.rows for reader in table]
        if None not in counts:
            self._check(sum(count or 0 for count in counts))
        both = set(arrays.schema.names) & set(table[0].schema.names)
        if both:
            raise DataError(f"{arrays.file.name} and {name} both have a column {min(both)!r}; rename one of them.")
        self.schema = pa.schema([*arrays.schema, *table[0].schema])

    def _check(self, rows: int) -> None:
        if rows != self.rows:
            raise DataError(
                f"{self.file.name} has {self.rows:,} rows and {self._name} has {rows:,}; row i of the "
                "table must belong to row i of the file."
            )

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`."""
        names = self.schema.names if columns is None else columns
        of_arrays = [name for name in names if name in self._arrays.schema.names]
        of_table = [name for name in names if name not in of_arrays]
        rows = skip
        if not of_table:
            yield from self._arrays.pieces(skip, size, of_arrays)
            return
        # the table is read with all its columns or with those asked for; pieces of both fall where the smaller ends
        arrays = self._arrays.pieces(skip, size, of_arrays) if of_arrays else None
        held: Piece | None = None
        for _, _, piece in read_pieces(self._table, skip, size, of_table):
            rest = piece
            while len(rest):
                if arrays is None:
                    yield rest
                    rows += len(rest)
                    break
                if held is None or not len(held):
                    held = next(arrays, None)
                    if held is None:
                        self._check(rows + len(rest))
                        return
                length = min(len(held), len(rest))
                yield _beside(held.slice(0, length), rest.slice(0, length), names)
                held, rest = held.slice(length), rest.slice(length)
                rows += length
        self._check(rows)


def _beside(left: Piece, right: Piece, names: Sequence[str]) -> Piece:
    columns = {
        **dict(zip(left.record.schema.names, left.record.columns, strict=True)),
        **dict(zip(right.record.schema.names, right.record.columns, strict=True)),
    }
    return Piece(pa.RecordBatch.from_pydict({name: columns[name] for name in names}), {**right.bad, **left.bad})
