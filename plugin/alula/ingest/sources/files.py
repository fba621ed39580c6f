"""Read rows from ``.npy``, Parquet and JSON lines files in batches of constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from alula.errors import DataError, UsageError

F32 = npt.NDArray[np.float32]
FORMATS = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json"}


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of a source.

    Args:
        start: Number of the first row, counted from 0.
        vectors: float32 (n, d).
        columns: The scalar columns, each of length n.
    """

    start: int
    vectors: F32
    columns: Mapping[str, pa.Array]

    def __len__(self) -> int:
        return len(self.vectors)


class FileSource:
    """Rows in a file: one vector column and any scalar columns.

    Args:
        path: A ``.npy`` array (n, d), a Parquet file, or JSON lines.
        vector: Name of the column that holds the vectors; by default the only list of numbers.
    """

    def __init__(self, path: Path, vector: str | None = None) -> None:
        self.path = path
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
        if path.stat().st_size == 0:
            raise DataError(f"The file {path} is empty.")
        self._array: npt.NDArray[Any] | None = None
        if path.suffix == ".npy":
            self._array = _open_npy(path)
            self.vector = vector or "vectors"
            self.scalars: dict[str, pa.DataType] = {}
            self.rows: int | None = len(self._array)
        elif path.suffix in FORMATS:
            self._dataset = _open_dataset(path, FORMATS[path.suffix])
            self.vector = _vector_column(path, self._dataset.schema, vector)
            if FORMATS[path.suffix] == "json":
                # the types are those of the first block, whose numbers may all be whole
                doubles = pa.field(self.vector, pa.list_(pa.float64()))
                schema = self._dataset.schema
                schema = schema.set(schema.get_field_index(self.vector), doubles)
                self._dataset = _open_dataset(path, "json", schema)
            self.scalars = {field.name: field.type for field in self._dataset.schema if field.name != self.vector}
            self.rows = self._dataset.count_rows() if path.suffix in (".parquet", ".pq") else None
        else:
            raise UsageError(
                f"{path.name} has an ending that Alula does not read; give a .npy, .parquet, .jsonl or .ndjson file."
            )
        if self.rows == 0:
            raise DataError(f"The file {path} holds no rows.")

    def batches(self, size: int = 8192) -> Iterator[Batch]:
        """The rows in order, at most `size` at a time.

        Raises:
            DataError: If the file is damaged, or a vector is missing, of another length or not numbers.
        """
        if self._array is not None:
            for start in range(0, len(self._array), size):
                yield Batch(start, np.asarray(self._array[start : start + size], np.float32), {})
            return
        start = 0
        try:
            for record in self._dataset.to_batches(batch_size=size):
                if not record.num_rows:
                    continue
                vectors = _to_matrix(record.column(self.vector), self.path, self.vector, start)
                columns = {name: record.column(name) for name in self.scalars}
                yield Batch(start, vectors, columns)
                start += record.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"The file {self.path} cannot be read past row {start}: {_first_line(error)}.") from None
        if start == 0:
            raise DataError(f"The file {self.path} holds no rows.")


def open_source(path: str | Path, vector: str | None = None) -> FileSource:
    """Open a file of vectors.

    Args:
        path: A ``.npy``, ``.parquet``, ``.jsonl`` or ``.ndjson`` file.
        vector: Name of the vector column; by default the only list of numbers.

    Raises:
        UsageError: If there is no such file, its ending is unknown, or the vector column must be named.
        DataError: If the file is empty or damaged.
    """
    return FileSource(Path(path), vector)


def read_vectors(path: str | Path, field: str | None = None) -> F32:
    """All vectors of a file as float32 (n, d).

    Raises:
        UsageError, DataError: As `open_source`, and for NaN or infinite values.
    """
    source = open_source(path, field)
    parts: list[F32] = []
    for batch in source.batches(65536):
        check_finite(batch, source.path)
        if parts and batch.vectors.shape[1] != parts[0].shape[1]:
            raise DataError(
                f"The vectors of {path} have different lengths: {parts[0].shape[1]} at first, "
                f"{batch.vectors.shape[1]} from row {batch.start} on."
            )
        parts.append(batch.vectors)
    return np.concatenate(parts)


def check_finite(batch: Batch, path: Path) -> None:
    """Raise a `DataError` that names the first row of a batch with NaN or infinite values."""
    finite = np.isfinite(batch.vectors).all(axis=1)
    if not finite.all():
        row = batch.start + int(np.argmin(finite))
        raise DataError(f"Row {row} of {path} holds NaN or infinite values; remove or mend such rows.")


def _open_npy(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"The file {path} is not a .npy array, or it is truncated ({_first_line(error)}).") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"The file {path} is an archive of arrays; save the vectors alone with numpy.save.")
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        raise DataError(
            f"The file {path} holds {array.dtype} of shape {array.shape}; vectors are numbers of shape (rows, d)."
        )
    return array


def _open_dataset(path: Path, file_format: str, schema: pa.Schema | None = None) -> Any:
    try:
        return ds.dataset(path, schema=schema, format=file_format)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"The file {path} is not {'Parquet' if file_format == 'parquet' else 'JSON lines'}, or it is truncated "
            f"({_first_line(error)})."
        ) from None


def _is_vector(data_type: pa.DataType) -> bool:
    is_list = pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type)
    numbers = pa.types.is_floating, pa.types.is_integer
    return bool(is_list and any(is_number(data_type.value_type) for is_number in numbers))


def _vector_column(path: Path, schema: pa.Schema, wanted: str | None) -> str:
    names = [field.name for field in schema if _is_vector(field.type)]
    if wanted is not None:
        if wanted not in schema.names:
            raise UsageError(f"{path} has no column {wanted!r}; its columns are {', '.join(schema.names)}.")
        if wanted not in names:
            raise UsageError(
                f"The column {wanted!r} of {path} holds {schema.field(wanted).type}, not lists of numbers."
            )
        return wanted
    if len(names) != 1:
        found = f"{len(names)} columns of number lists ({', '.join(names)})" if names else "no column of number lists"
        raise UsageError(f"{path} has {found}; name the one that holds the vectors (--vector-column).")
    return str(names[0])


def _to_matrix(column: pa.Array, path: Path, name: str, start: int) -> F32:
    if column.null_count:
        row = start + column.is_null().to_pylist().index(True)
        raise DataError(f"Row {row} of {path} has no vector in the column {name!r}; remove or mend such rows.")
    if pa.types.is_fixed_size_list(column.type):
        dim = column.type.list_size
    else:
        lengths = np.diff(column.offsets.to_numpy())
        dim = int(lengths[0]) if len(lengths) else 0
        if (lengths != dim).any():
            row = int(np.argmax(lengths != dim))
            raise DataError(
                f"The vectors of {path} differ in length: {dim} in row {start}, {lengths[row]} in {start + row}."
            )
    if dim == 0:
        raise DataError(f"The vectors of {path} in the column {name!r} are empty from row {start} on.")
    values = column.flatten()
    if values.null_count:
        raise DataError(f"A vector of {path} among the rows {start} to {start + len(column) - 1} has a missing number.")
    matrix: F32 = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(column), dim)
    return matrix


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
