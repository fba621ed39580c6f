"""Parquet files, page by page: memory does not grow with the size of a row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow.parquet as pq

from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted, behind
from alula.sources.views import plain_record, plain_schema

_BUFFER = 1 << 20


class ParquetReader:
    """A Parquet file; see `Reader`."""

    def __init__(self, file: File, wanted: Wanted) -> None:  # noqa: ARG002 - every reader is made alike
        self.file = file
        self.column: str | None = None
        self.shape: tuple[int, ...] | None = None
        with self._opened() as parquet:
            self.schema = plain_schema(parquet.schema_arrow)
            self.rows: int | None = parquet.metadata.num_rows

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        # without a buffer, or read ahead, a column of a whole row group would be held at once
        source = str(self.file.local) if self.file.local else self.file.system.open(self.file.path, "rb")
        with pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER) as parquet:
            yield parquet

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`; whole row groups are skipped unread."""
        with self._opened() as parquet:
            about = parquet.metadata
            group = 0
            while group < about.num_row_groups and skip >= about.row_group(group).num_rows:
                skip -= about.row_group(group).num_rows
                group += 1
            rest = list(range(group, about.num_row_groups))
            records = parquet.iter_batches(size, row_groups=rest, columns=columns) if rest else ()
            yield from behind((Piece(plain_record(record)) for record in records), skip)
