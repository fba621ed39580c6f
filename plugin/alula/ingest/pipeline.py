"""Load rows: check them all, then encode and write them, and count what arrived."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa

from alula.encoders import EncoderInfo, Input
from alula.errors import AlulaError, DataError, InterruptedLoadError, ServerError, UsageError
from alula.index_types import Lowering
from alula.ingest.sink import InsertSink
from alula.ingest.sources import Batch, check_finite
from alula.schema import ScalarField
from alula.servers import Server, milvus_errors

BATCH_ROWS = 8192
BATCH_BYTES = 64 << 20
Progress = Callable[[str, int, "int | None"], None]


class Source(Protocol):
    """Anything that gives rows in batches."""

    path: Any
    input: Input
    rows: int | None
    scalars: dict[str, pa.DataType]

    def batches(self, size: int = BATCH_ROWS) -> Iterator[Batch]:
        """The rows in order, the same each time."""


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Args:
        rows: Rows written.
        replaced: How many of them took the place of a row with the same id.
        total: Rows in the collection afterwards.
        seconds: Time for encoding and writing.
        numbered: Whether the rows were numbered because the source has no id column.
        ignored: Columns of the source that the collection has no field for.
    """

    rows: int
    replaced: int
    total: int
    seconds: float
    numbered: bool
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """What a load needs to know of a collection."""

    server: Server
    name: str
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    lowering: Lowering
    count: Callable[[], int]


def load(
    target: Target, source: Source, *, partition: str | None = None, progress: Progress | None = None
) -> LoadReport:
    """Load a source into a collection.

    The source is read twice: a first pass checks every row, so that a bad one stops the load before anything is
    written. A row whose id is in the collection already replaces it, so a load that broke off can simply be repeated.

    Args:
        target: The collection.
        source: The rows.
        partition: Partition to write to.
        progress: Called with the stage, the rows done and the rows in all (None when not known).

    Raises:
        UsageError: If the source gives something else than the encoder takes.
        DataError: If a row cannot be loaded; nothing was written.
        ServerError: If Milvus refuses rows, or holds another number of rows afterwards than it should.
    """
    report: Progress = progress or (lambda *_: None)
    if partition is not None:
        _check_partition(target, partition)
    takes = target.lowering.encoder.info.input
    if source.input != takes:
        raise UsageError(
            f"{source.path} was opened for {source.input}, and the encoder of {target.name!r} takes {takes}."
        )
    key = target.primary_key
    numbered = key.name not in source.scalars
    _check_columns(target, source, numbered=numbered)
    rows = _check_rows(target, source, report, numbered=numbered)
    before = target.count()
    sink = InsertSink(target.server, target.name, key.name, partition, replace=before > 0)
    started = time.perf_counter()
    try:
        _encode_and_write(target, source, sink, lambda stage, done: report(stage, done, rows), numbered=numbered)
        if not target.server.embedded:
            with milvus_errors(f"flush {target.name!r}"):
                target.server.client.flush(target.name)
    except (AlulaError, KeyboardInterrupt) as error:
        kind = InterruptedLoadError if isinstance(error, KeyboardInterrupt) else type(error)
        raise kind(
            f"{str(error) or 'Stopped.'} {sink.written:,} of {rows:,} rows were written; load the file again to go on: "
            "rows that are there already are replaced, not doubled."
        ) from error
    seconds = time.perf_counter() - started
    total, expected = target.count(), before + rows - sink.replaced
    if total != expected:
        raise ServerError(
            f"The collection {target.name!r} holds {total} rows after the load, and should hold {expected}; if nobody "
            "else writes to it, load the file again."
        )
    known = {key.name, *(field.name for field in target.fields)}
    ignored = tuple(name for name in source.scalars if name not in known)
    return LoadReport(rows, sink.replaced, total, seconds, numbered, ignored)


