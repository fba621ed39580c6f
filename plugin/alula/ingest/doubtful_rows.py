"""Rewrite rows that may be doubled or missing after a lost answer."""

from __future__ import annotations

from collections.abc import Iterator

from alula.ingest.pipeline import LoadTask
from alula.ingest.rpc_sink import RpcSink
from alula.sources import Batch, Cursor, Source
from alula.sources.source_slice import SourceSlice


def rewrite_doubtful(task: LoadTask, sink: RpcSink) -> None:
    """Upsert the batches in doubt that have doubled or missing rows.

    The server may still carry out a call that was given up, after the call that replaced it: then a row is doubled.
    """
    journal, target = task.journal, task.target
    key = target.primary_key.name
    duplicates = journal.duplicates or []
    spans = set(journal.doubtful)
    for batch in _batches_of(task.source, spans, task.batch_rows):
        checked = target.check(batch, duplicates)
        keys = list(checked.values[key])
        there: list[int] = []
        task.limiter.run(f"look for rows in {target.name!r}", lambda _: there.append(sink.count_of(keys)))  # noqa: B023
        if there[-1] != len(keys):
            sink.write(target.encode(checked), replace=True)


def _batches_of(source: Source, spans: set[tuple[Cursor, Cursor]], size: int) -> Iterator[Batch]:
    """The batches with these cursors."""
    if not spans:
        return
    if all(isinstance(first, int) for first, _ in spans):
        for first, last in sorted(spans):
            yield from SourceSlice(source, int(first), int(last)).batches(size)
        return
    yield from (batch for batch in source.batches(size) if batch.span in spans)
