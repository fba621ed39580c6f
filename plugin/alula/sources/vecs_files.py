"""``.fvecs``, ``.ivecs``, ``.bvecs`` files: vectors with a length before each.

The format of the TEXMEX corpora (http://corpus-texmex.irisa.fr): a 32-bit length d, then d numbers, little-endian.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from alula.sources.array_files import ArrayReader, Rows
from alula.sources.reading import Wanted

_LENGTH = np.dtype("<i4")
_NUMBERS: Mapping[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".ivecs": np.dtype("<i4"), ".bvecs": np.dtype("u1")}


class VecsReader(ArrayReader):
    """A file of vectors of one length; see `Reader`."""

    def _open(self, opened: ExitStack, wanted: Wanted) -> Mapping[str, Rows]:
        stream = opened.enter_context(self.file.open())
        return {wanted.column or wanted.input: _Vecs(stream, _NUMBERS[self.file.ending])}


class _Vecs:
    """The vectors of a file as an array (n, d)."""

    def __init__(self, stream: IO[bytes], dtype: np.dtype[Any]) -> None:
        self.dtype, self._stream = dtype, stream
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        head = stream.read(_LENGTH.itemsize)
        self._dim = int(np.frombuffer(head, _LENGTH)[0]) if len(head) == _LENGTH.itemsize else 0
        if self._dim < 1:
            raise ValueError("it does not begin with the length of a vector")
        rows, rest = divmod(size, _LENGTH.itemsize + self._dim * dtype.itemsize)
        if rest:
            raise ValueError(f"it ends within a vector of {self._dim} numbers, or they have different lengths")
        self._row = np.dtype([("dim", _LENGTH), ("numbers", dtype, (self._dim,))])
        self.shape: tuple[int, ...] = (rows, self._dim)

    def slices(self, skip: int, size: int) -> Iterator[npt.NDArray[Any]]:
        self._stream.seek(skip * self._row.itemsize)
        for start in range(skip, self.shape[0], size):
            count = min(size, self.shape[0] - start)
            content = self._stream.read(count * self._row.itemsize)
            if len(content) < count * self._row.itemsize:
                raise ValueError("it is truncated")
            rows = np.frombuffer(content, self._row)
            other = np.flatnonzero(rows["dim"] != self._dim)
            if len(other):
                found = int(rows["dim"][other[0]])
                raise ValueError(f"row {start + int(other[0])} has {found} numbers, and the first row {self._dim}")
            yield rows["numbers"]
