"""Move an existing collection to one of Alula's index types, or to a newer encoder, while it serves.

A copy by the loader, with its journal; then rounds of catching up with what changed meanwhile; then a comparison of
the recall of both; then, in one step, the alias that clients search by.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alula.catalog.binding import check_fit
from alula.catalog.create import create, design
from alula.collection import Collection
from alula.encoders import Encoder, load_encoder
from alula.errors import AlulaError, DataError, LoadInterrupted, UsageError
from alula.evaluation import NearestSoFar, RecallEstimate, estimate_recall
from alula.index_types import FieldSpec, IndexType
from alula.index_types import index_type as find_index_type
from alula.ingest.journal import Journal
from alula.ingest.load import PATIENCE, LoadReport, load
from alula.ingest.pipeline import Progress, Status
from alula.migration.catch_up import CatchUp, Walk
from alula.migration.source_collection import OldCollection
from alula.milvus import Server, alias_target, any_of, milvus_errors, point_alias
from alula.milvus.reading import read_pages
from alula.milvus.wire.types import ARROW_TYPES
from alula.search import MAX_QUERIES

ROUNDS = 5  # of catching up: who writes faster than we copy would keep us here for ever
NEIGHBOURS = 10
INTEGERS = ("INT8", "INT16", "INT32", "INT64")


@dataclass(frozen=True)
class MigrationReport:
    """What a migration did.

    Args:
        load: What the copy did; None if an earlier run had finished it.
        rows: Rows of the old collection.
        changed: Rows that were copied again because they had changed; None if nobody said how to see it.
        added: Rows that were added meanwhile.
        deleted: Rows that were deleted meanwhile.
        bad: Rows that the new collection cannot hold.
        reason: Why, of one of them.
        settled: Whether the last look found nothing left to do.
        old_recall: Recall at 10 of the old collection's own index; None if it was not measured.
        new_recall: Recall at 10 of the new one.
        alias_before: What the alias pointed to before; None if it was made, or there is none.
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


