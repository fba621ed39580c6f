"""Files as a source: one reader per file, all with the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from alula.encoders import Input, Inputs
from alula.errors import DataError, UsageError
from alula.sources.base import Batch, Cursor
from alula.sources.columns import find_column, to_images, to_texts, to_vectors
from alula.sources.reading import Piece, Reader, Wanted, read_pieces


class FileSource:
    """Rows in files: a column of inputs and any scalar columns; see `Source`.

    Cursors are the numbers of rows, counted over all files.

    Args:
        name: The files in words.
        readers: A reader for each file, all of one format.
        wanted: The kind and columns to read.
        dim: Dimension of vectors, if the files do not state it; by default the length of the first.
        mapping: The column that a field is read from, for those that are named differently.
        fingerprint: A hash that changes with the files.

    Raises:
        UsageError: If the column to encode must be named, or a mapping names none that is there.
        DataError: If the files have different columns, or no rows.
    """

    unique = False

    def __init__(
        self,
        name: str,
        readers: Sequence[Reader],
        wanted: Wanted,
        *,
        dim: int | None = None,
        mapping: Mapping[str, str] | None = None,
        fingerprint: str = "",
    ) -> None:
        self.name = name
        self.input: Input = wanted.input
        self.fingerprint = fingerprint
        self._readers = readers
        self._dim = dim
        first = readers[0]
        self.column = first.column or find_column(name, first.schema, wanted.column, wanted.input)
        self._schema = _unified(readers, self.column, wanted.input)
        self.rows = _count(readers)
        self.dim = _dim(readers, self.column) if wanted.input == "vectors" else None
        if self.rows == 0:
            raise DataError(f"The file {name} holds no rows.")
        own = [column for column in self._schema.names if column != self.column or wanted.input == "text"]
        self._fields = _fields(name, own, mapping or {})
        self.scalars: Mapping[str, pa.DataType] = {
            field: self._schema.field(column).type for field, column in self._fields.items()
        }

    def batches(self, size: int = 8192, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """See `Source.batches`."""
        first = 0 if after is None else int(after) + 1
        row = -1
        dim = self.dim or self._dim
        for row, reader, piece in read_pieces(self._readers, first, size):
            inputs, bad = self._inputs(piece, reader, dim)
            if dim is None and self.input == "vectors":
                dim = cast("np.ndarray", inputs).shape[1] or None
            record = self._alike(piece.record)
            columns = {field: record.column(column) for field, column in self._fields.items()}
            yield Batch(row, inputs, columns, {**bad, **piece.bad}, record)
        self.rows = _count(self._readers)  # which some files tell only at their end
        if row < 0 and first == 0:
            raise DataError(f"The file {self.name} holds no rows.")

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:
        """See `Source.keys`."""
        source = self._fields[column]
        for _, _, piece in read_pieces(self._readers, 0, size, [source]):
            yield _cast(piece.record.column(0), self._schema.field(source).type)

    def _inputs(self, piece: Piece, reader: Reader, dim: int | None) -> tuple[Inputs, Mapping[int, str]]:
        column = piece.record.column(self.column)
        if self.input == "text":
            return to_texts(column, self.column)
        if self.input == "images":
            return to_images(column, cast("tuple[int, ...]", reader.shape))
        return to_vectors(column, self.column, dim)

    def _alike(self, record: pa.RecordBatch) -> pa.RecordBatch:
        """The record with the types that the column has in all files."""
        if record.schema == self._schema:
            return record
        arrays = {name: record.column(name) for name in self._schema.names}
        for name, array in arrays.items():
            if name != self.column or self.input == "text":
                arrays[name] = _cast(array, self._schema.field(name).type)
        return pa.RecordBatch.from_pydict(arrays)


def _count(readers: Sequence[Reader]) -> int | None:
    """The number of rows; None if a file does not state it."""
    counts = [reader.rows for reader in readers]
    return None if None in counts else sum(cast("list[int]", counts))


def _dim(readers: Sequence[Reader], column: str) -> int | None:
    """The dimension of the vectors; None unless all files state the same."""
    types = [reader.schema.field(column).type for reader in readers]
    dims = {found.list_size if pa.types.is_fixed_size_list(found) else None for found in types}
    return dims.pop() if len(dims) == 1 else None


def _cast(array: pa.Array, data_type: pa.DataType) -> pa.Array:
    return array if array.type == data_type else array.cast(data_type)


def _unified(readers: Sequence[Reader], column: str, input: Input) -> pa.Schema:
    """The columns of the first file with types that hold the values of all."""
    first = readers[0]
    schema = first.schema
    for reader in readers[1:]:
        if reader.schema == schema:
            continue
        differing = set(first.schema.names) ^ set(reader.schema.names)
        if differing:
            name = min(differing)
            has, lacks = (first, reader) if name in first.schema.names else (reader, first)
            raise DataError(f"{has.file.name} has a column {name!r} and {lacks.file.name} has none; give files alike.")
        fields = []
        for field in schema:
            other = reader.schema.field(field.name)
            both = [pa.schema([field]), pa.schema([other])]
            if field.name != column or input == "text":
                try:
                    (field,) = pa.unify_schemas(both, promote_options="permissive")  # noqa: PLW2901
                except pa.ArrowException:
                    raise DataError(
                        f"The column {field.name!r} is {field.type} in {first.file.name} and {other.type} in "
                        f"{reader.file.name}; give files alike."
                    ) from None
            fields.append(field)
        schema = pa.schema(fields)
    return schema


def _fields(name: str, columns: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The column of each field."""
    for field, column in mapping.items():
        if column not in columns:
            have = ", ".join(columns) or "none"
            raise UsageError(f"{name} has no column {column!r} for the field {field!r}; its columns: {have}.")
    return {**{column: column for column in columns if column not in mapping.values()}, **mapping}
