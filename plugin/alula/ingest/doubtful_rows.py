"""Look once more at rows about which an answer was lost."""

from __future__ import annotations

from collections.abc import Iterator

from alula.ingest.journal import Journal
from alula.ingest.rpc_sink import RpcSink
from alula.ingest.target import Target
from alula.milvus.retrying import RateLimiter
from alula.sources import Batch, Cursor, Source
from alula.sources.source_slice import Part


def settle(journal: Journal, target: Target, source: Source, sink: RpcSink, pace: RateLimiter, *, size: int) -> None:
    """Write rows anew that are there twice, or not at all, because an answer was lost.

    A call that was given up may still be carried out by the server, after the one that replaced it: then a row is there
    twice. Rows that are, or that are missing, are written anew.
    """
    key = target.primary_key.name
    duplicates = journal.duplicates or []
    spans = set(journal.doubtful)
    for batch in _batches_of(source, spans, size):
        checked = target.check(batch, duplicates)
        keys = list(checked.values[key])
        there: list[int] = []
        pace.make(f"look for rows in {target.name!r}", lambda _: there.append(sink.count_of(keys)))  # noqa: B023
        if there != [len(keys)]:
            sink.write(target.encode(checked), replace=True)


def _batches_of(source: Source, spans: set[tuple[Cursor, Cursor]], size: int) -> Iterator[Batch]:
    """The batches with these cursors."""
    if not spans:
        return
    if all(isinstance(first, int) for first, _ in spans):
        for first, last in sorted(spans):
            yield from Part(source, int(first), int(last)).batches(size)
        return
    yield from (batch for batch in source.batches(size) if batch.span in spans)
