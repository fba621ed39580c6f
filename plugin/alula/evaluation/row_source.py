"""Rows that an evaluation reads repeatedly, in blocks or as a random sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.collection import Collection
from alula.errors import DataError, UsageError
from alula.ingest.collection_source import CollectionSource
from alula.progress import Progress, silent
from alula.sources import FileSource, Source, open_source
from alula.sources.encoder_inputs import open_rows

F32 = npt.NDArray[np.float32]
Key = int | str
BLOCK_ROWS = 8192
STRIPES, STRIPE_ROWS = 16, 256  # of vectors in a fingerprint: a sample that takes few reads


@dataclass(frozen=True)
class RowSource:
    """Rows that can be read repeatedly, always in the same order.

    Args:
        source: Reads the rows.
        key: The column with their keys; None if their keys are their numbers.
        embed: Converts the source's inputs to vectors (n, d).
        count: Their number; None if unknown before reading them.
        file: The local file with the rows; None for other sources and for several files.
        fields: The scalar columns that `columns` returns.
    """

    source: Source
    key: str | None
    embed: Callable[[Any], F32]
    count: int | None
    file: Path | None = None
    fields: tuple[str, ...] = field(default=())

    def fingerprint(self) -> str:
        """Identify the rows: changes when they do.

        Of files it is their paths, sizes and times of change. Of a collection it is the number of rows, all keys, and
        vectors that are read again: all of up to 4,096 rows, 256 in each of 16 places of a larger collection.
        """
        if self.source.fingerprint or self.key is None:
            return self.source.fingerprint
        keys = [key for page in self.source.keys(self.key) for key in page.to_pylist()]
        digest = hashlib.sha256("".join(f"{key!r}\n" for key in keys).encode())
        stripes = min(STRIPES, -(-len(keys) // STRIPE_ROWS))
        for first in (i * len(keys) // stripes for i in range(stripes)):
            for batch in self.source.batches(STRIPE_ROWS, after=keys[first - 1] if first else None):
                digest.update(self.embed(batch.inputs).tobytes())
                break
        return f"{len(keys)} rows, sha256 {digest.hexdigest()}"

    def blocks(self, progress: Progress = silent, stage: str = "reading") -> Iterator[tuple[list[Key], F32]]:
        """Read keys and vectors, some thousand rows at a time.

        Raises:
            DataError: For the first row that has no vector.
        """
        done = 0
        for batch in self.source.batches(BLOCK_ROWS):
            if batch.bad:
                position = min(batch.bad)
                raise DataError(
                    f"Row {batch.start + position} of {self.source.name}: {batch.bad[position]}; correct it."
                )
            keys: list[Key] = list(range(batch.start, batch.start + len(batch)))
            if self.key is not None:
                keys = batch.columns[self.key].to_pylist()
            done += len(batch)
            progress(stage, done, self.count)
            yield keys, self.embed(batch.inputs)

    def columns(self, keys: Iterable[Key]) -> dict[Key, dict[str, Any]]:
        """Read the scalar columns of some rows by key; stop after the last of them."""
        wanted, found = set(keys), {}
        if not self.fields:
            return {}
        for batch in self.source.batches(BLOCK_ROWS):
            present = range(batch.start, batch.start + len(batch)) if self.key is None else batch.columns[self.key]
            for position, key in enumerate(present):
                name = key.as_py() if isinstance(key, pa.Scalar) else key
                if name in wanted:
                    found[name] = {field: batch.columns[field][position].as_py() for field in self.fields}
            if len(found) == len(wanted):
                break
        return found


def collection_rows(collection: Collection) -> RowSource:
    """Open the kept vectors of an Alula collection.

    Raises:
        UsageError: If they were dropped.
    """
    kept = collection.lowering.field
    if kept.storage == "dropped":
        raise UsageError(
            f"The collection {collection.name!r} keeps no vectors to find the true neighbours with; give the files "
            "that they came from as vectors=..., or the true neighbours as truth=... with queries=... too."
        )
    source = CollectionSource(collection.server, collection.name, vector_field=kept.name, live=True)
    return RowSource(source, collection.primary_key.name, _as_float32, source.rows)


def rows_of_collection_files(collection: Collection, places: str | Sequence[str], column: str | None) -> RowSource:
    """Open the files that a collection was loaded from, with the collection's keys.

    Raises:
        UsageError, DataError: If they cannot be read.
    """
    encoder, key = collection.lowering.encoder, collection.primary_key
    takes = encoder.info.input
    source = open_rows(
        encoder,
        places,
        vector_column=column if takes == "vectors" else None,
        text_column=column if takes == "text" else None,
    )
    if key.name not in source.scalars and key.data_type == "VARCHAR":
        raise UsageError(f"{source.name} has no column {key.name!r}, the key of {collection.name!r}; add it.")
    return _of_files(source, key.name, encoder.check_vectors if takes == "vectors" else encoder.embed)


def file_rows(places: str | Sequence[str], column: str | None, dim: int | None) -> RowSource:
    """Open files of vectors; the rows' keys are their numbers.

    Raises:
        UsageError, DataError: If they cannot be read.
    """
    return _of_files(open_source(places, column, dim=dim), None, _as_float32)


def _of_files(source: FileSource, key: str | None, embed: Callable[[Any], F32]) -> RowSource:
    path = Path(source.name)
    column = key if key in source.scalars else None
    return RowSource(source, column, embed, source.rows, path if path.is_file() else None, tuple(source.scalars))


def _as_float32(inputs: Any) -> F32:
    vectors: F32 = np.asarray(inputs, np.float32)
    return vectors


def sample_rows(rows: RowSource, count: int, seed: int, progress: Progress = silent) -> tuple[list[Key], F32]:
    """Draw rows uniformly at random, in random order.

    Raises:
        UsageError: If there are fewer rows.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty(0)
    keys: list[Key] = []
    vectors: F32 = np.empty((0, 0), np.float32)
    for block_keys, block in rows.blocks(progress, "drawing queries"):
        # reservoir sampling: each row draws a random number, and the rows with the least are kept
        numbers = np.concatenate([drawn, rng.random(len(block))])
        kept = np.argsort(numbers, kind="stable")[:count]
        known = len(drawn)
        keys = [keys[i] if i < known else block_keys[i - known] for i in kept]
        vectors = np.concatenate([vectors.reshape(known, block.shape[1]), block])[kept]
        drawn = numbers[kept]
    if len(keys) < count:
        raise UsageError(
            f"There are {len(keys):,} rows in {rows.source.name}, and {count:,} queries were to be drawn of them; give "
            "a smaller sample=..., or queries=..., a file of your own."
        )
    return keys, vectors
