"""Messages between the driver of a Ray load and its workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alula.ingest.journal import Acknowledgement
from alula.sources import Cursor, Source


@dataclass(frozen=True)
class Unit:
    """A slice of a source that one worker loads.

    Args:
        number: Its index after the acknowledged rows.
        first: Number of its first row.
        last: Number of its last row.
        duplicates: Numbers of rows in it whose key an earlier row has.
        in_doubt: True if an earlier run may have written rows of it.
    """

    number: int
    first: int
    last: int
    duplicates: Sequence[int]
    in_doubt: bool

    @property
    def span(self) -> tuple[int, int]:
        """The numbers of its first and last row."""
        return self.first, self.last


@dataclass(frozen=True)
class Result:
    """The result of one slice.

    Args:
        number: The slice's.
        worker: The worker's id.
        acknowledgement: The rows.
        doubtful: Batches about which an answer was lost.
        written: Rows written.
        bytes: Bytes written.
        busy: Seconds of reading, encoding and writing, summed over the worker's threads.
        retries: Repeated calls.
    """

    number: int
    worker: str
    acknowledgement: Acknowledgement
    doubtful: Sequence[tuple[Cursor, Cursor]]
    written: int
    bytes: int
    busy: dict[str, float]
    retries: int


@dataclass(frozen=True)
class RayTask:
    """The part of a load that is the same for all workers.

    It is in Ray's object store, out of its logs and dashboard.

    Args:
        source: The rows; every machine must find the files under the same names.
        encoder: The encoder file's name and content.
        uri: Address of Milvus.
        login: The other arguments of `connect`; the file of a certificate authority must be on every machine.
        collection: The collection.
        partition: Partition to write to.
        batch_rows: Rows in a batch.
        max_errors: The most rows that may be rejected.
        retry_timeout: Seconds for which a failing call to Milvus is repeated.
    """

    source: Source
    encoder: tuple[str, bytes]
    uri: str
    login: dict[str, Any] = field(repr=False)
    collection: str
    partition: str | None
    batch_rows: int
    max_errors: int
    retry_timeout: float


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def last_line(error: BaseException) -> str:
    """The last line of a message of Ray's, which begins with the stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
