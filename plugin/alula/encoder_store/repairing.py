"""Remove the rows of the encoder store that cannot be read, and check its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alula.encoder_store.content import content
from alula.encoder_store.entries import COLLECTION, BadRow, Entry, entries_and_bad_rows
from alula.encoder_store.rows import flush, querying, remove_leftovers
from alula.milvus.connection import Server
from alula.milvus.deleting import delete_rows
from alula.progress import Progress, silent


@dataclass(frozen=True)
class RepairResult:
    """The outcome of a repair.

    Args:
        removed: Rows that described or named nothing.
        kept: Rows that a newer Alula may have written.
        damaged: Files whose parts do not give their fingerprint; a push of the file with ``replace=True`` mends them.
        whole: Files that are complete.
    """

    removed: Sequence[BadRow]
    kept: Sequence[BadRow]
    damaged: Sequence[Entry]
    whole: Sequence[Entry]


def repair(server: Server, *, progress: Progress = silent) -> RepairResult:
    """Remove bad rows and old parts of incomplete files, and read every file.

    Args:
        server: The connected server.
        progress: Receives the stage "checking" and the bytes of each file.

    Raises:
        ServerError: If Milvus fails.
    """
    query = querying(server)
    known, bad = entries_and_bad_rows(query)
    removed = [row for row in bad if not row.newer]
    if removed:
        delete_rows(server, COLLECTION, "id", [row.id for row in removed])
    damaged: list[Entry] = []
    whole: list[Entry] = []
    for entry in known:
        complete = content(querying(server, "Eventually"), entry, "checking", progress) is not None
        (whole if complete else damaged).append(entry)
    if known or bad:
        remove_leftovers(server, query, [entry.sha256 for entry in known])
        flush(server)
    return RepairResult(removed, [row for row in bad if row.newer], damaged, whole)
