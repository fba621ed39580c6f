"""Rows that are already in memory, as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.errors import DataError
from alula.ingest.sources.files import Batch


class ArraySource:
    """Vectors and columns in memory.

    Args:
        vectors: (n, d) numbers.
        columns: Scalar columns of length n, the primary key among them.

    Raises:
        DataError: If the lengths differ or the vectors are not (n, d).
    """

    def __init__(self, vectors: npt.ArrayLike, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> None:
        self.path = Path("the given rows")
        try:
            self._vectors = np.asarray(vectors, np.float32)
        except (ValueError, TypeError, OverflowError):
            raise DataError("The vectors are not an array of numbers of one length.") from None
        if self._vectors.ndim != 2:
            raise DataError(f"The vectors have shape {self._vectors.shape}; (rows, d) is needed.")
        try:
            self._columns = {name: pa.array(values) for name, values in columns.items()}
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(f"The columns cannot be read: {error}.") from None
        self.rows: int | None = len(self._vectors)
        for name, column in self._columns.items():
            if len(column) != self.rows:
                raise DataError(f"There are {self.rows} vectors, and the column {name!r} has {len(column)} values.")
        self.scalars = {name: column.type for name, column in self._columns.items()}

    def batches(self, size: int = 8192) -> Iterator[Batch]:
        """The rows in order, at most `size` at a time."""
        for start in range(0, len(self._vectors), size):
            columns = {name: column[start : start + size] for name, column in self._columns.items()}
            yield Batch(start, self._vectors[start : start + size], columns)