class Migration:
    """A migration that was checked, and has written nothing yet.

    Args:
        old: The old collection.
        name: The new one.
        encoder: Its encoder.
        index_type: Its index type.
        options: Create options of the index type.
        keep_vectors: Keep the vectors in the new one.
        changed_field: An integer field of the old one that grows with every change of any row.
        alias: The alias to point to the new one at the end.
        old_encoder: The encoder of the old one, where that is Alula's, so that its recall can be measured.
        go_on: Whether the new collection may be there, from an earlier run.

    Raises:
        UsageError: If a name, field or option is wrong, or the new collection is there and `go_on` is false.
        UnsupportedError, EncoderError: As `Collection.create`.
        ServerError: If Milvus fails.
    """

    def __init__(
        self,
        old: OldCollection,
        name: str,
        *,
        encoder: Encoder | str | Path,
        index_type: str,
        options: Mapping[str, Any] | None = None,
        keep_vectors: bool = True,
        changed_field: str | None = None,
        alias: str | None = None,
        old_encoder: Encoder | str | Path | None = None,
        go_on: bool = False,
    ) -> None:
        self.old, self.changed_field, self.alias = old, changed_field, alias
        self._server = old.server
        self._encoder = encoder if isinstance(encoder, Encoder) else load_encoder(encoder)
        self._check(name, find_index_type(index_type))
        self._old_searched = self._open_old(old_encoder)
        self._exists = go_on and self._server.has_collection(name)
        if self._exists:
            self.new = Collection.open(self._server, name, encoder=self._encoder)
            self._check_same(index_type)
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
                options=options,
            )
            self.new = Collection(spec)

    def _check(self, name: str, kind: IndexType) -> None:
        """Raise for what would only show when rows were copied."""
        old, encoder = self.old, self._encoder
        if old.name == name:
            raise UsageError(f"{name!r} is the old collection itself; give the new one another name.")
        if self.alias is not None:
            self._server.check_aliases()
            alias_target(self._server, self.alias)
        if encoder.info.input != "vectors":
            raise UsageError(
                f"The encoder {encoder.path.name} takes {encoder.info.input}, and a migration reads vectors; create "
                "the new collection with 'alula create', and load it with 'alula load'."
            )
        subject = f"The collection {old.name!r}"
        check_fit(kind, encoder, subject=subject, dim=old.dim, metric=old.metric)
        if self.changed_field is not None:
            integers = [field.name for field in old.fields if field.data_type in INTEGERS]
            if self.changed_field not in integers:
                raise UsageError(
                    f"--changed-field {self.changed_field}: {old.name!r} has no integer field of that name to carry "
                    f"over; it has: {', '.join(integers) or 'none'}."
                )

    def _open_old(self, encoder: Encoder | str | Path | None) -> Collection | None:
        """The old collection where it is Alula's and its encoder is known."""
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

    def _check_same(self, index_type: str) -> None:
        """Raise unless the new collection that is there is one that this migration could have made, not yet in use."""
        old, new = self.old, self.new
        with milvus_errors(f"describe the collection {new.name!r}"):
            aliases = self._server.client.describe_collection(new.name).get("aliases")
        if aliases:
            raise UsageError(
                f"{new.name!r} serves already, by the alias {', '.join(aliases)}: catching up would delete what was "
                "written to it since. Point the alias back first (--swap-alias ALIAS --rollback)."
            )
        pairs = {
            "index type": (new.lowering.settings["type"], index_type),
            "vector field": (new.lowering.field.name, old.vector_field),
            "primary key": (str(new.primary_key), str(old.primary_key)),
            "fields": (", ".join(map(str, new.fields)), ", ".join(map(str, old.fields))),
        }
        for what, (there, asked) in pairs.items():
            if there != asked:
                raise UsageError(
                    f"{new.name!r} is there with another {what} ({there or 'none'}, and not {asked or 'none'}); name "
                    f"another collection, or drop it with 'alula drop {new.name}'."
                )

    def sizes(self) -> tuple[FieldSpec, ...]:
        """Every field of the new collection, with the bytes that Milvus holds for one row of it; 0 for a VARCHAR."""
        return self.new.target().specs

    def run(
        self,
        *,
        journal: Journal | None = None,
        max_errors: int = 0,
        dead_letters: Path | None = None,
        patience: float = PATIENCE,
        queries: int = 100,
        min_recall: float | None = None,
        progress: Progress | None = None,
    ) -> MigrationReport:
        """Copy, catch up, compare, and point the alias to the new collection.

        Args:
            journal: Remembers how far it is; one in memory if None.
            max_errors: The most rows that may be left out.
            dead_letters: The Parquet file for the rows that the copy leaves out.
            patience: Seconds for which a failing write is made again.
            queries: Rows whose vectors are searched for to compare the recall; 0 for no comparison.
            min_recall: The least recall of the new collection with which the alias is pointed to it.
            progress: Told how far it is.

        Raises:
            UsageError: If the journal is of another migration.
            DataError: If too many rows cannot be copied.
            ServerError: If Milvus fails; a new collection that holds no row yet is dropped again.
            AlulaError: If the new collection is not what it should be, or its recall is too low.
            LoadInterrupted: If the user stopped it.
        """
        journal = journal or Journal()
        report: Progress = progress or (lambda _: None)
        state = self._begin(journal)
        made = not self._exists
        if made:
            create(self.new.spec, description=self.old.text, consistency_level=self.old.consistency_level)
        target = self.new.target()
        try:
            copied = None
            if not state["copied"]:
                copied = load(
                    target,
                    self.old.source(last=state["last"]),
                    journal=journal,
                    max_errors=max_errors,
                    dead_letters=dead_letters,
                    patience=patience,
                    progress=report,
                )
                self._check_copy(copied)
                journal.migration = state = {**state, "copied": True}
        except BaseException:
            if made and journal.untouched:
                self.new.drop()
            raise
        status = Status("catching up")
        with _told_how_to_go_on(journal):
            catch_up = CatchUp(self.old, target, patience=patience, status=status, progress=report)
            catch_up.rewrite(journal.doubtful)
            done, walk = self._catch_up(catch_up, journal, state, queries, max_errors)
            done = replace(done, load=copied)
            if queries and walk.sample:
                status.stage = "comparing"
                report(status)
                old_recall, new_recall = self._compare(walk)
                done = replace(done, old_recall=old_recall, new_recall=new_recall)
                if min_recall is not None and new_recall.value < min_recall:
                    old = f", {self.old.name} has {old_recall.value:.3f}" if old_recall else ""
                    untouched = f"; the alias {self.alias} was not touched" if self.alias else ""
                    raise AlulaError(
                        f"The recall of {self.new.name} is {new_recall}, less than --min-recall {min_recall}{old}"
                        f"{untouched}."
                    )
        if self.alias is not None:
            done = replace(done, alias_before=point_alias(self._server, self.alias, self.new.name))
        return done

    def _begin(self, journal: Journal) -> Mapping[str, Any]:
        """What the journal knows of this migration; in a new one, the greatest value of the changed field is noted."""
        job = {
            "from": self.old.name,
            "to": self.new.name,
            "filter": self.old.filter,
            "vector field": self.old.vector_field,
            "changed field": self.changed_field,
        }
        if journal.migration is None or (journal.untouched and not self._exists):
            # before the first row is copied: what changes from now on has at least the value that is found
            state = {**job, **self._scan(), "copied": False}
            journal.migration = state
            return state
        for name, now in job.items():
            then = journal.migration[name]
            if then != now:
                raise UsageError(
                    f"The journal {journal.path} is of a migration with another {name} ({then or 'none'}, and now "
                    f"{now or 'none'}); give the same as then, or --restart to forget that migration."
                )
        if not self._exists:
            raise UsageError(
                f"The journal {journal.path} is of a migration to {self.new.name!r}, which is not there any more; give "
                "--restart to begin again."
            )
        return journal.migration

    def _scan(self) -> dict[str, Any]:
        """The last key and the greatest value of the changed field, before the first row is copied."""
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
            if seen >= rows:  # the rest was added meanwhile, and will be found by catching up
                break
        return {"last": last, "mark": greatest}

    def _check_copy(self, copied: LoadReport) -> None:
        # rows may have come and gone meanwhile: their number is settled by catching up
        problem = replace(copied.verification, fewest=0, most=sys.maxsize).problem
        if problem:
            raise AlulaError(
                f"{copied.rows:,} rows were copied into {self.new.name}, but {problem}. Give the same command with "
                "--resume to check again."
            )

    def _catch_up(
        self, catch_up: CatchUp, journal: Journal, state: Mapping[str, Any], sample: int, max_errors: int
    ) -> tuple[MigrationReport, Walk]:
        changed = None if self.changed_field is None else 0
        added = deleted = 0
        for number in range(ROUNDS):
            grown = 0
            if self.changed_field is not None:
                found = catch_up.changed(self.changed_field, state["mark"], state["last"])
                grown, changed = found.grown, (changed or 0) + found.grown
                journal.migration = state = {**state, "mark": found.greatest}
            walk = catch_up.walk(sample, seed=number)
            state = {**state, "last": walk.last}
            added, deleted = added + walk.copied, deleted + walk.deleted
            if walk.bad > max_errors:
                raise DataError(
                    f"{walk.bad:,} rows of {self.old.name} cannot be copied, more than --max-errors {max_errors:,}: "
                    f"{walk.reason}."
                )
            settled = walk.whole and not (grown or walk.copied or walk.deleted)
            if settled:
                break
        if (changed or added or deleted) and not self._server.embedded:
            with milvus_errors(f"flush {self.new.name!r}"):
                self._server.client.flush(self.new.name)
        there, should = self.new.count(), walk.keys - walk.bad
        if settled and there != should:
            raise AlulaError(
                f"{self.new.name} holds {there:,} rows, and {self.old.name} has {should:,} that it should hold."
            )
        return MigrationReport(None, walk.keys, changed, added, deleted, walk.bad, walk.reason, settled), walk

    # ------------------------------------------------------------------ recall

    def _compare(self, walk: Walk) -> tuple[RecallEstimate | None, RecallEstimate]:
        """The recall of the old collection's own index and of the new one, on vectors of rows of the old one."""
        old = self.old
        chosen = old.source(any_of(old.primary_key.name, walk.sample))
        queries = np.concatenate([np.asarray(batch.inputs, np.float32) for batch in chosen.batches()])
        nearest = NearestSoFar(queries, NEIGHBOURS, self._encoder.info.metric)
        for batch in old.source(last=walk.last).batches(self.new.target().batch_rows):
            nearest.see(batch.columns[old.primary_key.name].to_pylist(), np.asarray(batch.inputs, np.float32))
        search = self._old_search()
        true = (nearest.keys, nearest.ties)
        theirs = estimate_recall(_in_pieces(search, queries), *true) if search else None
        return theirs, estimate_recall(_in_pieces(lambda some: _ids(self.new, some), queries), *true)

    def _old_search(self) -> Callable[[Any], list[list[Any]]] | None:
        """How the old collection is searched today; None if that takes an encoder which we do not have."""
        old, known = self.old, self._old_searched
        if known is not None:
            return lambda some: _ids(known, some, filter=old.filter)
        if old.settings or old.index_type is None:
            return None

        def search(some: Any) -> list[list[Any]]:
            with milvus_errors(f"search {old.name!r}", filter=old.filter):
                answers = self._server.client.search(
                    old.name,
                    data=list(some),
                    anns_field=old.vector_field,
                    limit=NEIGHBOURS,
                    filter=old.filter,
                    search_params={"metric_type": old.metric, "params": {}},
                    consistency_level="Strong",
                )
            return [list(hits.ids) for hits in answers]

        return search


def roll_back(server: Server, old: str, new: str, alias: str) -> None:
    """Point an alias back to the old collection; nothing else is touched.

    Raises:
        UsageError: If the alias does not point to the new collection, or the old one is not there.
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


def _ids(collection: Collection, queries: Any, **arguments: Any) -> list[list[Any]]:
    found = collection.search(queries, limit=NEIGHBOURS, consistency_level="Strong", **arguments)
    return [[hit.id for hit in hits] for hits in found]


def _in_pieces(search: Callable[[Any], list[list[Any]]], queries: Any) -> list[list[Any]]:
    pieces = (search(queries[start : start + MAX_QUERIES]) for start in range(0, len(queries), MAX_QUERIES))
    return [ids for piece in pieces for ids in piece]


@contextmanager
def _told_how_to_go_on(journal: Journal) -> Iterator[None]:
    try:
        yield
    except (AlulaError, KeyboardInterrupt) as error:
        kind = LoadInterrupted if isinstance(error, KeyboardInterrupt) else type(error)
        how = f", and journaled in {journal.path}: give the same command with --resume to go on" if journal.path else ""
        raise kind(f"{str(error) or 'Stopped.'} All rows are copied{how}.") from error
