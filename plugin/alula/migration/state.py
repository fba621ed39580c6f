"""The state of a migration, in the journal of its copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alula.errors import UsageError
from alula.ingest.journal import Journal
from alula.sources import Cursor

_NAME = "migration"
# The fields of `MigrationState` that say which migration it is, and their names in the journal and in errors.
_IDENTITY = {
    "source": "from",
    "target": "to",
    "filter": "filter",
    "vector_field": "vector field",
    "changed_field": "changed field",
}
_PROGRESS = ("last", "mark", "copied")


@dataclass(frozen=True)
class MigrationState:
    """A migration and its progress.

    Args:
        source: The source collection.
        target: The new collection.
        filter: The rows to migrate; "" for all.
        vector_field: The field with the vectors.
        changed_field: The integer field that grows with every change of a row; None without one.
        last: The last key of the source when it was read last; None for an empty one.
        mark: The greatest value of the changed field up to which changes are copied.
        copied: True when the copy is complete.
    """

    source: str
    target: str
    filter: str
    vector_field: str
    changed_field: str | None
    last: Cursor | None = None
    mark: int | None = None
    copied: bool = False

    def write(self, journal: Journal) -> MigrationState:
        """Record the state; returns it."""
        values: Mapping[str, Any] = dataclasses.asdict(self)
        named = {label: values[name] for name, label in _IDENTITY.items()}
        journal.file.put(**{_NAME: named | {name: values[name] for name in _PROGRESS}})
        return self

    @classmethod
    def read(cls, journal: Journal) -> MigrationState | None:
        """The recorded state; None in a new journal."""
        values = journal.file.get(_NAME)
        if values is None:
            return None
        named = {name: values[label] for name, label in _IDENTITY.items()}
        return cls(**named, **{name: values[name] for name in _PROGRESS})

    def check_same(self, other: MigrationState, journal: Journal) -> None:
        """Raise a `UsageError` if a journal is of another migration."""
        for name, label in _IDENTITY.items():
            then, now = getattr(self, name), getattr(other, name)
            if then != now:
                raise UsageError(
                    f"The journal {journal.path} is of a migration with another {label} ({then or 'none'}, and now "
                    f"{now or 'none'}); resume it with the same, or restart."
                )
