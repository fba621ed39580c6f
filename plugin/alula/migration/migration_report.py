"""The result of a migration."""

from __future__ import annotations

from dataclasses import dataclass

from alula.errors import AlulaError
from alula.evaluation import RecallEstimate
from alula.ingest.load import LoadReport


class NotSettledError(AlulaError):
    """The source collection changed until the end of a migration."""


@dataclass(frozen=True)
class MigrationReport:
    """The result of a migration.

    Args:
        load: The report of the copy; None if an earlier run had finished it.
        rows: Rows of the source collection.
        changed: Rows that were copied again because they had changed; None without a changed field.
        added: Rows that were added concurrently.
        deleted: Rows that were deleted concurrently.
        bad: Rows that the new collection cannot contain.
        reason: The reason for one of them.
        settled: True if the last round found no difference.
        old_recall: Recall at 10 of the source collection's own index; None if it was not measured.
        new_recall: Recall at 10 of the new collection.
        alias_before: The collection that the alias named before; None if it is new, or there is no alias.
    """

    load: LoadReport | None
    rows: int
    changed: int | None
    added: int
    deleted: int
    bad: int
    reason: str
    settled: bool
    old_recall: RecallEstimate | None = None
    new_recall: RecallEstimate | None = None
    alias_before: str | None = None
