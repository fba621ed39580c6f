"""Read rows from ``.npy``, Parquet, JSON lines and text files in batches of constant memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from alula.encoders import Input, Inputs
from alula.errors import DataError, UsageError
from alula.ingest.sources.base import Batch, Cursor

F32 = npt.NDArray[np.float32]
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".pq": "parquet", ".json": "json"}
ENDINGS: Mapping[Input, tuple[str, ...]] = {
    "vectors": (".npy", *FORMATS),
    "images": (".npy",),
    "text": (".txt", *FORMATS),
}


class FileSource:
    """Rows in a file: one column of vectors or texts and any scalar columns; or only vectors, images or texts.

    Args:
        path: A file with one of the endings in `ENDINGS`.
        column: Name of the column that holds the vectors or texts; by default the only one that could. A column of
            texts is a scalar column too.
        input: What the rows are.
    """

    def __init__(self, path: Path, column: str | None = None, input: Input = "vectors") -> None:
        self.path = path
        self.name = str(path)
        self.input = input
        self.unique = False
        self.dim: int | None = None
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
        if path.stat().st_size == 0:
            raise DataError(f"The file {path} is empty.")
        if path.suffix not in ENDINGS[input]:
            *endings, last = ENDINGS[input]
            given = f"give a {', '.join(endings)} or {last} file" if endings else f"give a {last} file"
            of = "" if input == "vectors" else f" {input} from"
            raise UsageError(f"{path.name} has an ending that Alula does not read{of}; {given}.")
        self.rows: int | None = None
        self.scalars: dict[str, pa.DataType] = {}
        self._array: npt.NDArray[Any] | None = None
        self._dataset: Any = None
        if path.suffix == ".npy":
            self.column = column or input
            self._array = _open_npy(path, input)
            self.rows = len(self._array)
            self.dim = self._array.shape[1] if input == "vectors" else None
        elif path.suffix == ".txt":
            self.column = column or input
            self.scalars = {self.column: pa.string()}
        else:
            self._open_columns(FORMATS[path.suffix], column)
        if self.rows == 0:
            raise DataError(f"The file {path} holds no rows.")

    def _open_columns(self, file_format: str, column: str | None) -> None:
        self._dataset = _open_dataset(self.path, file_format)
        self.column = _find_column(self.path, self._dataset.schema, column, self.input)
        if file_format == "json" and self.input == "vectors":
            # the types are those of the first block, whose numbers may all be whole
            doubles = pa.field(self.column, pa.list_(pa.float64()))
            schema = self._dataset.schema
            schema = schema.set(schema.get_field_index(self.column), doubles)
            self._dataset = _open_dataset(self.path, "json", schema)
        self.scalars = {field.name: field.type for field in self._dataset.schema}
        if self.input == "vectors":
            del self.scalars[self.column]
        self.rows = self._dataset.count_rows() if file_format == "parquet" else None

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        about = self.path.stat()
        return f"{self.path} {about.st_size} {about.st_mtime_ns}"

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:
        """See `Source`."""
        for batch in self.batches(size):
            yield batch.columns[column]

    def batches(self, size: int = 8192, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:
        """See `Source`."""
        del start
        for batch in self._all(size):
            if after is None or batch.span[0] > after:  # type: ignore[operator]
                yield batch

    def _all(self, size: int = 8192) -> Iterator[Batch]:
        """The rows in order, at most `size` at a time.

        Raises:
            DataError: If the file is damaged, a vector or text is missing, or a vector is of another length or not
                numbers.
        """
        if self._array is not None:
            for start in range(0, len(self._array), size):
                some = self._array[start : start + size]
                yield Batch(start, np.asarray(some, np.float32) if self.input == "vectors" else np.asarray(some), {})
        elif self._dataset is not None:
            yield from self._records(size)
        else:
            yield from self._lines(size)

    def _records(self, size: int) -> Iterator[Batch]:
        start = 0
        to_inputs = _to_matrix if self.input == "vectors" else _to_texts
        try:
            for record in self._dataset.to_batches(batch_size=size):
                if not record.num_rows:
                    continue
                inputs = to_inputs(record.column(self.column), self.path, self.column, start)
                columns = {name: record.column(name) for name in self.scalars}
                yield Batch(start, inputs, columns)
                start += record.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"The file {self.path} cannot be read past row {start}: {_first_line(error)}.") from None
        if start == 0:
            raise DataError(f"The file {self.path} holds no rows.")

    def _lines(self, size: int) -> Iterator[Batch]:
        start = 0
        try:
            with self.path.open(encoding="utf-8-sig") as file:
                while texts := [line.removesuffix("\n") for line in itertools.islice(file, size)]:
                    yield Batch(start, texts, {self.column: pa.array(texts)})
                    start += len(texts)
        except UnicodeDecodeError as error:
            raise DataError(
                f"The file {self.path} cannot be read past row {start}: it is not text in UTF-8 ({error.reason})."
            ) from None


def open_source(path: str | Path, column: str | None = None, input: Input = "vectors") -> FileSource:
    """Open a file of vectors, images or texts.

    Args:
        path: A ``.npy`` (vectors or uint8 images), ``.parquet``, ``.jsonl`` or ``.ndjson`` file (vectors or texts), or
            a ``.txt`` file (a text per line).
        column: Name of the column of vectors or texts; by default the only list of numbers, or the only strings.
        input: What the rows are.

    Raises:
        UsageError: If there is no such file, its ending is unknown, or the column must be named.
        DataError: If the file is empty or damaged.
    """
    return FileSource(Path(path), column, input)


def read_vectors(path: str | Path, field: str | None = None) -> F32:
    """All vectors of a file as float32 (n, d).

    Raises:
        UsageError, DataError: As `open_source`, and for NaN or infinite values.
    """
    source = open_source(path, field)
    parts: list[F32] = []
    for batch in source.batches(65536):
        check_finite(batch, source.path)
        vectors = cast(F32, batch.inputs)
        if parts and vectors.shape[1] != parts[0].shape[1]:
            raise DataError(
                f"The vectors of {path} have different lengths: {parts[0].shape[1]} at first, "
                f"{vectors.shape[1]} from row {batch.start} on."
            )
        parts.append(vectors)
    return np.concatenate(parts)


def read_inputs(path: str | Path, column: str | None = None, input: Input = "vectors") -> Inputs:
    """All vectors, images or texts of a file, as a `Batch` holds them.

    Raises:
        UsageError, DataError: As `open_source`; for vectors as `read_vectors`.
    """
    if input == "vectors":
        return read_vectors(path, column)
    parts: list[Any] = [batch.inputs for batch in open_source(path, column, input).batches()]
    return np.concatenate(parts) if input == "images" else list(itertools.chain(*parts))


def check_finite(batch: Batch, path: Path) -> None:
    """Raise a `DataError` that names the first row of a batch of vectors with NaN or infinite values."""
    finite = np.isfinite(cast(F32, batch.inputs)).all(axis=1)
    if not finite.all():
        row = batch.start + int(np.argmin(finite))
        raise DataError(f"Row {row} of {path} holds NaN or infinite values; remove or mend such rows.")


def _open_npy(path: Path, input: Input) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"The file {path} is not a .npy array, or it is truncated ({_first_line(error)}).") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"The file {path} is an archive of arrays; save the {input} alone with numpy.save.")
    if input == "images":
        if array.ndim not in (3, 4) or array.dtype != np.uint8:
            raise DataError(
                f"The file {path} holds {array.dtype} of shape {array.shape}; images are uint8 of shape (rows, height, "
                "width, channels)."
            )
        return array if array.ndim == 4 else array[..., None]
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


def _is_text(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def _find_column(path: Path, schema: pa.Schema, wanted: str | None, input: Input) -> str:
    fits, what, hint = {
        "vectors": (_is_vector, "number lists", "--vector-column"),
        "text": (_is_text, "strings", "--text-column"),
    }[input]
    names = [field.name for field in schema if fits(field.type)]
    if wanted is not None:
        if wanted not in schema.names:
            raise UsageError(f"{path} has no column {wanted!r}; its columns are {', '.join(schema.names)}.")
        if wanted not in names:
            raise UsageError(
                f"The column {wanted!r} of {path} holds {schema.field(wanted).type}, not "
                f"{'lists of numbers' if input == 'vectors' else what}."
            )
        return wanted
    if len(names) != 1:
        found = f"{len(names)} columns of {what} ({', '.join(names)})" if names else f"no column of {what}"
        raise UsageError(f"{path} has {found}; name the one that holds the {input} ({hint}).")
    return str(names[0])


def _to_texts(column: pa.Array, path: Path, name: str, start: int) -> list[str]:
    if column.null_count:
        row = start + column.is_null().to_pylist().index(True)
        raise DataError(f"Row {row} of {path} has no text in the column {name!r}; fill it or leave the row out.")
    texts: list[str] = column.to_pylist()
    return texts


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
