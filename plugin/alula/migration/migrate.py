"""Migrate a collection to another index type or encoder, while it serves.

The loader copies the rows, with its journal; rounds of synchronisation copy concurrent changes; the recall of both is
compared; then the alias that clients search by is moved, in one step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alula.catalog.binding import check_fit
from alula.catalog.create import create, design
from alula.catalog.schema import fields_text
from alula.collection import Collection
from alula.encoders import Encoder, load_encoder
from alula.errors import AlulaError, DataError, LoadInterrupted, UsageError
from alula.index_types import FieldSpec, IndexType
from alula.index_types import index_type as find_index_type
from alula.ingest.journal import Journal
from alula.ingest.load import RETRY_TIMEOUT, LoadReport, load
from alula.ingest.monitor import Status, StatusCallback
from alula.migration.catch_up import CatchUp, KeyDiff
from alula.migration.migration_report import MigrationReport, NotSettledError
from alula.migration.recall import compare_recall
from alula.migration.source_collection import SourceCollection
from alula.migration.state import MigrationState
from alula.milvus import Server, alias_target, aliases_of, milvus_errors, point_alias
from alula.milvus.reading import read_pages
from alula.milvus.wire.types import ARROW_TYPES

ROUNDS = 5  # of synchronisation: a writer that is faster than the copy would prolong it for ever
INTEGERS = ("INT8", "INT16", "INT32", "INT64")


class Migration:
    """A migration, checked before anything is written.

    Args:
        old: The source collection.
        name: The new one.
        encoder: Its encoder.
        index_type: Its index type.
        options: Create options of the index type.
        keep_vectors: Keep the vectors in the new collection.
        vector_type: The type of the field that keeps them.
        changed_field: An integer field of the source that grows with every change of any row.
        alias: The alias to move to the new collection at the end.
        old_encoder: The encoder of the source, if that is Alula's, to measure its recall.
        resume: True if the new collection may exist, from an earlier run.

    Raises:
        UsageError: If a name, field or option is wrong, or the new collection exists and `resume` is false.
        UnsupportedError, EncoderError: As `Collection.create`.
        ServerError: If Milvus fails.
    """

    def __init__(
        self,
        old: SourceCollection,
        name: str,
        *,
        encoder: Encoder | str | Path,
        index_type: str,
        options: Mapping[str, Any] | None = None,
        keep_vectors: bool = True,
        vector_type: str = "FLOAT_VECTOR",
        changed_field: str | None = None,
        alias: str | None = None,
        old_encoder: Encoder | str | Path | None = None,
        resume: bool = False,
    ) -> None:
        self.old, self.changed_field, self.alias = old, changed_field, alias
        self._server = old.server
        self._encoder = encoder if isinstance(encoder, Encoder) else load_encoder(encoder)
        self._check(name, find_index_type(index_type))
        self._old_opened = self._open_old(old_encoder)
        self._exists = resume and self._server.has_collection(name)
        if self._exists:
            self.new = Collection.open(self._server, name, encoder=self._encoder)
            self._check_same(index_type, vector_type)
        else:
            spec = design(
                self._server,
                name,
                encoder=self._encoder,
                index_type=index_type,
                field=old.vector_field,
                primary_key=old.primary_key,
                columns=old.fields,
                keep_vectors=keep_vectors,
                vector_type=vector_type,
                partition_key=old.partition_key,
                dynamic=old.dynamic,
                options=options,
            )
            self.new = Collection(spec)

    def _check(self, name: str, kind: IndexType) -> None:
        """Raise for errors that would otherwise show while rows are copied."""
        old, info = self.old, self._encoder.info
        if old.name == name:
            raise UsageError(f"{name!r} is the source collection itself; give the new one another name.")
        if self.alias is not None:
            self._server.check_aliases()
            alias_target(self._server, self.alias)
        if info.input != "vectors":
            raise UsageError(
                f"The encoder {self._encoder.path.name} takes {info.input}, and a migration reads vectors; create the "
                "new collection and load the files of its inputs into it."
            )
        subject = f"The collection {old.name!r}"
        check_fit(kind, self._encoder, subject=subject, dim=old.dim, metric=old.metric)
        if self.changed_field is not None:
            integers = [field.name for field in old.fields if field.data_type in INTEGERS]
            if self.changed_field not in integers:
                raise UsageError(
                    f'changed_field="{self.changed_field}": {old.name!r} has no integer field of that name to carry '
                    f"over; it has: {', '.join(integers) or 'none'}."
                )

    def _open_old(self, encoder: Encoder | str | Path | None) -> Collection | None:
        """The source as a collection of Alula's, if it is one and its encoder is known."""
        old = self.old
        if not old.settings:
            if encoder is not None:
                raise UsageError(f"{old.name!r} is no collection of Alula's, so it has no encoder; leave it out.")
            return None
        if encoder is not None:
            return Collection.open(self._server, old.name, encoder=encoder)
        if old.settings["encoder"] == self._encoder.sha256:
            return Collection.open(self._server, old.name, encoder=self._encoder)
        return None

    def _check_same(self, index_type: str, vector_type: str) -> None:
        """Raise unless this migration could have created the existing collection."""
        old, new = self.old, self.new
        aliases = aliases_of(self._server, new.name) if self._server.dialect.aliases else []
        if aliases:
            raise UsageError(
                f"{new.name!r} serves already, by the alias {', '.join(aliases)}: synchronisation would delete what "
                "was written to it since. Roll the alias back first."
            )
        pairs = {
            "index type": (new.lowering.settings["type"], index_type),
            "vector type": (new.lowering.field.vector_type, vector_type),
            "vector field": (new.lowering.field.name, old.vector_field),
            "primary key": (str(new.primary_key), str(old.primary_key)),
            "fields": (
                fields_text(new.fields, dynamic=new.spec.dynamic),
                fields_text(old.fields, dynamic=old.dynamic),
            ),
            "partition key": (new.spec.partition_key, old.partition_key),
        }
        for label, (there, wanted) in pairs.items():
            if there != wanted:
                raise UsageError(
                    f"{new.name!r} exists with another {label} ({there or 'none'}, and not {wanted or 'none'}); name "
                    f"another collection, or drop it with 'alula drop {new.name}'."
                )

    def sizes(self) -> tuple[FieldSpec, ...]:
        """Every field of the new collection with its bytes per row; 0 for a VARCHAR."""
        return self.new.target().specs

    def run(
        self,
        *,
        journal: Journal | None = None,
        max_errors: int = 0,
        dead_letters: Path | None = None,
        retry_timeout: float = RETRY_TIMEOUT,
        queries: int = 100,
        min_recall: float | None = None,
        progress: StatusCallback | None = None,
    ) -> MigrationReport:
        """Copy, synchronise, compare the recall, and move the alias to the new collection.

        Args:
            journal: Records the progress; one in memory if None.
            max_errors: The most rows that may be rejected.
            dead_letters: The Parquet file for the rejected rows of the copy.
            retry_timeout: Seconds for which a failing write is repeated.
            queries: Rows whose vectors are searched for to compare the recall; 0 for no comparison.
            min_recall: The least recall of the new collection with which the alias is moved.
            progress: Called with the status whenever it changes.

        Raises:
            UsageError: If the journal is of another migration.
            DataError: If too many rows cannot be copied.
            ServerError: If Milvus fails; a new collection without rows is dropped again.
            NotSettledError: If there is an alias, and the source still changed at the end; the alias is not moved.
            AlulaError: If the new collection differs from the source, or its recall is too low.
            LoadInterrupted: If the user stopped it.
        """
        journal = journal or Journal()
        report: StatusCallback = progress or (lambda _: None)
        state = self._begin(journal)
        copied, state = self._copy(
            journal,
            state,
            max_errors=max_errors,
            dead_letters=dead_letters,
            retry_timeout=retry_timeout,
            progress=report,
        )
        status = Status("catching up")
        with _explained(journal):
            catch_up = CatchUp(self.old, self.new.target(), retry_timeout=retry_timeout, status=status, progress=report)
            catch_up.rewrite(journal.doubtful)
            done, diff, state = self._synchronise(catch_up, journal, state, queries, max_errors)
            done = replace(done, load=copied)
            if queries and diff.sample:
                status.stage = "comparing"
                report(status)
                old_recall, new_recall = compare_recall(self.old, self._old_opened, self.new, diff)
                done = replace(done, old_recall=old_recall, new_recall=new_recall)
                self._check_recall(done, min_recall)
            if self.alias is not None and not (done.settled and done.new_recall is None):
                done = self._settled(done, catch_up, journal, state, max_errors)
        if self.alias is not None:
            done = replace(done, alias_before=point_alias(self._server, self.alias, self.new.name))
        return done

    def _begin(self, journal: Journal) -> MigrationState:
        """The recorded state, or that before the first row is copied."""
        now = MigrationState(self.old.name, self.new.name, self.old.filter, self.old.vector_field, self.changed_field)
        recorded = MigrationState.read(journal)
        if recorded is None or (journal.untouched and not self._exists):
            # before the first row is copied: later changes have at least the value found
            last, mark = self._scan()
            return replace(now, last=last, mark=mark).write(journal)
        recorded.check_same(now, journal)
        if not self._exists:
            raise UsageError(
                f"The journal {journal.path} is of a migration to {self.new.name!r}, which does not exist any more; "
                "restart the migration."
            )
        return recorded

    def _scan(self) -> tuple[Any, int | None]:
        """The last key and the greatest value of the changed field."""
        old = self.old
        read = [old.primary_key, *(field for field in old.fields if field.name == self.changed_field)]
        schema = pa.schema([(field.name, ARROW_TYPES[field.data_type]) for field in read])
        last, greatest, seen, rows = None, None, 0, old.count()
        for page in read_pages(old.server, old.name, schema, old.primary_key.name, filter=old.filter):
            last = page.column(0)[-1].as_py()
            if self.changed_field is not None:
                most = pc.max(page.column(1)).as_py()
                greatest = most if greatest is None else max(greatest, most)
            seen += len(page)
            if seen >= rows:  # later rows were added concurrently: synchronisation copies them
                break
        return last, greatest

    def _copy(
        self,
        journal: Journal,
        state: MigrationState,
        *,
        max_errors: int,
        dead_letters: Path | None,
        retry_timeout: float,
        progress: StatusCallback,
    ) -> tuple[LoadReport | None, MigrationState]:
        """Create the new collection and copy the rows, unless an earlier run has."""
        created = not self._exists
        if created:
            create(self.new.spec, description=self.old.text, consistency_level=self.old.consistency_level)
        if state.copied:
            return None, state
        try:
            copied = load(
                self.new.target(),
                self.old.rows_where(last=state.last),
                journal=journal,
                max_errors=max_errors,
                dead_letters=dead_letters,
                retry_timeout=retry_timeout,
                progress=progress,
            )
            # rows may be added and deleted concurrently: their number is checked by synchronisation
            problem = replace(copied.verification, fewest=0, most=sys.maxsize).problem
            if problem:
                raise AlulaError(f"{copied.rows:,} rows were copied into {self.new.name}, but {problem}.")
        except BaseException:
            if created and journal.untouched:
                self.new.drop()
            raise
        return copied, replace(state, copied=True).write(journal)

    def _synchronise(
        self, catch_up: CatchUp, journal: Journal, state: MigrationState, sample: int, max_errors: int
    ) -> tuple[MigrationReport, KeyDiff, MigrationState]:
        """Copy concurrent changes, in rounds until one finds none."""
        changed = None if self.changed_field is None else 0
        added = deleted = 0
        for number in range(ROUNDS):
            grown = 0
            if self.changed_field is not None:
                found = catch_up.copy_changes(self.changed_field, state.mark, state.last)
                grown, changed = found.grown, (changed or 0) + found.grown
                state = replace(state, mark=found.greatest).write(journal)
            diff = catch_up.sync_keys(sample, seed=number)
            state = replace(state, last=diff.last)
            added, deleted = added + diff.copied, deleted + diff.deleted
            if diff.bad > max_errors:
                raise DataError(
                    f"{diff.bad:,} rows of {self.old.name} cannot be copied, more than max_errors={max_errors}: "
                    f"{diff.reason}."
                )
            settled = diff.whole and not (grown or diff.copied or diff.deleted)
            if settled:
                break
        if (changed or added or deleted) and self._server.dialect.flushes:
            with milvus_errors(f"flush {self.new.name!r}"):
                self._server.client.flush(self.new.name)
        there, should = self.new.count(), diff.keys - diff.bad
        if settled and there != should:
            raise AlulaError(f"{self.new.name} contains {there:,} rows, and {self.old.name} has {should:,} to copy.")
        report = MigrationReport(None, diff.keys, changed, added, deleted, diff.bad, diff.reason, settled)
        return report, diff, state

    def _settled(
        self, done: MigrationReport, catch_up: CatchUp, journal: Journal, state: MigrationState, max_errors: int
    ) -> MigrationReport:
        """Synchronise once more after the comparison; raise if writes are missing."""
        last, _, _ = self._synchronise(catch_up, journal, state, 0, max_errors)
        done = replace(
            last,
            load=done.load,
            changed=None if last.changed is None else last.changed + (done.changed or 0),
            added=last.added + done.added,
            deleted=last.deleted + done.deleted,
            old_recall=done.old_recall,
            new_recall=done.new_recall,
        )
        if not done.settled:
            found = [
                f"{count:,} {label}"
                for count, label in ((last.added, "added"), (last.deleted, "deleted"), (last.changed or 0, "changed"))
                if count
            ]
            raise NotSettledError(
                f"{self.old.name} changed until the last of {ROUNDS} rounds ({', '.join(found)} rows in these), so "
                f"later writes are missing in {self.new.name}; the alias {self.alias} was not moved. Pause the writers "
                "until the alias is moved."
            )
        return done

    def _check_recall(self, done: MigrationReport, least: float | None) -> None:
        new = done.new_recall
        if least is not None and new is not None and new.value < least:
            old = f", {self.old.name} has {done.old_recall.value:.3f}" if done.old_recall else ""
            unmoved = f"; the alias {self.alias} was not moved" if self.alias else ""
            raise AlulaError(f"The recall of {self.new.name} is {new}, less than min_recall={least}{old}{unmoved}.")


def roll_back(server: Server, old: str, new: str, alias: str) -> None:
    """Move an alias back to the source collection; all else stays.

    Raises:
        UsageError: If the alias does not name the new collection, or the source does not exist.
        ServerError: If Milvus fails.
    """
    server.check_aliases()
    now = alias_target(server, alias)
    if now != new:
        points = f"points to {now!r}" if now else "does not exist"
        raise UsageError(f"The alias {alias!r} {points}, and not to {new!r}; nothing was changed.")
    if not server.has_collection(old):
        raise UsageError(f"There is no collection {old!r} at {server.uri} to point {alias!r} back to.")
    point_alias(server, alias, old)


@contextmanager
def _explained(journal: Journal) -> Iterator[None]:
    """Add to every error that the copy is complete, and where it is recorded."""
    try:
        yield
    except (AlulaError, KeyboardInterrupt) as error:
        kind = LoadInterrupted if isinstance(error, KeyboardInterrupt) else type(error)
        where = f", and journaled in {journal.path}" if journal.path else ""
        raise kind(f"{str(error) or 'Stopped.'} All rows are copied{where}.") from error
