"""Rows that are already in memory, as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.encoders import Input
from alula.errors import DataError
from alula.ingest.sources.base import Batch, Cursor

_NAMES: Mapping[Input, str] = {"vectors": "vectors", "images": "images", "text": "texts"}


class ArraySource:
    """Vectors, images or texts, and columns, in memory.

    Args:
        inputs: Vectors (n, d), or images or texts as `Encoder.check_inputs` returns them.
        columns: Scalar columns of length n, the primary key among them.
        input: What the rows are.

    Raises:
        DataError: If the lengths differ or vectors are not (n, d).
    """

    def __init__(
        self,
        inputs: Any,
        columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
        input: Input = "vectors",
    ) -> None:
        self.path = Path("the given rows")
        self.name = "the given rows"
        self.unique = False
        self.fingerprint = ""
        self.input = input
        self._inputs: Any = _vectors(inputs) if input == "vectors" else inputs
        try:
            self._columns = {name: pa.array(values) for name, values in columns.items()}
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(f"The columns cannot be read: {error}.") from None
        self.rows: int | None = len(self._inputs)
        for name, column in self._columns.items():
            if len(column) != self.rows:
                raise DataError(
                    f"There are {self.rows} {_NAMES[input]}, and the column {name!r} has {len(column)} values."
                )
        self.scalars = {name: column.type for name, column in self._columns.items()}

        self.dim: int | None = self._inputs.shape[1] if input == "vectors" else None

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:
        """See `Source`."""
        del size
        yield self._columns[column]

    def batches(self, size: int = 8192, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:
        """See `Source`."""
        begin = start if after is None else int(after) + 1
        for first in range(begin, len(self._inputs), size):
            columns = {name: column[first : first + size] for name, column in self._columns.items()}
            yield Batch(first, self._inputs[first : first + size], columns)


def _vectors(vectors: Any) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(vectors, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise DataError("The vectors are not an array of numbers of one length.") from None
    if array.ndim != 2:
        raise DataError(f"The vectors have shape {array.shape}; (rows, d) is needed.")
    return array
