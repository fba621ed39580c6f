"""Files of arrays with a row per vector or image: ``.npy``, ``.npz``, HDF5."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.errors import DataError, UsageError
from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted

_BLOCK = 8 << 20  # bytes that are read at once from what cannot be mapped into memory


class Rows(Protocol):
    """An array whose rows are read in their order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def slices(self, skip: int, size: int) -> Iterator[npt.NDArray[Any]]:
        """The rows behind the first `skip`, `size` at a time."""
        ...


class ArrayReader:
    """Arrays of one length, one of them the vectors or images; see `Reader`.

    Each format opens them in its way.
    """

    default = ""  # the name of the vectors, where a format has one for them

    def __init__(self, file: File, wanted: Wanted) -> None:
        self.file = file
        self.shape: tuple[int, ...] | None = None
        with ExitStack() as opened:
            arrays = self._open(opened, wanted)
            self.column: str | None = _choose(file.name, arrays, wanted, self.default)
            chosen = arrays[self.column]
            rows = chosen.shape[0]
            self.rows: int | None = rows
            if wanted.input == "images":
                self.shape = chosen.shape[1:] if len(chosen.shape) == 4 else (*chosen.shape[1:], 1)
            beside = {name: array for name, array in arrays.items() if array.shape == (rows,)}
            self._wanted = wanted
            fields = {self.column: _arrow(np.zeros((0, *chosen.shape[1:]), chosen.dtype)).type}
            for name, array in beside.items():
                values = next(array.slices(0, 1), np.zeros(0, array.dtype))
                fields[name] = _arrow(values).type
            self.schema = pa.schema(list(fields.items()))

    def _open(self, opened: ExitStack, wanted: Wanted) -> Mapping[str, Rows]:
        raise NotImplementedError

    def _library(self, name: str, install: str) -> Any:
        """A library that only this format needs, by its name and what pip installs."""
        try:
            return import_module(name)
        except ImportError:
            raise UsageError(
                f"Reading {self.file.name} needs {name}, which is not installed: pip install {install}."
            ) from None

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`."""
        names = self.schema.names if columns is None else columns
        with ExitStack() as opened:
            arrays = self._open(opened, self._wanted)
            for some in zip(*(arrays[name].slices(skip, size) for name in names), strict=True):
                fields = [self.schema.field(name) for name in names]
                values = [_arrow(array).cast(field.type) for array, field in zip(some, fields, strict=True)]
                yield Piece(pa.RecordBatch.from_arrays(values, schema=pa.schema(fields)))


def _choose(name: str, arrays: Mapping[str, Rows], wanted: Wanted, default: str) -> str:
    """The name of the array that holds the vectors or images."""
    column = wanted.column if wanted.column in arrays or len(arrays) != 1 else next(iter(arrays))
    fits = [key for key, array in arrays.items() if _fits(array, wanted)]
    if column is None and (default in arrays or len(fits) == 1):
        column = default if default in arrays else fits[0]
    if column is None and len(arrays) == 1:
        column = next(iter(arrays))
    have = ", ".join(f"{key} {array.dtype}{list(array.shape)}" for key, array in arrays.items()) or "nothing"
    if column is None:
        hint = "name the array of the rows (vector_column=...)" if fits else "no array has the shape of rows"
        raise UsageError(f"{name} contains {have}; {hint}.")
    if column not in arrays:
        raise UsageError(f"{name} has no array {column!r}; it contains {have}.")
    array = arrays[column]
    if not _fits(array, wanted):
        need = (
            "images are uint8 of shape (rows, height, width, channels)"
            if wanted.input == "images"
            else "vectors are numbers of shape (rows, d)"
        )
        raise DataError(f"The file {name} holds {array.dtype} of shape {array.shape}; {need}.")
    return column


def _fits(array: Rows, wanted: Wanted) -> bool:
    if wanted.input == "images":
        return array.dtype == np.uint8 and len(array.shape) in (3, 4)
    return len(array.shape) == 2 and array.dtype.kind in "fiu" and array.shape[1] > 0


def _arrow(array: npt.NDArray[Any]) -> pa.Array:
    """Rows as an Arrow array: of numbers, texts, or lists of one length."""
    if array.ndim == 1:
        if array.dtype.kind == "O":  # texts, as h5py reads them
            array = np.array([v.decode() if isinstance(v, bytes) else v for v in array], dtype=object)
        return pa.array(array.tolist() if array.dtype.kind in "US" else array.astype(array.dtype.newbyteorder("=")))
    width = math.prod(array.shape[1:])
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), width)


class InMemory:
    """An array that numpy can slice: in memory, or mapped into it."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def slices(self, skip: int, size: int) -> Iterator[npt.NDArray[Any]]:
        """See `Rows.slices`."""
        for start in range(skip, len(self._array), size):
            yield np.asarray(self._array[start : start + size])


class _Streamed:
    """An array in ``.npy`` format, read in sequence from a compressed archive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its .npy format {version} is unknown")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._by_columns, self.dtype = header(stream)
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which Alula does not read")

    def slices(self, skip: int, size: int) -> Iterator[npt.NDArray[Any]]:
        if self._by_columns:  # the numbers of one row lie far apart: the whole array is needed
            content = self._stream.read(math.prod(self.shape) * self.dtype.itemsize)
            whole = np.frombuffer(content, self.dtype).reshape(self.shape[::-1]).T
            yield from InMemory(whole).slices(skip, size)
            return
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        _discard(self._stream, skip * width)
        for start in range(skip, self.shape[0], size):
            rows = min(size, self.shape[0] - start)
            content = self._stream.read(rows * width)
            if len(content) < rows * width:
                raise ValueError("it is truncated")
            yield np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])


def _discard(stream: IO[bytes], length: int) -> None:
    if stream.seekable():
        stream.seek(length, os.SEEK_CUR)  # behind the end, the next read finds nothing
        return
    while length > 0:
        read = len(stream.read(min(length, _BLOCK)))
        if not read:
            raise ValueError("it is truncated")
        length -= read


class NpyReader(ArrayReader):
    """A ``.npy`` file, read from its beginning to its end."""

    def _open(self, opened: ExitStack, wanted: Wanted) -> Mapping[str, Rows]:
        name = wanted.column or wanted.input
        if self.file.local is None:
            return {name: _Streamed(opened.enter_context(self.file.open()))}
        array = np.load(self.file.local, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise DataError(f"The file {self.file.name} is an archive of arrays; give it the ending .npz.")
        if array.ndim == 0:
            raise DataError(
                f"The file {self.file.name} holds {array.dtype} of shape (); vectors are numbers of shape (rows, d)."
            )
        if not array.flags.c_contiguous:
            return {name: InMemory(array)}
        # not the mapped array, whose pages count as this process's memory once they were read
        return {name: _Streamed(opened.enter_context(self.file.open()))}


class NpzReader(ArrayReader):
    """A ``.npz`` archive of arrays, compressed or not."""

    def _open(self, opened: ExitStack, wanted: Wanted) -> Mapping[str, Rows]:  # noqa: ARG002
        archive = opened.enter_context(zipfile.ZipFile(opened.enter_context(self.file.open())))
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        arrays = {name.removesuffix(".npy"): _Streamed(opened.enter_context(archive.open(name))) for name in members}
        return {name: array for name, array in arrays.items() if array.shape}


class _Dataset:
    """A dataset of an HDF5 file."""

    def __init__(self, dataset: Any) -> None:
        self.shape, self.dtype, self._dataset = dataset.shape, dataset.dtype, dataset

    def slices(self, skip: int, size: int) -> Iterator[npt.NDArray[Any]]:
        for start in range(skip, self.shape[0], size):
            yield self._dataset[start : start + size]


class Hdf5Reader(ArrayReader):
    """An HDF5 file as ann-benchmarks writes it: ``train`` is the default dataset."""

    default = "train"

    def _open(self, opened: ExitStack, wanted: Wanted) -> Mapping[str, Rows]:  # noqa: ARG002
        h5py = self._library("h5py", "'alula[hdf5]'")
        file = opened.enter_context(h5py.File(opened.enter_context(self.file.open()), "r"))
        return {
            name: _Dataset(dataset)
            for name, dataset in file.items()
            if isinstance(dataset, h5py.Dataset) and dataset.shape
        }
