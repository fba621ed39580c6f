"""Bring a copy of a collection up to date with the original, which is written to meanwhile."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from alula.ingest.pipeline import Progress, Status
from alula.ingest.rpc_sink import IDS_PER_QUERY, RpcSink
from alula.ingest.target import Target
from alula.migration.source_collection import OldCollection
from alula.milvus import any_of, delete_rows, literal
from alula.milvus.reading import keys_of
from alula.milvus.retrying import RateLimiter
from alula.sources import Batch, Cursor, Source


@dataclass(frozen=True)
class Change:
    """What was found by the values of a field that grows.

    Args:
        grown: Rows with a greater value than the mark; all of them were copied.
        greatest: The mark for the next time: the greatest value before these rows were read; None if there is no row.
    """

    grown: int
    greatest: int | None


@dataclass
class Walk:
    """What a walk along the keys found and did.

    Args:
        keys: Rows of the original.
        copied: Rows that the copy lacked, and holds now.
        deleted: Rows that the original has no more, and the copy neither.
        bad: Rows that the copy lacks and cannot hold.
        reason: Why, of the first of these.
        last: The last key of the original, or of as many keys as there were when the walk began.
        whole: Whether it came to the end; else rows were added so fast that it was left to the next walk.
        sample: Keys of the original, each as likely as any other.
    """

    keys: int = 0
    copied: int = 0
    deleted: int = 0
    bad: int = 0
    reason: str = ""
    last: Cursor | None = None
    whole: bool = True
    sample: tuple[Cursor, ...] = ()


class CatchUp:
    """Brings a copy up to date.

    Args:
        old: The original.
        target: The copy.
        patience: Seconds for which a failing write is made again.
        status: Told how many rows were read and written.
        progress: Called when it changes.
    """

    def __init__(
        self, old: OldCollection, target: Target, *, patience: float, status: Status, progress: Progress
    ) -> None:
        self._old, self._target, self._status, self._progress = old, target, status, progress
        self._sink = RpcSink(target.server, target.name, target.specs, None, RateLimiter(1, patience))

    def rewrite(self, spans: Sequence[tuple[Cursor, Cursor]]) -> None:
        """Write rows anew about which an answer of Milvus was lost: they may be there twice.

        Args:
            spans: The first and the last key of such rows.
        """
        key = self._old.primary_key.name
        for first, last in spans:
            for batch in self._read(f"{key} >= {literal(first)} and {key} <= {literal(last)}"):
                self._write(batch)

    def changed(self, field: str, mark: int | None, last: Cursor | None) -> Change:
        """Copy the rows that changed since a mark.

        Rows that have the mark itself are copied again: within one tick of a clock, rows may change after it was read.

        Args:
            field: The field that grows with every change.
            mark: Its greatest value then; None if there was no row.
            last: The last key to look at; rows behind it are left to the next walk.
        """
        source = self._old.source("" if mark is None else f"{field} >= {mark}", last=last)
        # Before the first row is read: a row that changes behind the reader has at least this value, but perhaps less
        # than one that changes in front of it and is read.
        greatest = max((pc.max(page).as_py() for page in source.keys(field)), default=mark)
        grown = 0
        for batch in self._batches(source):
            values = batch.columns[field]
            grown += len(values) if mark is None else pc.sum(pc.greater(values, mark)).as_py()
            self._write(batch)
        return Change(grown, greatest)

    def walk(self, sample: int, seed: int = 0) -> Walk:
        """Walk along the keys of both in order, copy the rows that are missing and delete those that are too many.

        Args:
            sample: How many keys to sample.
            seed: Of the sample.
        """
        old, target = self._old, self._target
        walk, kept = Walk(), _Reservoir(sample, seed)
        all_of_them = keys_of(old.server, old.name, old.primary_key, old.filter)
        theirs = kept.watch(itertools.islice(all_of_them, old.count()))
        ours = keys_of(target.server, target.name, target.primary_key)
        missing: list[Cursor] = []
        extra: list[Cursor] = []
        for key, is_missing in key_differences(theirs, ours):
            (missing if is_missing else extra).append(key)
            if len(missing) == IDS_PER_QUERY:
                self._copy(missing, walk)
            elif len(extra) == IDS_PER_QUERY:
                self._delete(extra, walk)
        self._copy(missing, walk)
        self._delete(extra, walk)
        walk.keys, walk.last, walk.sample = kept.seen, kept.last, tuple(kept.kept)
        walk.whole = next(all_of_them, None) is None
        return walk

    def _copy(self, keys: list[Cursor], walk: Walk) -> None:
        if keys:
            for batch in self._read(any_of(self._old.primary_key.name, keys)):
                bad = self._write(batch)
                walk.copied += len(batch) - len(bad)
                walk.bad += len(bad)
                walk.reason = walk.reason or next(iter(bad.values()), "")
        keys.clear()

    def _delete(self, keys: list[Cursor], walk: Walk) -> None:
        if keys:
            old, key = self._old, self._old.primary_key
            # a row may have been deleted and written again since its page was read, or lie behind where the walk ends
            back = set(keys_of(old.server, old.name, key, old.where(any_of(key.name, keys))))
            gone = [one for one in keys if one not in back]
            delete_rows(self._target.server, self._target.name, key.name, gone)
            walk.deleted += len(gone)
        keys.clear()

    def _read(self, filter: str) -> Iterator[Batch]:
        return self._batches(self._old.source(filter))

    def _batches(self, source: Source) -> Iterator[Batch]:
        for batch in source.batches(self._target.batch_rows):
            self._status.read += len(batch)
            yield batch

    def _write(self, batch: Batch) -> dict[int, str]:
        """Why rows of a batch cannot be written; the others are."""
        checked = self._target.check(batch)
        if len(checked):
            columns = self._target.encode(checked)
            self._status.encoded += len(checked)
            self._status.bytes += self._sink.write(columns, replace=True).bytes
            self._status.written += len(checked)
        self._progress(self._status)
        return dict(checked.bad)


def key_differences(old: Iterator[Any], new: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """Merge two streams of keys that grow.

    Strings compare alike in Python and in Milvus: the order of code points is that of their UTF-8 bytes.

    Returns:
        The keys that are in one alone, and whether it is the old one.
    """
    ours, theirs = next(new, None), next(old, None)
    while theirs is not None or ours is not None:
        if ours is None or (theirs is not None and theirs < ours):
            yield theirs, True
            theirs = next(old, None)
        elif theirs is None or ours < theirs:
            yield ours, False
            ours = next(new, None)
        else:
            ours, theirs = next(new, None), next(old, None)


class _Reservoir:
    """A sample of a stream whose length nobody knows (Vitter's algorithm R, ACM TOMS 11, 1985)."""

    def __init__(self, size: int, seed: int) -> None:
        self.kept: list[Any] = []
        self.seen = 0
        self.last: Any = None
        self._size = size
        self._random = random.Random(seed)  # noqa: S311 - a sample, no secret

    def watch(self, stream: Iterator[Any]) -> Iterator[Any]:
        """The stream as it is."""
        for item in stream:
            self.seen, self.last = self.seen + 1, item
            if len(self.kept) < self._size:
                self.kept.append(item)
            elif (place := self._random.randrange(self.seen)) < self._size:
                self.kept[place] = item
            yield item
