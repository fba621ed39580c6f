"""Rows that are already in memory, as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.encoders import Input
from alula.errors import DataError
from alula.sources.base import Batch, Cursor
from alula.sources.declared_types import DYNAMIC
from alula.sources.json_values import DOCUMENT, json_text

_NAMES: Mapping[Input, str] = {"vectors": "vectors", "images": "images", "text": "texts"}


class ArraySource:
    """Vectors, images or texts, and columns, in memory; see `Source`.

    Args:
        inputs: Vectors (n, d), or images or texts as `Encoder.check_inputs` returns them.
        columns: Scalar columns of length n, the primary key among them.
        input: The kind of the rows.
        types: The Arrow types that fields of a collection declare. Values for documents are kept as they are: Arrow
            has one type for all values of a column.

    Raises:
        DataError: If the lengths differ or vectors are not (n, d).
    """

    unique = False
    fingerprint = ""

    def __init__(
        self,
        inputs: Any,
        columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
        input: Input = "vectors",
        types: Mapping[str, pa.DataType] | None = None,
    ) -> None:
        self.name = "the given rows"
        self.input: Input = input
        self._inputs: Any = _vectors(inputs) if input == "vectors" else inputs
        try:
            self._columns = {name: _column(name, values, types or {}) for name, values in columns.items()}
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"The columns cannot be read: {error}.") from None
        self.rows: int | None = len(self._inputs)
        self.dim: int | None = self._inputs.shape[1] if input == "vectors" else None
        for name, column in self._columns.items():
            if len(column) != self.rows:
                raise DataError(
                    f"There are {self.rows} {_NAMES[input]}, and the column {name!r} has {len(column)} values."
                )
        self.scalars: Mapping[str, pa.DataType] = {name: column.type for name, column in self._columns.items()}

    def batches(self, size: int = 8192, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """See `Source.batches`."""
        for first in range(0 if after is None else int(after) + 1, len(self._inputs), size):
            columns = {name: column[first : first + size] for name, column in self._columns.items()}
            inputs, bad = self._inputs[first : first + size], {}
            if self.input == "vectors":
                finite = np.isfinite(inputs).all(axis=1)
                bad = dict.fromkeys(np.flatnonzero(~finite).tolist(), "NaN or infinite values in the vector")
                inputs = np.where(finite[:, None], inputs, np.float32(0)) if bad else inputs
            yield Batch(first, inputs, columns, bad)

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:
        """See `Source.keys`."""
        for first in range(0, len(self._columns[column]), size):
            yield self._columns[column][first : first + size]


def _column(name: str, values: Sequence[Any] | npt.NDArray[Any], types: Mapping[str, pa.DataType]) -> pa.Array:
    if types.get(name, types.get(DYNAMIC)) == DOCUMENT and not isinstance(values, pa.Array):
        return pa.array([None if value is None else json_text(value).encode() for value in values], DOCUMENT)
    return pa.array(values)


def _vectors(vectors: Any) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(vectors, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise DataError("The vectors are not an array of numbers of one length.") from None
    if array.ndim != 2:
        raise DataError(f"The vectors have shape {array.shape}; (rows, d) is needed.")
    return array
