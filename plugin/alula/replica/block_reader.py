"""Read a collection as a replica stores it: codes, keys, columns, fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from alula.collection import Collection
from alula.index_types import Column, EncodedRows, vector_spec
from alula.milvus.reading import read_pages
from alula.milvus.wire.types import arrow_field
from alula.milvus.wire.vectors import SPARSE_PAIR
from alula.replica.fingerprints import U64, fingerprints

F32 = npt.NDArray[np.float32]
BLOCK_ROWS = 1 << 22  # rows decoded at once: bounds the memory that opening a replica takes beside the replica

_SCALAR_BYTES = 32  # a guess, for the size of the first page: texts may be longer


@dataclass(frozen=True)
class Page:
    """Some rows, in the order of their keys.

    Args:
        record: Every field that was read.
        prints: uint64 (n,): their fingerprints.
    """

    record: pa.RecordBatch
    prints: U64


@dataclass(frozen=True)
class Block:
    """Rows as a replica stores them.

    Args:
        encoded: Encoded rows for the index, and their vectors (n, d) if those are read.
        columns: The columns of the replica.
        prints: uint64 (n,): fingerprints.
    """

    encoded: tuple[EncodedRows, F32 | None]
    columns: pa.RecordBatch
    prints: U64


class BlockReader:
    """Reads a collection's rows.

    Args:
        collection: The collection.
        columns: Scalar columns to read beside the primary key.
        vectors: Read the kept vectors too.

    Attributes:
        held: The columns that the replica stores, the primary key first.
        vectors: True if the vectors are read.
    """

    def __init__(self, collection: Collection, columns: Sequence[str], *, vectors: bool) -> None:
        self._collection = collection
        self._companions = collection.lowering.fields
        self.vectors = vectors
        self._vectors = vector_spec(collection.lowering.field) if vectors else None
        key = collection.primary_key
        self._key = key.name
        fields = {field.name: field for field in (key, *collection.fields)}
        held = [(name, fields[name].arrow) for name in (key.name, *columns)]
        # one array of 32-bit offsets ends at 2 GB of text
        self.held = pa.schema([(name, pa.large_string() if kind == pa.string() else kind) for name, kind in held])
        specs = [*self._companions, *([self._vectors] if self._vectors else [])]
        self._schema = pa.schema([*(pa.field(name, kind) for name, kind in held), *map(arrow_field, specs)])
        self._row_bytes = sum(spec.bytes_per_row for spec in specs) + _SCALAR_BYTES * len(held)

    def pages(self, *, after: Any = None) -> Iterator[Page]:
        """Rows in the order of their keys, after a given key; errors as `read_pages`."""
        server, name = self._collection.server, self._collection.name
        for record in read_pages(server, name, self._schema, self._key, after=after, row_bytes=self._row_bytes):
            yield Page(record, fingerprints(record))

    def blocks(self, pages: Iterable[Page]) -> Iterator[Block]:
        """The rows of pages for the index and the replica, about `BLOCK_ROWS` at a time."""
        waiting: list[Page] = []
        for page in pages:
            waiting.append(page)
            if sum(len(one.prints) for one in waiting) >= BLOCK_ROWS:
                yield self._block(waiting)
                waiting = []
        if waiting:
            yield self._block(waiting)

    def _block(self, pages: Sequence[Page]) -> Block:
        rows = pa.Table.from_batches([page.record for page in pages])
        columns = one_batch(rows.select(self.held.names).cast(self.held))
        return Block(self._decode(rows), columns, np.concatenate([page.prints for page in pages]))

    def _decode(self, rows: pa.Table) -> tuple[EncodedRows, F32 | None]:
        """The encoded rows, and the vectors (n, d) if they were read; n is 1 or more."""
        columns: dict[str, Column] = {}
        for spec in self._companions:
            sparse = spec.data_type == "SPARSE_FLOAT_VECTOR"
            columns[spec.name] = (
                _sparse(rows[spec.name], self._widths[spec.name]) if sparse else _dense(rows[spec.name])
            )
        vectors = None if self._vectors is None else _dense(rows[self._vectors.name])
        return self._collection.lowering.decode_rows(columns), vectors

    @cached_property
    def _widths(self) -> Mapping[str, int]:
        """The dimensions of sparse fields, which Milvus does not keep."""
        lowering = self._collection.lowering
        one = lowering.encode_rows(np.ones((1, lowering.field.dim), np.float32))
        return {name: int(column.shape[1]) for name, column in one.items() if sp.issparse(column)}


def one_batch(rows: pa.Table) -> pa.RecordBatch:
    """A table as one batch, out of which single rows are taken fast."""
    arrays = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in rows.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.schema)


def _sparse(column: pa.ChunkedArray, width: int) -> sp.csr_array:
    lengths = np.concatenate([np.zeros(1, np.int64), *(pc.binary_length(part) for part in column.chunks)])
    pairs = np.concatenate([_pairs(part) for part in column.chunks])
    indptr = np.cumsum(lengths) // SPARSE_PAIR.itemsize
    data, indices = np.ascontiguousarray(pairs["weight"]), pairs["dim"].astype(np.int32)
    return sp.csr_array((data, indices, indptr), shape=(len(column), width))


def _pairs(part: pa.Array) -> npt.NDArray[Any]:
    _, offsets, content = part.buffers()
    first, last = np.frombuffer(offsets, np.int32)[[part.offset, part.offset + len(part)]]
    return np.frombuffer(content or b"", np.uint8)[first:last].view(SPARSE_PAIR)


def _dense(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Numbers (n,), bytes (n, width) or vectors (n, d)."""
    if pa.types.is_fixed_size_binary(column.type):
        parts = [_bytes(part, column.type.byte_width) for part in column.chunks]
    elif pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        parts = [part.flatten().to_numpy() for part in column.chunks]
    else:
        return np.asarray(column.to_numpy())
    return np.concatenate(parts).reshape(len(column), -1)


def _bytes(part: pa.Array, width: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(part.buffers()[1], np.uint8)[part.offset * width : (part.offset + len(part)) * width]
