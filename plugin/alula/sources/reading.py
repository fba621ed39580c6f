"""The interface of readers: pieces of files as Arrow records, regrouped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from alula.encoders import Input
from alula.sources.locations import File
from alula.sources.row_bytes import BATCH_BYTES, row_bytes


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of one file.

    Args:
        record: The rows.
        bad: Why rows could not be read, by their position; such a row has nulls in the record.
    """

    record: pa.RecordBatch
    bad: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.record.num_rows)

    def slice(self, start: int, length: int | None = None) -> Piece:
        """Some of the rows, without a copy."""
        record = self.record.slice(start, length)
        stop = start + record.num_rows
        return Piece(record, {row - start: why for row, why in self.bad.items() if start <= row < stop})


@dataclass(frozen=True)
class Wanted:
    """The kind and columns to read from files.

    Args:
        input: The kind of the rows.
        column: The column that holds the vectors or texts, if the user named it.
        image_shape: (height, width, channels) that images must have, if it is known.
        like: The schema of the first of several files, for formats without types.
        types: The declared types of columns, for formats without types.
    """

    input: Input = "vectors"
    column: str | None = None
    image_shape: tuple[int, ...] | None = None
    like: pa.Schema | None = None
    types: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict)


class Reader(Protocol):
    """One file of a format; made by a `File` and what is `Wanted` of it.

    Attributes:
        file: The file.
        schema: Its columns.
        rows: The number of rows; None where it is not known before the file was read to its end.
        column: The column that holds the vectors, texts or images, where the format says so itself.
        shape: Of one image.
    """

    file: File
    schema: pa.Schema
    rows: int | None
    column: str | None
    shape: tuple[int, ...] | None

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """Read the rows after the first `skip`, in pieces of little memory.

        Args:
            skip: Rows to leave out.
            size: The most rows in a piece.
            columns: Read these columns alone.
        """
        ...


def regroup(pieces: Iterable[Piece], size: int) -> Iterator[Piece]:
    """The same rows in pieces of `size`, or fewer where they have `BATCH_BYTES`.

    A piece ends before the row with which it would have more; one row may have more alone. So the pieces after the end
    of one are the same if reading begins there.
    """
    held: list[Piece] = []
    rows, held_bytes = 0, 0
    for piece in pieces:
        at, sizes = 0, row_bytes(piece.record)
        while at < len(piece):
            ends = np.cumsum(sizes[at : at + size - rows])
            count = int(np.searchsorted(ends, BATCH_BYTES - held_bytes, "right"))
            if count == 0 and rows == 0:
                count = 1
            if count:
                held.append(piece.slice(at, count))
                rows, held_bytes, at = rows + count, held_bytes + int(ends[count - 1]), at + count
            if rows == size or count < len(ends):
                yield _joined(held)
                held, rows, held_bytes = [], 0, 0
    if held:
        yield _joined(held)


def _joined(pieces: Sequence[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    bad: dict[int, str] = {}
    start = 0
    for piece in pieces:
        bad |= {start + row: why for row, why in piece.bad.items()}
        start += len(piece)
    (record,) = pa.Table.from_batches([piece.record for piece in pieces]).combine_chunks().to_batches()
    return Piece(record, bad)


def behind(pieces: Iterable[Piece], skip: int) -> Iterator[Piece]:
    """The pieces without their first `skip` rows."""
    for piece in pieces:
        if skip >= len(piece):
            skip -= len(piece)
        else:
            yield piece.slice(skip) if skip else piece
            skip = 0


def read_pieces(
    readers: Sequence[Reader], first: int, size: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, Reader, Piece]]:
    """Read several files from the row number `first` on.

    Returns:
        For each piece the number of its first row, its reader and the piece.

    Raises:
        DataError: If a file is damaged; the message names the file and the row in it.
    """
    row = 0
    for reader in readers:
        if reader.rows is not None and row + reader.rows <= first:
            row += reader.rows
            continue
        skip = max(0, first - row)
        at = skip
        pieces = iter(regroup(reader.pieces(skip, size, columns), size))
        while True:
            with reader.file.reading(f"cannot be read past row {at}"):
                piece = next(pieces, None)
            if piece is None:
                break
            yield row + at, reader, piece
            at += len(piece)
        row += at if reader.rows is None else reader.rows
