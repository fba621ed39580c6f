"""JSON lines, parsed in blocks by Arrow; lines that do not fit are bad rows."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from alula.sources.columns import is_text, is_vector
from alula.sources.declared_types import DYNAMIC, json_value
from alula.sources.json_values import DOCUMENT, read_members
from alula.sources.locations import File, first_line
from alula.sources.reading import Piece, Wanted

_BLOCK = 4 << 20  # bytes that are parsed at once; the columns and their types are those of the first block
_LONGEST = 16 << 20  # bytes of a line
_DEEPEST = 64  # brackets in brackets: Arrow ends the process over many thousand
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPENING, _CLOSING = list(b"[{"), list(b"]}")


class JsonLinesReader:
    """A file of JSON lines; see `Reader`.

    Columns without a declared type that are only null in the first block are left out. Where a type is declared for
    `DYNAMIC`, they are documents, which differ from row to row.
    """

    def __init__(self, file: File, wanted: Wanted) -> None:
        self.file = file
        self.column: str | None = None
        self.shape: tuple[int, ...] | None = None
        self.rows: int | None = None
        self._exact = False
        self.schema = wanted.like or self._infer(wanted)
        self._types = {
            field.name: field.type for field in self.schema if field.name in wanted.types or field.type == DOCUMENT
        }
        self._exact = self._exact or DOCUMENT in self._types.values()

    def _infer(self, wanted: Wanted) -> pa.Schema:
        lines = next(_blocks(self._lines(), _BLOCK), [])
        parts = list(_parts(lines, None))
        parsed = [part for part in parts if isinstance(part, pa.RecordBatch)]
        if not parsed:
            raise ValueError(next((part[1] for part in parts if isinstance(part, tuple)), "it holds no rows"))
        found = _common_types(parsed)
        types = dict(wanted.types)
        if DYNAMIC in types:
            fits = is_vector if wanted.input == "vectors" else is_text
            inputs = [wanted.column] if wanted.column else [name for name, kind in found.items() if fits(kind)]
            types = {name: DOCUMENT for name in found if name not in inputs} | types
        fields = [
            pa.field(name, types.get(name) or _plain(kind))
            for name, kind in found.items()
            if name in types or not pa.types.is_null(kind)
        ]
        # Arrow's reader fits neither documents nor numbers in a column of texts into a schema
        self._exact = any(_is_converted(kind, types[name]) for name, kind in found.items() if name in types)
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
            piece = parse_lines(block, schema, self._types, exact=self._exact)
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


def parse_lines(
    lines: Sequence[bytes],
    schema: pa.Schema,
    types: Mapping[str, pa.DataType] | None = None,
    *,
    exact: bool = False,
) -> Piece:
    """Parse lines of JSON into a record with a row for each; misfits are bad rows.

    Args:
        lines: The lines.
        schema: The columns.
        types: Declared types of columns, which are converted exactly.
        exact: Convert every line so, since Arrow would refuse most of them.
    """
    nothing = [pa.nulls(1, field.type) for field in schema]
    types = types or {}
    bad: dict[int, str] = {}
    records = []
    row = 0
    for part in _parts(lines, schema, types, exact=exact):
        record, why = part if isinstance(part, tuple) else (part, None)
        if record is None:
            record = pa.RecordBatch.from_arrays(nothing, schema=schema)
        if why is not None:
            bad[row] = why
        records.append(record)
        row += record.num_rows
    (record,) = pa.Table.from_batches(records).combine_chunks().to_batches()
    return Piece(record, bad)


def _parts(
    lines: Sequence[bytes],
    schema: pa.Schema | None,
    types: Mapping[str, pa.DataType] | None = None,
    *,
    exact: bool = False,
) -> Iterator[pa.RecordBatch | tuple[pa.RecordBatch | None, str | None]]:
    """Parse lines together where possible, and misfits alone, with the reason."""
    if not lines:
        return
    if exact:
        try:
            yield _convert(lines, schema, types or {})
        except (pa.ArrowException, ValueError, RecursionError):
            yield from (_parse_exactly(line, schema, types or {}) for line in lines)
        return
    try:
        yield _parse(lines, schema)
    except (pa.ArrowException, ValueError) as error:
        if len(lines) == 1:
            yield _parse_exactly(lines[0], schema, types) if schema and types else (None, _reason(error))
            return
        half = len(lines) // 2
        yield from _parts(lines[:half], schema, types)
        yield from _parts(lines[half:], schema, types)


def _undeclared(lines: Sequence[bytes], schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """The columns without a declared type, which Arrow parses."""
    others = pa.schema([field for field in schema if field.name not in types])
    return _parse(lines, others) if len(others) else pa.record_batch({})


def _convert(lines: Sequence[bytes], schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Parse lines; the values of declared columns are converted one by one.

    Raises:
        pa.ArrowException, ValueError, RecursionError: If a line does not fit.
    """
    record = _undeclared(lines, schema, types)
    objects = [read_members(line, types) for line in lines]
    arrays = [
        pa.array([json_value(one.get(field.name), field.type) for one in objects], field.type)
        if field.name in types
        else record.column(field.name)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _parse_exactly(
    line: bytes, schema: pa.Schema, types: Mapping[str, pa.DataType]
) -> tuple[pa.RecordBatch | None, str | None]:
    """Parse one line; its declared columns are converted one by one."""
    try:
        check_depth(line)
        values = read_members(line, types)
        record = _undeclared([line], schema, types)
    except (pa.ArrowException, ValueError, RecursionError) as error:
        return None, _reason(error)
    arrays, why = [], None
    for field in schema:
        if field.name not in types:
            arrays.append(record.column(field.name))
            continue
        value = None
        try:
            value = json_value(values.get(field.name), field.type)
        except ValueError as error:
            why = why or f"{error} in the column {field.name!r}"
        arrays.append(pa.array([value], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema), why


def check_depth(line: bytes) -> None:
    """Raise a `ValueError` for a line of JSON that is nested too deeply."""
    if line.count(b"[") + line.count(b"{") <= _DEEPEST:
        return
    characters = np.frombuffer(_TEXT.sub(b"", line), np.uint8)
    steps = np.isin(characters, _OPENING).astype(np.int64) - np.isin(characters, _CLOSING)
    if steps.cumsum().max(initial=0) > _DEEPEST:
        raise ValueError(f"JSON that is nested more than {_DEEPEST} deep")


def _reason(error: Exception) -> str:
    return first_line(error).removesuffix(" in row 0").replace("JSON parse error", "JSON that does not fit")


def _is_converted(found: pa.DataType, declared: pa.DataType) -> bool:
    """True if Arrow cannot read values of the found type as the declared one."""
    if pa.types.is_list(found) and pa.types.is_list(declared):
        return _is_converted(found.value_type, declared.value_type)
    texts = pa.types.is_string(found) or pa.types.is_temporal(found) or pa.types.is_null(found)
    return bool(declared == DOCUMENT or (pa.types.is_string(declared) and not texts))


def _common_types(records: Sequence[pa.RecordBatch]) -> dict[str, pa.DataType]:
    """The types of all columns; without a common one, that of the longest record."""
    schemas = list(dict.fromkeys(record.schema for record in sorted(records, key=len, reverse=True)))
    found: dict[str, pa.DataType] = {}
    for name in dict.fromkeys(name for schema in schemas for name in schema.names):
        fields = [schema.field(name) for schema in schemas if name in schema.names]
        try:
            (field,) = pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive")
        except pa.ArrowException:
            field = fields[0]
        found[name] = field.type
    return found


def _parse(lines: Sequence[bytes], schema: pa.Schema | None) -> pa.RecordBatch:
    for line in lines:
        check_depth(line)
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
    """Replace times by strings and lists of integers by lists of floats."""
    if pa.types.is_list(data_type):
        value = data_type.value_type
        whole = pa.types.is_integer(value) or pa.types.is_null(value)
        return pa.list_(pa.float64() if whole else _plain(value))
    if pa.types.is_struct(data_type):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in data_type])
    return pa.string() if pa.types.is_temporal(data_type) or pa.types.is_null(data_type) else data_type
