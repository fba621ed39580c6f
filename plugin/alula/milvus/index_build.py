"""Wait until a server has built the indexes of a collection."""

from __future__ import annotations

import time

from alula.errors import ServerError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.pymilvus_internals import index_failure
from alula.progress import Progress, silent

_POLL_SECONDS = 0.2


class IndexBuildError(ServerError):
    """An index could not be built, or was not in time."""


def wait_for_indexes(
    server: Server,
    name: str,
    timeout: float,
    *,
    remedy: str,
    rows: int = 0,
    stage: str = "",
    progress: Progress = silent,
) -> None:
    """Wait until the indexes of a collection hold its flushed rows.

    Args:
        server: The connected server.
        name: The collection.
        timeout: Seconds to wait.
        remedy: Advice for the error if they do not suffice.
        rows: The rows that the server must have counted; it learns of flushed rows a little later.
        stage: The name of this step for `progress`.
        progress: Called with the number of rows indexed.

    Raises:
        IndexBuildError: If building failed, or takes longer.
        ServerError: If the server does not answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        with milvus_errors("ask how far the index is"):
            indexes = server.client.list_indexes(name)
            states = [server.client.describe_index(name, index) for index in indexes]
            for index, state in zip(indexes, states, strict=True):
                if state.get("state") == "Failed":
                    why = index_failure(server, name, index).rstrip(".") or "no reason given"
                    raise IndexBuildError(f"Milvus could not build the index: {why}.")
        waiting = sum(int(state.get("pending_index_rows", 0)) for state in states)
        total = sum(int(state.get("total_rows", 0)) for state in states)
        progress(stage, total - waiting, total)
        if waiting == 0 and total >= rows:
            return
        if time.monotonic() > deadline:
            raise IndexBuildError(
                f"Milvus has not built the index in {timeout:g} seconds, and {max(waiting, rows - total):,} rows are "
                f"not indexed; {remedy}."
            )
        time.sleep(_POLL_SECONDS)
