"""Milvus's calls for bulk import: submit, list tasks, count rows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple, TypeVar

import grpc
from pymilvus import BulkInsertState
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError
from alula.milvus import Server
from alula.milvus.capabilities import version_number
from alula.milvus.pymilvus_internals import import_state, list_imports, start_import
from alula.milvus.reading import count_rows
from alula.milvus.retrying import call_with_retries

POLL_SECONDS = 0.5
RPC_SECONDS = 30.0
RETRY_TIMEOUT = 300.0  # a server with much data takes a minute or two to come back
STALLED_SECONDS = 1800.0  # the server itself gives a task up after 900

T = TypeVar("T")

_FAILED = (BulkInsertState.ImportFailed, BulkInsertState.ImportFailedAndCleaned)
_FORGOTTEN = ("key not found", "job does not exist")  # Milvus 2.3; 2.4 and later
_ENDED_BY_SERVER = ("service restarted", "timed out")


class ImportTask(NamedTuple):
    """An import task of the server.

    Milvus 2.4 and later list a task without its number and its file, which are then 0 and "".
    """

    id: int
    file: str
    state: int
    rows: int
    percent: int
    reason: str

    @property
    def completed(self) -> bool:
        """True if the rows are imported."""
        return bool(self.state == BulkInsertState.ImportCompleted)

    @property
    def failed(self) -> bool:
        """True if the task has failed."""
        return self.state in _FAILED

    @property
    def running(self) -> bool:
        """True if the task has neither completed nor failed."""
        return not (self.completed or self.failed)

    @property
    def ended_by_server(self) -> bool:
        """True if the reason of the failure is the server's end, not the file."""
        return any(words in self.reason for words in _ENDED_BY_SERVER)

    @property
    def may_show_rows(self) -> bool:
        """True if the server may have ended after showing rows, before completion."""
        return self.state == BulkInsertState.ImportFailed and self.rows > 0 and self.ended_by_server


def can_import(server: Server) -> bool:
    """True if a server has bulk import; Milvus Lite has none."""
    if not server.dialect.bulk_import:
        return False
    try:
        list_imports(server, "", RPC_SECONDS, limit=1)
    except (MilvusException, grpc.RpcError):
        return False
    return True


def under_way(tasks: Sequence[ImportTask]) -> ImportTask | None:
    """The first task that has not failed."""
    return next((task for task in tasks if not task.failed), None)


class ImportTasks:
    """The import tasks of one collection.

    Args:
        server: The connected server.
        name: The collection.
        partition: Partition to import into; "" for the default one.
    """

    def __init__(self, server: Server, name: str, partition: str) -> None:
        self._server = server
        self._name = name
        self._partition = partition

    @cached_property
    def repeatable(self) -> bool:
        """True if the server starts no second import for a repeated request."""
        number = version_number(self._server)
        return (2, 6, 24) <= number < (3,) or number >= (3, 0, 2)

    def submit(self, file: str) -> int:
        """Ask the server to import a file; returns the task's number.

        The request is named for the file, and a file of this name has one content: one that is imported again, after a
        failure, has another name. Named for the content alone, a load after a failed one would get the failed task.
        """
        key = hashlib.sha256(f"{self._name}\0{file}".encode()).hexdigest()
        return start_import(self._server, self._name, self._partition, file, timeout=RPC_SECONDS, key=f"alula-{key}")

    def listed(self) -> list[ImportTask]:
        """The server's tasks for the collection."""
        states = call_with_retries(
            f"list the imports into {self._name!r}",
            lambda: list_imports(self._server, self._name, RPC_SECONDS),
            RETRY_TIMEOUT,
        )
        return [_task(state) for state in states]

    def of(self, ids: Iterable[int | None]) -> dict[int, ImportTask]:
        """The tasks with these numbers, None apart, that the server still knows."""
        tasks = {id_: self._one(id_) for id_ in ids if id_ is not None}
        return {id_: task for id_, task in tasks.items() if task is not None}

    def _one(self, id_: int) -> ImportTask | None:
        def ask() -> ImportTask | None:
            try:
                return _task(import_state(self._server, id_, RPC_SECONDS))
            except MilvusException as error:
                if any(words in str(error.message) for words in _FORGOTTEN):
                    return None
                raise

        return call_with_retries(f"follow the import {id_} into {self._name!r}", ask, RETRY_TIMEOUT)

    def count(self, filter_: str = "") -> int:
        """The number of rows that satisfy a filter."""
        return call_with_retries(
            f"count the rows of {self._name!r}",
            lambda: count_rows(self._server, self._name, filter_, partition=self._partition, timeout=RPC_SECONDS),
            RETRY_TIMEOUT,
        )

    def refresh(self) -> None:
        """Have the server look for imported rows now, as it does by itself later."""
        with suppress(MilvusException, grpc.RpcError):
            self._server.client.refresh_load(self._name, timeout=RPC_SECONDS)


def _task(state: BulkInsertState) -> ImportTask:
    return ImportTask(state.task_id, state.files, state.state, state.row_count, state.progress, state.failed_reason)


class StallClock:
    """Polls the server, and gives up after `STALLED_SECONDS` without a change."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = time.monotonic()

    def wait(self, seen: object, action: str) -> None:
        """Wait once.

        Args:
            seen: The state of the server, to be compared with the last one.
            action: The expected action, in words that continue "Milvus did not".

        Raises:
            ServerError: If nothing has changed for too long.
        """
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        if time.monotonic() - self._since > STALLED_SECONDS:
            raise ServerError(f"Milvus did not {action} (nothing has changed for {STALLED_SECONDS / 60:.0f} minutes).")
        time.sleep(POLL_SECONDS)
