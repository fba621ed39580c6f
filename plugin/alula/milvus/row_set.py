"""Rows read from Milvus: ids and fields, in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from alula.milvus.wire.query_results import to_float32

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Id: TypeAlias = "int | str"


class RowSet(Protocol):
    """Rows with their primary keys and some of their fields."""

    @property
    def ids(self) -> Sequence[Id]:
        """The primary keys of the rows."""

    def values(self, name: str) -> Sequence[Any]:
        """The values of a field, one per row."""

    def vectors(self, name: str) -> F32:
        """The values of a field of dense vectors: float32 (n, d)."""

    def binary(self, name: str) -> U8:
        """The values of a field of binary vectors: uint8 (n, bytes)."""

    def take(self, positions: Sequence[int]) -> RowSet:
        """The rows at these positions, in this order; a position may repeat."""

    def followed_by(self, others: Sequence[Any]) -> RowSet:
        """These rows and then those of other sets with the same fields."""


@dataclass(frozen=True)
class ClientRows:
    """`RowSet` of the dictionaries that pymilvus returns.

    Args:
        rows: The rows.
        primary_key: Name of the primary key field.
    """

    rows: Sequence[Mapping[str, Any]]
    primary_key: str

    @property
    def ids(self) -> Sequence[Id]:
        """See `RowSet.ids`."""
        return self.values(self.primary_key)

    def values(self, name: str) -> list[Any]:
        """See `RowSet.values`; None where a row lacks a dynamic value."""
        return [row.get(name) for row in self.rows]

    def vectors(self, name: str) -> F32:
        """See `RowSet.vectors`."""
        # kept vectors that pymilvus returns as bytes are of half precision
        return to_float32(self.values(name), "FLOAT16_VECTOR").reshape(len(self.rows), -1)

    def binary(self, name: str) -> U8:
        """See `RowSet.binary`."""
        # pymilvus returns the bytes of a vector alone or in a list
        values = [bytes(value[0] if isinstance(value, list) else value) for value in self.values(name)]
        return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)

    def take(self, positions: Sequence[int]) -> ClientRows:
        """See `RowSet.take`."""
        return ClientRows([self.rows[i] for i in positions], self.primary_key)

    def followed_by(self, others: Sequence[ClientRows]) -> ClientRows:
        """See `RowSet.followed_by`."""
        return ClientRows([row for one in (self, *others) for row in one.rows], self.primary_key)
