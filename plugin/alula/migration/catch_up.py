"""Synchronise a copy of a collection with its original."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from alula.ingest.monitor import Status, StatusCallback
from alula.ingest.rpc_sink import IDS_PER_QUERY, RpcSink
from alula.ingest.target import Target
from alula.migration.source_collection import SourceCollection
from alula.milvus import any_of, delete_rows, literal
from alula.milvus.reading import keys_of
from alula.milvus.retrying import RateLimiter
from alula.sources import Batch, Cursor, Source


@dataclass(frozen=True)
class Changes:
    """Rows found by the values of a field that grows with every change.

    Args:
        grown: Rows with a greater value than the mark; all of them were copied.
        greatest: The next mark: the greatest value before these rows were read; None if there is no row.
    """

    grown: int
    greatest: int | None


@dataclass
class KeyDiff:
    """The resolved differences between the keys of an original and its copy.

    Args:
        keys: Rows of the original.
        copied: Rows that the copy lacked, and contains now.
        deleted: Rows that the original lacked, deleted from the copy.
        bad: Rows that the copy lacks and cannot contain.
        reason: The reason for the first of these.
        last: The last compared key: of as many keys as the original had at the beginning.
        whole: True if all keys were compared; else rows were added so fast that they are left to the next round.
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
    """Synchronises a copy.

    Args:
        old: The original.
        target: The copy.
        retry_timeout: Seconds for which a failing write is repeated.
        status: Counts rows read and written.
        progress: Called with the status when it changes.
    """

    def __init__(
        self, old: SourceCollection, target: Target, *, retry_timeout: float, status: Status, progress: StatusCallback
    ) -> None:
        self._old, self._target, self._status, self._progress = old, target, status, progress
        self._sink = RpcSink(target.server, target.name, target.specs, None, RateLimiter(1, retry_timeout))

    def rewrite(self, spans: Sequence[tuple[Cursor, Cursor]]) -> None:
        """Rewrite rows about which an answer of Milvus was lost: they may be doubled.

        Args:
            spans: The first and the last key of such rows.
        """
        key = self._old.primary_key.name
        for first, last in spans:
            for batch in self._read(f"{key} >= {literal(first)} and {key} <= {literal(last)}"):
                self._write(batch)

    def copy_changes(self, field: str, mark: int | None, last: Cursor | None) -> Changes:
        """Copy the rows that changed since a mark.

        Rows that have the mark itself are copied again: within one tick of a clock, rows may change after it was read.

        Args:
            field: The field that grows with every change.
            mark: Its greatest value at that time; None if there was no row.
            last: The last key to read; rows after it are left to the next round.
        """
        source = self._old.rows_where("" if mark is None else f"{field} >= {mark}", last=last)
        # Before the first row is read: a row that changes behind the reader has at least this value, but perhaps less
        # than one that changes in front of it and is read.
        greatest = max((pc.max(page).as_py() for page in source.keys(field)), default=mark)
        grown = 0
        for batch in self._batches(source):
            values = batch.columns[field]
            grown += len(values) if mark is None else pc.sum(pc.greater(values, mark)).as_py()
            self._write(batch)
        return Changes(grown, greatest)

    def sync_keys(self, sample: int, seed: int = 0) -> KeyDiff:
        """Compare the keys of both in order, copy missing rows and delete extra ones.

        Args:
            sample: Number of keys to sample.
            seed: Seed of the sample.
        """
        old, target = self._old, self._target
        diff, kept = KeyDiff(), _Reservoir(sample, seed)
        all_of_them = keys_of(old.server, old.name, old.primary_key, old.filter)
        theirs = kept.watch(itertools.islice(all_of_them, old.count()))
        ours = keys_of(target.server, target.name, target.primary_key)
        missing: list[Cursor] = []
        extra: list[Cursor] = []
        for key, is_missing in key_differences(theirs, ours):
            (missing if is_missing else extra).append(key)
            if len(missing) == IDS_PER_QUERY:
                self._copy(missing, diff)
            elif len(extra) == IDS_PER_QUERY:
                self._delete(extra, diff)
        self._copy(missing, diff)
        self._delete(extra, diff)
        diff.keys, diff.last, diff.sample = kept.seen, kept.last, tuple(kept.kept)
        diff.whole = next(all_of_them, None) is None
        return diff

    def _copy(self, keys: list[Cursor], diff: KeyDiff) -> None:
        if keys:
            for batch in self._read(any_of(self._old.primary_key.name, keys)):
                bad = self._write(batch)
                diff.copied += len(batch) - len(bad)
                diff.bad += len(bad)
                diff.reason = diff.reason or next(iter(bad.values()), "")
        keys.clear()

    def _delete(self, keys: list[Cursor], diff: KeyDiff) -> None:
        if keys:
            old, key = self._old, self._old.primary_key
            # a row may have been deleted and written again since its page was read, or lie after the last compared key
            back = set(keys_of(old.server, old.name, key, old.where(any_of(key.name, keys))))
            gone = [one for one in keys if one not in back]
            delete_rows(self._target.server, self._target.name, key.name, gone)
            diff.deleted += len(gone)
        keys.clear()

    def _read(self, filter: str) -> Iterator[Batch]:
        return self._batches(self._old.rows_where(filter))

    def _batches(self, source: Source) -> Iterator[Batch]:
        for batch in source.batches(self._target.batch_rows):
            self._status.read += len(batch)
            yield batch

    def _write(self, batch: Batch) -> dict[int, str]:
        """Write a batch; returns the reasons for rows that cannot be written, by position."""
        checked = self._target.check(batch)
        if len(checked):
            columns = self._target.encode(checked)
            self._status.encoded += len(checked)
            self._status.bytes += self._sink.write(columns, replace=True).bytes
            self._status.written += len(checked)
        self._progress(self._status)
        return dict(checked.bad)


def key_differences(old: Iterator[Any], new: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """Compare two streams of growing keys.

    Strings compare alike in Python and in Milvus: the order of code points is that of their UTF-8 bytes.

    Returns:
        The keys that are in one stream alone, and True if that is the old one.
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
    """A sample of a stream (Vitter's algorithm R, ACM TOMS 11, 1985)."""

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
            elif (position := self._random.randrange(self.seen)) < self._size:
                self.kept[position] = item
            yield item
