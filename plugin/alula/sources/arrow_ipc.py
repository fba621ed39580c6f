"""Arrow IPC files and streams (Feather), one record batch in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from alula.sources.locations import File
from alula.sources.reading import Piece, Wanted, behind
from alula.sources.views import plain_record, plain_schema

_MAGIC = b"ARROW1"  # a file begins with it, a stream does not


class ArrowReader:
    """An Arrow IPC file or stream; see `Reader`."""

    def __init__(self, file: File, wanted: Wanted) -> None:  # noqa: ARG002 - every reader is made alike
        self.file = file
        self.column: str | None = None
        self.shape: tuple[int, ...] | None = None
        self.rows: int | None = None
        with file.open() as content:
            self._stream = content.read(len(_MAGIC)) != _MAGIC
        with ExitStack() as opened:
            self.schema = plain_schema(self._open(opened, None).schema)
        if not self._stream:
            # a single plain column is all that is read; a dataset's count_rows() reads everything
            plain = [field.name for field in self.schema if not pa.types.is_nested(field.type)]
            with ExitStack() as opened:
                source = self._open(opened, [*plain, *self.schema.names][:1])
                self.rows = sum(source.get_batch(i).num_rows for i in range(source.num_record_batches))

    def _open(self, opened: ExitStack, columns: Sequence[str] | None) -> Any:
        local = self.file.local
        source = opened.enter_context(pa.memory_map(str(local)) if local else self.file.system.open(self.file.path))
        fields = None if columns is None else [self.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        opener = pa.ipc.open_stream if self._stream else pa.ipc.open_file
        return opened.enter_context(opener(source, options=options))

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`."""
        with ExitStack() as opened:
            source = self._open(opened, columns)
            batches = source if self._stream else (source.get_batch(i) for i in range(source.num_record_batches))
            for piece in behind(self._counted(batches), skip):
                for start in range(0, len(piece), size):
                    yield piece.slice(start, size)

    def _counted(self, batches: Any) -> Iterator[Piece]:
        rows = 0
        for record in batches:
            yield Piece(plain_record(record))
            rows += record.num_rows
        self.rows = rows
