"""JSON lines: an object in each line, parsed in blocks by Arrow; a line that does not fit is a bad row."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.json as pj

from alula.sources.locations import File, first_line
from alula.sources.reading import Piece, Wanted

_BLOCK = 4 << 20  # bytes that are parsed at once; the columns and their types are those of the first block
_LONGEST = 64 << 20  # bytes of a line


class JsonLinesReader:
    """A file of JSON lines; see `Reader`. Columns that are only null in the first block are left out."""

    def __init__(self, file: File, wanted: Wanted) -> None:
        self.file = file
        self.column: str | None = None
        self.shape: tuple[int, ...] | None = None
        self.rows: int | None = None
        self.schema = wanted.like or self._infer()

    def _infer(self) -> pa.Schema:
        lines = next(_blocks(self._lines(), _BLOCK), [])
        parsed = [part for part in _parts(lines, None) if isinstance(part, pa.RecordBatch)]
        if not parsed:
            why = next((part for part in _parts(lines[:1], None) if isinstance(part, str)), "it holds no rows")
            raise ValueError(why)
        try:
            schema = pa.unify_schemas([part.schema for part in parsed], promote_options="permissive")
        except pa.ArrowException:
            schema = max(parsed, key=len).schema
        fields = [pa.field(field.name, _plain(field.type)) for field in schema if not pa.types.is_null(field.type)]
        return pa.schema(fields)

    def _lines(self) -> Iterator[bytes]:
        with self.file.open() as file:
            lines = iter(lambda: file.readline(_LONGEST), b"")
            for number, line in enumerate(lines):
                if len(line) == _LONGEST:
                    raise ValueError(f"line {number + 1} is longer than {_LONGEST >> 20} MB")
                if number == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901
                if line.strip():
                    yield line

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`; the lines that are skipped are not parsed."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        rows = 0
        lines = self._lines()
        for _ in itertools.islice(lines, skip):
            rows += 1
        for block in _blocks(lines, _BLOCK, size):
            piece = parse_lines(block, schema)
            if len(block) - 1 in piece.bad and not block[-1].endswith(b"\n"):
                raise ValueError(f"its last line breaks off, so it is truncated: {piece.bad[len(block) - 1]}")
            yield piece
            rows += len(block)
        self.rows = rows


def _blocks(lines: Iterator[bytes], most: int, rows: int | None = None) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    length = 0
    for line in lines:
        block.append(line)
        length += len(line)
        if length >= most or len(block) == rows:
            yield block
            block, length = [], 0
    if block:
        yield block


def parse_lines(lines: Sequence[bytes], schema: pa.Schema) -> Piece:
    """Lines of JSON as a record with a row for each; what does not fit the schema is a bad row of nulls."""
    nothing = [pa.nulls(1, field.type) for field in schema]
    bad: dict[int, str] = {}
    records = []
    row = 0
    for part in _parts(lines, schema):
        record = pa.RecordBatch.from_arrays(nothing, schema=schema) if isinstance(part, str) else part
        if isinstance(part, str):
            bad[row] = part
        records.append(record)
        row += record.num_rows
    (record,) = pa.Table.from_batches(records).combine_chunks().to_batches()
    return Piece(record, bad)


def _parts(lines: Sequence[bytes], schema: pa.Schema | None) -> Iterator[pa.RecordBatch | str]:
    """Records of as many lines as can be parsed together, and for each of the others what is wrong with it."""
    if not lines:
        return
    try:
        yield _parse(lines, schema)
    except (pa.ArrowException, ValueError) as error:
        if len(lines) == 1:
            yield first_line(error).removesuffix(" in row 0").replace("JSON parse error", "JSON that does not fit")
            return
        half = len(lines) // 2
        yield from _parts(lines[:half], schema)
        yield from _parts(lines[half:], schema)


def _parse(lines: Sequence[bytes], schema: pa.Schema | None) -> pa.RecordBatch:
    if not all(line.lstrip().startswith(b"{") for line in lines):  # Arrow 26 crashes over a line that says null
        raise ValueError("a line that is no JSON object")
    content = b"\n".join(lines)
    table = pj.read_json(
        io.BytesIO(content),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=pj.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer"
        ),
    )
    if table.num_rows != len(lines):
        raise ValueError("several JSON objects in one line")
    if schema is not None:
        table = table.select(schema.names)
    (record,) = table.combine_chunks().to_batches()
    return record


def _plain(data_type: pa.DataType) -> pa.DataType:
    """The type without what Arrow reads into strings (times), and with room for fractions in lists of numbers."""
    if pa.types.is_list(data_type):
        value = data_type.value_type
        whole = pa.types.is_integer(value) or pa.types.is_null(value)
        return pa.list_(pa.float64() if whole else _plain(value))
    if pa.types.is_struct(data_type):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in data_type])
    return pa.string() if pa.types.is_temporal(data_type) or pa.types.is_null(data_type) else data_type
