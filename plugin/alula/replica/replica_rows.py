"""The rows of a replica by their position in the index."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alula.index_types import LocalIndex
from alula.replica.block_reader import one_batch
from alula.replica.fingerprints import U64
from alula.replica.row_filter import Mask, Predicate

I64 = npt.NDArray[np.int64]
_CACHED_MASKS = 8  # a byte per row each


@dataclass(frozen=True)
class ReplicaRows:
    """Rows by position; a deleted row keeps its position.

    Args:
        index: Their codes.
        columns: The columns of the replica, the primary key first; one batch.
        prints: uint64 (n,): their fingerprints.
    """

    index: LocalIndex
    columns: pa.RecordBatch
    prints: U64
    _masks: dict[str, Mask] = field(default_factory=dict, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def __len__(self) -> int:
        """Rows that were not deleted."""
        return int(np.count_nonzero(self.index.alive))

    @property
    def keys(self) -> pa.Array:
        """The primary keys by position."""
        return self.columns.column(0)

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by what they hold."""
        columns = {name: int(self.columns.column(i).nbytes) for i, name in enumerate(self.columns.schema.names)}
        with self._lock:
            masks = sum(mask.nbytes for mask in self._masks.values())
        return {**self.index.nbytes, **columns, "fingerprints": int(self.prints.nbytes), "filters": masks}

    def mask(self, filter: str, predicate: Predicate) -> Mask:
        """Bool (positions,): rows that match a filter; recent masks are cached."""
        with self._lock:
            found = self._masks.pop(filter, None)
        if found is None:
            found = predicate(self.columns)
        with self._lock:
            self._masks[filter] = found
            while len(self._masks) > _CACHED_MASKS:
                del self._masks[next(iter(self._masks))]
        return found

    def ids(self, positions: I64) -> list[Any]:
        """The primary keys of some rows."""
        found: list[Any] = self.keys.take(pa.array(positions)).to_pylist()
        return found

    def in_key_order(self) -> I64:
        """Positions by ascending key (number or UTF-8 bytes), without deleted rows."""
        alive = np.flatnonzero(self.index.alive)
        order = pc.sort_indices(self.keys.take(pa.array(alive))).to_numpy()
        found: I64 = alive[order]
        return found

    def followed_by(self, others: Sequence[tuple[pa.RecordBatch, U64]]) -> ReplicaRows:
        """Append the columns and fingerprints of further rows of the same index."""
        table = pa.Table.from_batches([self.columns, *(columns for columns, _ in others)])
        return ReplicaRows(
            self.index, one_batch(table), np.concatenate([self.prints, *(prints for _, prints in others)])
        )
