"""Milvus's calls for bulk import: submit, list tasks, count rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import grpc
import tenacity
from pymilvus import BulkInsertState
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError
from alula.milvus import Failure, Server, milvus_errors, server_words, what_failed
from alula.milvus.pymilvus_internals import list_imports, start_import
from alula.milvus.reading import count_rows

POLL_SECONDS = 0.5
RPC_SECONDS = 30.0
OUTAGE_SECONDS = 300.0  # a server with much data takes a minute or two to come back
STALLED_SECONDS = 1800.0  # the server itself gives a task up after 900

T = TypeVar("T")

_FAILED = (BulkInsertState.ImportFailed, BulkInsertState.ImportFailedAndCleaned)
_ENDED_BY_SERVER = ("service restarted", "timed out")


class ImportTask(NamedTuple):
    """An import task of the server; `file` is "" if it names none."""

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
    def ended_by_server(self) -> bool:
        """True if the reason of the failure is the server's end, not the file."""
        return any(words in self.reason for words in _ENDED_BY_SERVER)

    @property
    def may_show_rows(self) -> bool:
        """True if the server may have ended after showing rows, before completion."""
        return self.state == BulkInsertState.ImportFailed and self.rows > 0 and self.ended_by_server


def can_import(server: Server) -> bool:
    """True if a server has bulk import; Milvus Lite has none."""
    if server.embedded:
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

    def submit(self, file: str) -> int:
        """Ask the server, once, to import a file; returns the task's number."""
        return start_import(self._server, self._name, self._partition, file, RPC_SECONDS)

    def all(self) -> dict[int, ImportTask]:
        """The server's tasks for the collection, by number."""
        states = self._retried(
            f"list the imports into {self._name!r}", lambda: list_imports(self._server, self._name, RPC_SECONDS)
        )
        return {
            s.task_id: ImportTask(s.task_id, s.files, s.state, s.row_count, s.progress, s.failed_reason) for s in states
        }

    def count(self, filter_: str = "") -> int:
        """The number of rows that satisfy a filter."""
        return self._retried(
            f"count the rows of {self._name!r}",
            lambda: count_rows(self._server, self._name, filter_, partition=self._partition, timeout=RPC_SECONDS),
        )

    def refresh(self) -> None:
        """Have the server look for imported rows now, as it does by itself later."""
        with suppress(MilvusException, grpc.RpcError):
            self._server.client.refresh_load(self._name, timeout=RPC_SECONDS)

    def _retried(self, action: str, call: Callable[[], T]) -> T:
        with milvus_errors(action):
            return retrying()(call)


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


def retrying() -> tenacity.Retrying:
    """Retries calls for `OUTAGE_SECONDS`."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        stop=tenacity.stop_after_delay(OUTAGE_SECONDS),
        reraise=True,
    )


def _is_transient(error: BaseException) -> bool:
    """True if a call may succeed later; a restarted server loads collections."""
    if isinstance(error, ServerError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, MilvusException | grpc.RpcError):
        return False
    return what_failed(error) is not Failure.REFUSED or "not loaded" in server_words(error)
