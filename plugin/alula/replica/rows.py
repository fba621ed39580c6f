"""What a replica holds of its rows, by their position in the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alula.index_types import LocalIndex
from alula.replica.fingerprints import U64
from alula.replica.reading import one_batch

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows by position; deleted ones keep theirs.

    Args:
        index: Their codes.
        columns: The held columns, the primary key first; one batch.
        prints: uint64 (n,): their fingerprints.
    """

    index: LocalIndex
    columns: pa.RecordBatch
    prints: U64

    def __len__(self) -> int:
        """Rows that were not deleted."""
        return int(np.count_nonzero(self.index.alive))

    @property
    def keys(self) -> pa.Array:
        """The primary keys by position."""
        return self.columns.column(0)

    def ids(self, positions: I64) -> list[Any]:
        """The primary keys of some rows."""
        found: list[Any] = self.keys.take(pa.array(positions)).to_pylist()
        return found

    def in_key_order(self) -> I64:
        """The positions of the rows that were not deleted, as their keys grow: by number, or by UTF-8 bytes."""
        alive = np.flatnonzero(self.index.alive)
        order = pc.sort_indices(self.keys.take(pa.array(alive))).to_numpy()
        found: I64 = alive[order]
        return found

    def followed_by(self, others: Sequence[tuple[pa.RecordBatch, U64]]) -> Rows:
        """The same index, with the columns and fingerprints of rows that it has or will have behind these."""
        table = pa.Table.from_batches([self.columns, *(columns for columns, _ in others)])
        return Rows(self.index, one_batch(table), np.concatenate([self.prints, *(prints for _, prints in others)]))
