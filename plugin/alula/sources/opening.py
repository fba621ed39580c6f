"""Open what a user names as a source: the ending of a file says its format."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.encoders import Input, Inputs
from alula.errors import DataError, UsageError
from alula.sources import image_folder
from alula.sources.array_files import Hdf5Reader, NpyReader, NpzReader
from alula.sources.arrow_ipc import ArrowReader
from alula.sources.base import Batch
from alula.sources.csv_files import CsvReader
from alula.sources.declared_types import column_types
from alula.sources.faiss_index import FaissReader
from alula.sources.files import FileSource
from alula.sources.image_folder import ImageFolderReader
from alula.sources.json_lines import JsonLinesReader
from alula.sources.locations import File, Place, Places, find_files, fingerprint
from alula.sources.metadata import WithMetadata
from alula.sources.parquet import ParquetReader
from alula.sources.reading import Reader, Wanted
from alula.sources.text_lines import TextLinesReader
from alula.sources.vecs_files import VecsReader

Format = tuple[str, Callable[[File, Wanted], Reader]]

_PARQUET: Format = "Parquet", ParquetReader
_JSON: Format = "JSON lines", JsonLinesReader
_CSV: Format = "CSV", CsvReader
_ARROW: Format = "Arrow IPC", ArrowReader
_HDF5: Format = "HDF5", Hdf5Reader
_VECS: Format = "a file of vectors with their lengths", VecsReader
_FAISS: Format = "a faiss index", FaissReader
_TEXT: Format = "text", TextLinesReader
TABLES: Mapping[str, Format] = {
    ".parquet": _PARQUET,
    ".jsonl": _JSON,
    ".csv": _CSV,
    ".arrow": _ARROW,
    ".pq": _PARQUET,
    ".ndjson": _JSON,
    ".json": _JSON,
    ".tsv": _CSV,
    ".feather": _ARROW,
    ".ipc": _ARROW,
    ".jsonl.gz": _JSON,
    ".ndjson.gz": _JSON,
    ".json.gz": _JSON,
    ".csv.gz": _CSV,
    ".tsv.gz": _CSV,
}
_OF_ANY_SHAPE: Mapping[str, Format] = {
    ".npy": ("a .npy array", NpyReader),
    ".npz": ("an .npz archive", NpzReader),
    ".hdf5": _HDF5,
    ".h5": _HDF5,
}
ARRAYS: Mapping[str, Format] = {
    **_OF_ANY_SHAPE,
    ".fvecs": _VECS,
    ".ivecs": _VECS,
    ".bvecs": _VECS,
    ".faiss": _FAISS,
    ".index": _FAISS,
}
FORMATS: Mapping[Input, Mapping[str, Format]] = {
    "vectors": {**ARRAYS, **TABLES},
    "images": _OF_ANY_SHAPE,
    "text": {".txt": _TEXT, ".txt.gz": _TEXT, **TABLES},
}


def open_source(
    path: Places,
    column: str | None = None,
    input: Input = "vectors",
    *,
    mapping: Mapping[str, str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    metadata: Place | None = None,
    dim: int | None = None,
    image_shape: Sequence[int] | None = None,
) -> FileSource:
    """Open files of vectors, images or texts.

    Args:
        path: A path, a glob, a folder or a URL, or several of them: tables (Parquet, JSON lines, CSV, Arrow) of vectors
            or texts, arrays (``.npy``, ``.npz``, HDF5) of vectors or images, ``.fvecs``, ``.ivecs`` and ``.bvecs``
            files and faiss indexes of vectors, text files with a text per line, or image files. Files of one format,
            which are read in the order of their names.
        column: Name of the column, array or dataset that holds the rows; by default the only one that could.
        input: The kind of the rows.
        mapping: For fields of a collection, the column that they are read from, where that has another name.
        types: The Arrow types that fields of a collection declare: formats without types (JSON lines, CSV) are read as
            these instead of guessed types.
        metadata: A table whose row i belongs to row i of a single file of arrays.
        dim: Dimension of vectors, if the files do not state it; by default the length of the first.
        image_shape: (height, width, channels) that images out of image files must have; by default the first one's.

    Raises:
        UsageError: If there is no such file, its ending is unknown, or the column must be named.
        DataError: If a file is empty or damaged.
    """
    name, files = find_files(path)
    declared = column_types(types, mapping)
    wanted = Wanted(input, column, tuple(image_shape) if image_shape else None, types=declared)
    if input == "images" and files[0].ending in image_folder.ENDINGS:
        other = next((file for file in files if file.ending not in image_folder.ENDINGS), None)
        if other is not None:
            raise UsageError(f"{other.name} is beside images and is no image; give a glob, as in '{name}/*.png'.")
        readers: list[Reader] = [ImageFolderReader(files, wanted)]
    else:
        readers = _readers(files, wanted, FORMATS[input])
    if metadata is not None:
        beside, tables = find_files(metadata)
        if len(readers) != 1 or readers[0].file.ending not in ARRAYS:
            raise UsageError(f"{name} takes no table beside it: that is for a single file of arrays.")
        table = _readers(tables, Wanted(input, types=declared), TABLES)
        readers = [WithMetadata(readers[0], table, beside)]
        files = [*files, *tables]
    return FileSource(name, readers, wanted, dim=dim, mapping=mapping, fingerprint=fingerprint(files))


def _readers(files: Sequence[File], wanted: Wanted, formats: Mapping[str, Format]) -> list[Reader]:
    readers: list[Reader] = []
    chosen: Format | None = None
    for file in files:
        if file.ending not in formats:
            *endings, last = (ending for ending in formats if not ending.endswith(".gz"))
            of = "" if wanted.input == "vectors" else f" {wanted.input} from"
            raise UsageError(
                f"{file.name} has an ending that Alula does not read{of}; give a {', '.join(endings)} or {last} file."
            )
        kind, reader = formats[file.ending]
        if chosen is not None and reader is not chosen[1]:
            raise UsageError(f"{files[0].name} is {chosen[0]} and {file.name} is {kind}; give files of one format.")
        chosen = kind, reader
        with file.reading(f"is not {kind}, or it is truncated"):
            readers.append(reader(file, wanted))
        if wanted.like is None:
            wanted = dataclasses.replace(wanted, like=readers[0].schema)
    return readers


def read_vectors(path: Places, column: str | None = None) -> npt.NDArray[np.float32]:
    """All vectors of files as float32 (n, d).

    Raises:
        UsageError, DataError: As `open_source`, and for the first row that has no vector of finite numbers.
    """
    return cast("npt.NDArray[np.float32]", read_inputs(path, column))


def read_inputs(path: Places, column: str | None = None, input: Input = "vectors") -> Inputs:
    """All vectors, images or texts of files, as a `Batch` holds them.

    Raises:
        UsageError, DataError: As `open_source`, and for the first row that cannot be used.
    """
    source = open_source(path, column, input)
    parts: list[Any] = []
    for batch in source.batches(65536 if input == "vectors" else 8192):
        check_finite(batch, source.name)
        parts.append(batch.inputs)
    return list(itertools.chain(*parts)) if input == "text" else np.concatenate(parts)


def check_finite(batch: Batch, name: str) -> None:
    """Raise a `DataError` that names the first bad row of a batch."""
    if batch.bad:
        position = min(batch.bad)
        raise DataError(f"Row {batch.start + position} of {name}: {batch.bad[position]}; mend or remove such rows.")
