"""The interface of sources: batches of rows, always in the same order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from alula.encoders import Input, Inputs

# A place in a source: the number of a row, or (in a Milvus collection, whose rows come and go) a primary key.
# Cursors of one source grow from row to row.
Cursor = int | str


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of a source.

    Args:
        start: Number of the first row, counted from 0.
        inputs: Inputs of an encoder: finite float32 vectors (n, d), uint8 images (n, h, w, c), or n texts. A row in
            `bad` has a placeholder here: zeros, or an empty text.
        columns: The scalar columns, each of length n, named as the collection's fields.
        bad: Why rows cannot be loaded, by their position in the batch.
        record: The rows as the source has them, which a dead letter keeps; made of inputs and columns if None.
        first: Cursor of the first row; `start` if None.
        last: Cursor of the last row; its number if None.
    """

    start: int
    inputs: Inputs
    columns: Mapping[str, pa.Array]
    bad: Mapping[int, str] = dataclasses.field(default_factory=dict)
    record: pa.RecordBatch | None = None
    first: Cursor | None = None
    last: Cursor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def span(self) -> tuple[Cursor, Cursor]:
        """The cursors of the first and the last row."""
        first = self.start if self.first is None else self.first
        return first, self.start + len(self) - 1 if self.last is None else self.last

    def row(self, position: int) -> pa.RecordBatch:
        """One row as the source has it."""
        if self.record is not None:
            return self.record.slice(position, 1)
        value: Any = self.inputs[position]
        columns = {name: column.slice(position, 1) for name, column in self.columns.items()}
        if isinstance(value, np.ndarray):  # images of any shape become one list of numbers
            columns = {"vector": pa.array([value.ravel()]), **columns}
        return pa.RecordBatch.from_pydict(columns)


class Source(Protocol):
    """Anything that gives rows in batches.

    Attributes:
        name: The source in words, for messages: a path, a URL, a collection.
        input: The kind of the rows.
        scalars: The scalar columns under the names that the collection has for them, with their Arrow types.
        rows: The number of rows, None when it is not known without reading them.
        dim: The dimension of vectors, None when it is not known without reading them (or for texts and images).
        unique: True if all primary keys are different, so that no search for duplicates is needed.
        fingerprint: A hash that changes with the rows (of files: paths, sizes, times and content), so that a load is
            not resumed with other rows; "" if unknown.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - said above
    @property
    def input(self) -> Input: ...  # noqa: D102
    @property
    def scalars(self) -> Mapping[str, pa.DataType]: ...  # noqa: D102
    @property
    def rows(self) -> int | None: ...  # noqa: D102
    @property
    def dim(self) -> int | None: ...  # noqa: D102
    @property
    def unique(self) -> bool: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def batches(self, size: int, *, after: Cursor | None = None, start: int = 0) -> Iterator[Batch]:
        """The rows in order, at most `size` at a time.

        Args:
            size: The most rows in a batch; less only at the end of a file, so that batches fall alike each time.
            after: Begin behind the row with this cursor (one that a batch of the same size ended with).
            start: The number of the first row that is given then; sources whose cursors are numbers know it themselves.

        Raises:
            DataError: If the source is damaged. A row that cannot be loaded is no error: it is in `Batch.bad`. A vector
                with NaN or infinite values is such a row.
        """
        ...

    def keys(self, column: str, size: int = 65536) -> Iterator[pa.Array]:
        """Read one scalar column alone, which is cheap in columnar formats."""
        ...
