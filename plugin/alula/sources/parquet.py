"""Parquet files, page by page: memory does not grow with the size of a row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow.parquet as pq

from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted, behind
from alula.sources.row_bytes import BATCH_BYTES, cut_by_bytes
from alula.sources.views import plain_record, plain_schema

_BUFFER = 1 << 20
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}  # bytes of a value; others have 8, and texts a place of 4 and more


class ParquetReader:
    """A Parquet file; see `Reader`."""

    def __init__(self, file: File, wanted: Wanted) -> None:  # noqa: ARG002 - every reader is made alike
        self.file = file
        self.column: str | None = None
        self.shape: tuple[int, ...] | None = None
        self._texts: list[str] = []
        with self._opened() as parquet:
            self.schema = plain_schema(parquet.schema_arrow)
            self.rows: int | None = parquet.metadata.num_rows
            columns = (parquet.schema.column(i) for i in range(len(parquet.schema)))
            # a text that a page has once may be that of all rows: it is written out for some rows at a time
            self._texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
            groups = (parquet.metadata.row_group(i) for i in range(parquet.num_row_groups))
            self._most = min(map(_rows_at_once, groups), default=1)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        # without a buffer, or read ahead, a column of a whole row group would be held at once
        source = str(self.file.local) if self.file.local else self.file.system.open(self.file.path, "rb")
        with pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER, read_dictionary=self._texts) as parquet:
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
            records = parquet.iter_batches(min(size, self._most), row_groups=rest, columns=columns) if rest else ()
            parts = (part for record in records for part in cut_by_bytes(record, BATCH_BYTES))
            yield from behind((Piece(plain_record(part)) for part in parts), skip)


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """The rows of a row group that take `BATCH_BYTES`, texts as they are stored."""
    size = 0
    for i in range(group.num_columns):
        column = group.column(i)
        size += max(column.total_uncompressed_size, _WIDTHS.get(column.physical_type, 8) * column.num_values)
    rows: int = max(1, group.num_rows * BATCH_BYTES // max(1, size))
    return rows
