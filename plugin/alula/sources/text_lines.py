"""Text files: each line is a text."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted


class TextLinesReader:
    """A text file in UTF-8 with a text in each line; see `Reader`."""

    def __init__(self, file: File, wanted: Wanted) -> None:
        self.file = file
        self.column: str | None = wanted.column or "text"
        self.schema = pa.schema([(self.column, pa.string())])
        self.rows: int | None = None
        self.shape: tuple[int, ...] | None = None

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:  # noqa: ARG002
        """See `Reader`."""
        rows = 0
        with io.TextIOWrapper(self.file.open(), encoding="utf-8-sig") as file:
            for _ in itertools.islice(file, skip):
                rows += 1
            while texts := [line.removesuffix("\n") for line in itertools.islice(file, size)]:
                yield Piece(pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], schema=self.schema))
                rows += len(texts)
        self.rows = rows
