"""Text files: each line is a text."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted

_BLOCK = 4 << 20  # characters that are read at once
_LONGEST = 16 << 20  # characters of a line


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
            lines = _lines(file)
            for _ in itertools.islice(lines, skip):
                rows += 1
            while texts := _block(lines, size):
                yield Piece(pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], schema=self.schema))
                rows += len(texts)
        self.rows = rows


def _lines(file: io.TextIOBase) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST), ""), 1):
        if len(line) == _LONGEST:
            raise ValueError(f"line {number} is longer than {_LONGEST >> 20} MB")
        yield line.removesuffix("\n")


def _block(lines: Iterator[str], size: int) -> list[str]:
    block: list[str] = []
    length = 0
    for line in itertools.islice(lines, size):
        block.append(line)
        length += len(line)
        if length >= _BLOCK:
            break
    return block