def _encode_and_write(
    target: Target, source: Source, sink: InsertSink, done: Callable[[str, int], None], *, numbered: bool
) -> None:
    """Encode the next batch while the last one is being written."""
    encoder = target.lowering.encoder
    with ThreadPoolExecutor(1) as writer:
        pending: Future[None] | None = None
        for batch in source.batches(_batch_rows(encoder.info)):
            columns = _columns(target, batch, numbered=numbered)

            def embedded(rows: int, start: int = batch.start) -> None:
                done("embedding", start + rows)

            vectors = encoder.embed(batch.inputs, progress=embedded)
            if target.lowering.field.storage != "dropped":
                keep_as_list = target.lowering.field.storage == "column"
                columns[target.lowering.field.name] = vectors.tolist() if keep_as_list else vectors
            columns |= target.lowering.encode_rows(vectors)
            if pending is not None:
                pending.result()
                done("loading", sink.written)
            pending = writer.submit(sink.write, columns)
        if pending is not None:
            pending.result()
            done("loading", sink.written)


def _batch_rows(info: EncoderInfo) -> int:
    """Rows of which neither the vectors nor the images take more than `BATCH_BYTES`."""
    row = max(4 * info.input_dim, math.prod(info.image_shape))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // row))


def _columns(target: Target, batch: Batch, *, numbered: bool) -> dict[str, Any]:
    """The scalar fields of a batch as lists, the primary key among them."""
    columns: dict[str, Any] = {
        field.name: field.convert(batch.columns[field.name], batch.start) for field in target.fields
    }
    key = target.primary_key
    if numbered:
        columns[key.name] = list(range(batch.start, batch.start + len(batch)))
    else:
        columns[key.name] = key.convert(batch.columns[key.name], batch.start)
    return columns


def _check_partition(target: Target, partition: str) -> None:
    target.server.check_partitions("load without")
    with milvus_errors(f"list the partitions of {target.name!r}"):
        there = target.server.client.list_partitions(target.name)
    if partition not in there:
        raise UsageError(f"The collection {target.name!r} has no partition {partition!r}; it has: {', '.join(there)}.")


def _check_columns(target: Target, source: Source, *, numbered: bool) -> None:
    if numbered and target.primary_key.data_type != "INT64":
        have = ", ".join(source.scalars) or "none"
        raise DataError(
            f"{source.path} has no column {target.primary_key.name!r} for the string ids of {target.name!r}; "
            f"its scalar columns: {have}."
        )
    missing = [field.name for field in target.fields if field.name not in source.scalars]
    if missing:
        raise DataError(
            f"{source.path} lacks the column {', '.join(map(repr, missing))} that {target.name!r} has; add it."
        )


def _check_rows(target: Target, source: Source, report: Progress, *, numbered: bool) -> int:
    """Check every row; the number of rows.

    Raises:
        DataError: The first row that cannot be loaded, and why.
    """
    key = target.primary_key
    seen: set[Any] = set()
    rows = 0
    for batch in source.batches(_batch_rows(target.lowering.encoder.info)):
        _check_inputs(target, source, batch)
        columns = _columns(target, batch, numbered=numbered)
        if not numbered:
            _check_keys(target, columns[key.name], seen, batch.start)
        rows += len(batch)
        report("checking", rows, source.rows)
    return rows


def _check_inputs(target: Target, source: Source, batch: Batch) -> None:
    if source.input != "vectors":  # the backbone is slow, and runs only once
        target.lowering.encoder.check_inputs(batch.inputs, what=f"{source.input} of {source.path}")
        return
    dim, given = target.lowering.field.dim, cast(Any, batch.inputs).shape[1]
    if given != dim:
        raise DataError(
            f"The vectors of {source.path} have dimension {given}, and the collection {target.name!r} takes {dim}."
        )
    check_finite(batch, source.path)


def _check_keys(target: Target, keys: list[Any], seen: set[Any], start: int) -> None:
    unique = set(keys)
    if len(unique) < len(keys) or not seen.isdisjoint(unique):
        for i, value in enumerate(keys):
            if value in seen:
                raise DataError(f"Row {start + i} has the id {value!r} of an earlier row; ids must be unique.")
            seen.add(value)
    seen |= unique
    if target.server.embedded and target.primary_key.data_type == "VARCHAR":
        for i, value in enumerate(keys):
            if "\n" in value or "\r" in value:
                raise DataError(
                    f"Row {start + i} has a line break in its id {value!r}, which Milvus Lite cannot find again."
                )
