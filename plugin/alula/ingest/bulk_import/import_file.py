"""The files of a bulk import: Parquet as Milvus reads it, and their states.

Milvus's own writer (`pymilvus.bulk_writer.LocalBulkWriter`) takes rows one by one, keeps a whole file in memory, and
needs the clients of two object stores and pandas to be imported at all. So the same layout is written here from
columns, one row group per batch; a test imports every type into Milvus 2.3.5.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from alula.errors import UnsupportedError
from alula.index_types import Column, FieldSpec
from alula.milvus import Columns
from alula.milvus.wire.types import BYTES, TYPES
from alula.sources.base import Cursor


@dataclass(frozen=True)
class ImportFile:
    """One file of a bulk import, and its state.

    Args:
        number: Its index among the files of the load, from 0.
        first: Cursor of its first row.
        last: Cursor of its last row.
        rows: Rows in it.
        file: The file's name as the server reads it.
        task: The server's number of the import; None before a request.
        state: ``written``: it is in the staging area, and a request may or may not have been sent. ``submitted``: the
            server imports it, as `task`. ``done``: the server has imported it.
        written: The time at which it was written under this name, in seconds since the epoch; 0 if unknown.
    """

    number: int
    first: Cursor
    last: Cursor
    rows: int
    file: str
    task: int | None = None
    state: Literal["written", "submitted", "done"] = "written"
    written: float = 0.0


class Ledger(Protocol):
    """Records the files of one load beyond the end of the process."""

    def files(self) -> Sequence[ImportFile]:
        """All recorded files, by number."""
        ...

    def record(self, file: ImportFile) -> None:
        """Record a file, in place of its earlier state: on disk when this returns."""
        ...


class ImportFileWriter:
    """Streams one Parquet file, one row group per batch.

    Args:
        path: The file.
        fields: The written fields.
        first: Cursor of the first row that will be written.

    Raises:
        UnsupportedError: If a field's type has no form in Parquet.
    """

    def __init__(self, path: Path, fields: Sequence[FieldSpec], first: Cursor) -> None:
        for field in fields:
            if field.data_type not in TYPES or TYPES[field.data_type].parquet is None:
                raise UnsupportedError(
                    f"The field {field.name!r} ({field.data_type}) cannot be imported; load with via=insert."
                )
        self.first = first
        self.last = first
        self.rows = 0
        self.bytes = 0
        self._fields = fields
        self._schema = pa.schema([(field.name, _parquet_type(field)) for field in fields])
        self._file = pq.ParquetWriter(path, self._schema)

    def write(self, columns: Columns, last: Cursor) -> None:
        """Append rows, as a row group; `last` is the cursor of the last of them."""
        arrays = [_to_arrow(columns[field.name], field) for field in self._fields]
        table = pa.table(arrays, schema=self._schema)
        self._file.write_table(table)
        self.rows += len(table)
        self.bytes += table.nbytes
        self.last = last

    def close(self) -> None:
        """Write the end of the file."""
        self._file.close()


def _parquet_type(field: FieldSpec) -> pa.DataType:
    field_type = TYPES[field.data_type]
    return pa.list_(TYPES[field.params["element_type"]].arrow) if field_type.layout == "array" else field_type.parquet


def _to_arrow(column: Sequence[Any] | Column, field: FieldSpec) -> pa.Array:
    field_type = TYPES[field.data_type]
    if field.data_type == "JSON":
        column = [None if document is None else document.decode() for document in cast("Sequence[Any]", column)]
    if field_type.layout == "scalar" or isinstance(column, list):
        return pa.array(column, _parquet_type(field))
    if field_type.layout == "sparse":
        return pa.array(_sparse_json(cast("sp.csr_array", column)), pa.string())
    if field_type.parquet == BYTES:
        content = field_type.encode(np.asarray(column))
        return _lists(np.frombuffer(content, np.uint8).reshape(len(content) // field.bytes_per_row, -1))
    return _lists(np.asarray(column, field_type.dtype))


def _lists(values: npt.NDArray[Any]) -> pa.Array:
    """A list per row of values (n, width)."""
    n, width = values.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * width), pa.array(values.ravel()))


def _sparse_json(rows: sp.csr_array) -> Iterator[str]:
    bounds = rows.indptr.tolist()
    dims, weights = rows.indices.tolist(), rows.data.tolist()
    for a, b in itertools.pairwise(bounds):
        yield json.dumps(dict(zip(dims[a:b], weights[a:b], strict=True)))
