"""Find the changes of a collection since a replica read it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alula.replica.block_reader import Page
from alula.replica.replica_rows import I64, ReplicaRows


@dataclass(frozen=True)
class Refreshed:
    """The changes that a refresh found and applied.

    Args:
        added: New rows.
        changed: Rows with other codes, vectors or columns, as far as the replica stores these.
        deleted: Deleted rows.
        read: Rows that were read from Milvus.
        seconds: Duration.
    """

    added: int
    changed: int
    deleted: int
    read: int
    seconds: float


@dataclass
class Difference:
    """The difference between the rows of a replica and those of its collection.

    Args:
        fresh: The rows to add: new ones, and changed ones as they are now.
        changed: Positions of rows as they were before they changed.
        missing: Positions of rows that were not read.
        read: Rows that were read.
    """

    fresh: list[Page] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    read: int = 0

    @property
    def added(self) -> int:
        """The number of new rows."""
        return sum(len(page.prints) for page in self.fresh) - len(self.changed)


def compare(rows: ReplicaRows, pages: Iterable[Page]) -> Difference:
    """Merge the rows of a replica with pages of all rows, both in key order."""
    found = Difference()
    order = rows.in_key_order()
    held = rows.keys.take(pa.array(order))
    start = 0
    for page in pages:
        keys = page.record.column(0).cast(held.type)
        last = keys[-1].as_py()
        stop = bisect_right(range(len(held)), last, lo=start, key=lambda place: held[place].as_py())
        part, ours = held.slice(start, stop - start), order[start:stop]
        at = pc.index_in(keys, value_set=part).fill_null(-1).to_numpy()
        there = at >= 0
        other = np.zeros(len(at), np.bool_)
        other[there] = rows.prints[ours[at[there]]] != page.prints[there]
        gone = np.ones(len(ours), np.bool_)
        gone[at[there]] = False
        take = other | ~there
        if take.any():
            found.fresh.append(Page(page.record.filter(pa.array(take)), page.prints[take]))
        found.changed += ours[at[other]].tolist()
        found.missing += ours[gone].tolist()
        found.read += len(at)
        start = stop
    found.missing += order[start:].tolist()
    return found


def really_gone(rows: ReplicaRows, missing: Sequence[int], still_there: Callable[[list[Any]], Iterator[Any]]) -> I64:
    """Positions of missing rows that Milvus does not return by key either.

    A row may be replaced while the reader passes it, and a server that moves its segments can leave rows out.
    """
    positions = np.array(missing, np.int64)
    keys = rows.ids(positions)
    there: set[Any] = set()
    for start in range(0, len(keys), 1000):  # keeps the expression far below the server's limit
        there.update(still_there(keys[start : start + 1000]))
    return positions[[key not in there for key in keys]]
