"""CSV files with a header; vectors are texts like ``[1, 2.5]``."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from alula.sources.declared_types import texts_of
from alula.sources.json_lines import parse_lines
from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted

_BLOCK = 4 << 20  # characters that are converted at once
_LONGEST = 16 << 20  # characters of a field
_LONGEST_ROW = 32 << 20
_FIELD = 16  # characters' worth of memory of an empty field
_SAMPLE = 1000  # rows that the types are those of
_MISSING = frozenset(("", "NA", "N/A", "null", "NULL", "None"))  # where no text is expected
_CODE = re.compile(r"[+-]?0[0-9xX]")  # 007 is a name, not a number
_TYPES = {pa.int64(): "whole numbers", pa.float64(): "numbers", pa.bool_(): "true or false"}
_VECTOR = pa.schema([("v", pa.list_(pa.float64()))])

Row = list[str] | str  # the fields, or what is wrong


class CsvReader:
    """A CSV file (a ``.tsv`` has tabs instead of commas); see `Reader`.

    Columns with a declared type are strings, to be converted exactly. Of the others, columns whose first values are all
    whole numbers, numbers, ``true`` and ``false``, or lists of numbers get that type; the rest are strings.
    """

    def __init__(self, file: File, wanted: Wanted) -> None:
        self.file = file
        self.column: str | None = None
        self.rows: int | None = None
        self.shape: tuple[int, ...] | None = None
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
        rows = self._rows()
        self._header = _checked(next(rows, []))
        self._types = {name: kind for name, kind in wanted.types.items() if name in self._header}
        if wanted.like is not None and set(wanted.like.names) == set(self._header):
            self.schema = pa.schema([wanted.like.field(name) for name in self._header])
            return
        sample: list[list[str]] = []
        length = 0
        for row in itertools.islice(rows, _SAMPLE):
            if not isinstance(row, str):
                sample.append(row)
                length += _FIELD * len(row) + sum(map(len, row))
            if length > _BLOCK:
                break
        values = zip(*sample, strict=True) if sample else ((),) * len(self._header)
        columns = zip(self._header, values, strict=True)
        self.schema = pa.schema(
            [(name, pa.string() if name in self._types else _infer(some)) for name, some in columns]
        )

    def _rows(self) -> Iterator[Row]:
        """The header and the rows."""
        delimiter = "\t" if ".tsv" in self.file.ending else ","
        width = None
        with io.TextIOWrapper(self.file.open(), encoding="utf-8-sig", newline="") as text:
            lines = _Lines(text)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                lines.begin_row(reader.line_num + 1)
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    if "end of data" in str(error):
                        raise ValueError("a quote is not closed, so the file is truncated or damaged") from None
                    yield f"no CSV ({error})"
                    continue
                if row is None:
                    return
                if not row:  # an empty line
                    continue
                width = width or len(row)
                yield row if len(row) == width else f"{len(row)} fields, where the header has {width}"

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`."""
        wanted = self._header if columns is None else columns
        count = 0
        block: list[Row] = []
        length = 0
        for count, row in enumerate(itertools.islice(self._rows(), 1, None), 1):
            if count > skip:
                block.append(row)
                length += _FIELD * len(row) + sum(map(len, row))
            if length >= _BLOCK or len(block) == size:
                yield self._piece(block, wanted)
                block, length = [], 0
        if block:
            yield self._piece(block, wanted)
        self.rows = count

    def _piece(self, rows: Sequence[Row], columns: Sequence[str]) -> Piece:
        bad = {i: row for i, row in enumerate(rows) if isinstance(row, str)}
        fields = [[""] * len(self._header) if isinstance(row, str) else row for row in rows]
        arrays = []
        for name in columns:
            position = self._header.index(name)
            values = [row[position] for row in fields]
            if name in self._types:
                arrays.append(texts_of(values, self._types[name], _MISSING))
                continue
            array, wrong = _convert(values, self.schema.field(name).type, name)
            arrays.append(array)
            bad = {**wrong, **bad}
        schema = pa.schema([self.schema.field(name) for name in columns])
        return Piece(pa.RecordBatch.from_arrays(arrays, schema=schema), bad)


class _Lines:
    """Lines of a text, those of one row bounded.

    Args:
        text: The text.
    """

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._number = 1
        self._length = 0

    def begin_row(self, number: int) -> None:
        """Begin a row, in the line of this number."""
        self._number, self._length = number, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST_ROW)
        self._length += len(line)
        if self._length >= _LONGEST_ROW:
            raise ValueError(f"the row at line {self._number} is longer than {_LONGEST_ROW >> 20} MB")
        if not line:
            raise StopIteration
        return line


def _checked(header: Row) -> list[str]:
    if isinstance(header, str) or not header:
        raise ValueError(header or "it holds no rows")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are named {twice!r}")
    return header


def _infer(values: Sequence[str]) -> pa.DataType:
    given = [value for value in values if value not in _MISSING]
    if given and all(value.lstrip().startswith("[") for value in given[:1]):
        vectors, _ = _convert(given[:1], _VECTOR.field("v").type, "")
        if vectors.null_count == 0:
            return vectors.type
    if not given or any(map(_CODE.match, given)):
        return pa.string()
    for data_type in _TYPES:
        try:
            pa.array(given).cast(data_type)
        except pa.ArrowInvalid:
            continue
        return data_type
    return pa.string()


def _convert(values: list[str], data_type: pa.DataType, name: str) -> tuple[pa.Array, dict[int, str]]:
    """Convert texts; misfits and missing values are null, misfits with a reason."""
    if pa.types.is_string(data_type):
        return pa.array(values, pa.string()), {}
    rows = [i for i, value in enumerate(values) if value not in _MISSING]
    given = [values[i] for i in rows]
    if data_type in _TYPES:
        array, wrong = _cast(given, data_type)
        what = _TYPES[data_type]
    else:
        lines = [b'{"v":%s}' % value.replace("\n", " ").encode() for value in given]
        piece = parse_lines(lines, _VECTOR) if lines else None
        array, wrong = (piece.record.column(0), list(piece.bad)) if piece else (pa.nulls(0, data_type), [])
        what = "lists of numbers"
    bad = {rows[i]: f"{_short(given[i])} in the column {name!r}, which holds {what}" for i in wrong}
    if len(rows) < len(values):
        places = [None] * len(values)
        for place, row in enumerate(rows):
            places[row] = place  # type: ignore[call-overload]
        array = array.take(pa.array(places, pa.int64()))
    return array, bad


def _cast(values: list[str], data_type: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Numbers or truth values, null where they are none, and where that is."""
    try:
        if pa.types.is_integer(data_type) and any(map(_CODE.match, values)):
            raise pa.ArrowInvalid
        return pa.array(values, pa.string()).cast(data_type), []
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, data_type), [0]
        half = len(values) // 2
        (left, wrong), (right, more) = _cast(values[:half], data_type), _cast(values[half:], data_type)
        return pa.concat_arrays([left, right]), [*wrong, *(half + i for i in more)]


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:37]}...")
