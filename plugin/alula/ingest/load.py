"""Load a source into a collection: once, or in as many runs as crashes make of it."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alula.errors import AlulaError, DataError, InterruptedLoadError, UsageError
from alula.ingest.dead_letters import write_dead_letters
from alula.ingest.delivery import CallDelivery, ImportDelivery
from alula.ingest.duplicates import duplicate_rows
from alula.ingest.journal import Journal
from alula.ingest.pace import Pace, StoppedError
from alula.ingest.pipeline import Pipeline, Progress, Status
from alula.ingest.sinks.bulk_import import ImportSink, can_import
from alula.ingest.sinks.choice import choose
from alula.ingest.sinks.rpc import RpcSink
from alula.ingest.sources import Batch, Cursor, Source
from alula.ingest.target import Target, batch_rows
from alula.ingest.verify import Verification, verify
from alula.servers import milvus_errors

Mode = Literal["auto", "insert", "upsert"]
Via = Literal["auto", "insert", "import"]
WRITERS, LITE_WRITERS = 4, 2  # calls at a time; Milvus Lite 2.5 takes more time for more
PATIENCE = 300.0


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Args:
        rows: Rows loaded, those of earlier runs counted.
        replaced: How many of them took the place of a row with the same id.
        total: Rows in the collection afterwards.
        bad: Rows that could not be loaded.
        dead_letters: The file that holds these rows; None if there are none, or nobody asked for a file.
        seconds: Time for reading, encoding and writing in this run.
        written: Rows written in this run.
        bytes: Bytes written in this run.
        numbered: Whether the rows were numbered because the source has no id column.
        ignored: Columns of the source that the collection has no field for.
        shares: How busy reading, encoding and writing were, as shares of the time.
        retries: Calls that were made again.
        verification: What was found at the end.
    """

    rows: int
    replaced: int
    total: int
    bad: int
    dead_letters: Path | None
    seconds: float
    written: int
    bytes: int
    numbered: bool
    ignored: tuple[str, ...]
    shares: dict[str, float]
    retries: int
    verification: Verification

    @property
    def bottleneck(self) -> str:
        """The stage that the load waited for."""
        return max(self.shares, key=lambda stage: self.shares[stage])


def load(
    target: Target,
    source: Source,
    *,
    partition: str | None = None,
    mode: Mode = "auto",
    via: Via = "auto",
    stage: str | None = None,
    stage_at_server: str | None = None,
    journal: Journal | None = None,
    max_errors: int = 0,
    dead_letters: Path | None = None,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> LoadReport:
    """Load a source into a collection, or go on with a load that a journal tells of.

    With `max_errors` 0 the source is read twice: every row is checked before the first is written.

    Args:
        target: The collection.
        source: The rows.
        partition: Partition to write to.
        mode: Whether rows may be in the collection already: ``upsert`` replaces them, ``insert`` is faster and doubles
            them, ``auto`` inserts into an empty collection and else upserts.
        via: ``insert``: by insert and upsert calls. ``import``: as files that the server reads from the stage, into an
            empty collection. ``auto`` imports where a stage is given and the rows are so many that it pays.
        stage: URL of a place that the server can read files from.
        stage_at_server: The stage as the server names it, if it sees it under another name.
        journal: Keeps what was acknowledged; one in memory if None.
        max_errors: The most rows that may be left out.
        dead_letters: The Parquet file for the rows that were left out.
        patience: Seconds for which a failing call to Milvus is made again.
        progress: Told how far it is.

    Raises:
        UsageError: If the source gives something else than the encoder takes, or the journal is of another load.
        DataError: If too many rows cannot be loaded, or the source is damaged.
        ServerError: If Milvus refuses rows for good.
        InterruptedLoadError: If the user stopped it.
    """
    if partition is not None:
        target.check_partition(partition)
    target.check_source(source)
    journal = journal or Journal()
    report: Progress = progress or (lambda _: None)
    job = _begin(journal, target, source, partition=partition, mode=mode, via=via, stage=stage)
    size = int(job["batch_rows"])
    status = Status(total=source.rows, read=journal.read_rows, bad=journal.dead_count)
    check = _Check(target, source, status, report)
    try:
        check.duplicates(journal, max_errors)
        if max_errors == 0 and journal.untouched:
            check.rows(size)
    except DataError as error:
        raise DataError(f"{error} Nothing was written.") from None
    status.stage = "loading"
    pace = Pace(LITE_WRITERS if target.server.embedded else WRITERS, patience)
    sink = RpcSink(target.server, target.name, target.specs, partition, pace)
    delivery: CallDelivery | ImportDelivery
    if job["via"] == "import":
        delivery = _importing(journal, target, job, stage_at_server=stage_at_server, status=status, report=report)
    else:
        delivery = CallDelivery(sink, journal, replace=job["replace"])
    pipeline = Pipeline(
        target,
        source,
        delivery,
        journal,
        pace,
        size=size,
        max_errors=max_errors,
        progress=report,
        status=status,
    )
    started = time.perf_counter()
    try:
        pipeline.run()
        shares = pipeline.shares()
        moved = time.perf_counter() - started
        if isinstance(delivery, ImportDelivery):
            delivery.finish()
        seconds = time.perf_counter() - started
        if isinstance(delivery, ImportDelivery):
            shares = {name: share * moved / seconds for name, share in shares.items()}
            shares |= {"importing": 1 - moved / seconds}
        _settle(journal, target, source, sink, size)
        if not target.server.embedded:
            pace.make(f"flush {target.name!r}", lambda _: target.server.client.flush(target.name))
        status.stage = "verifying"
        report(status)
        rows = journal.done_rows - journal.dead_count
        most = journal.rows_before + rows
        # an upsert does not say how many rows it replaced
        fewest = max(journal.rows_before, rows) if job["replace"] else most
        found = verify(target, journal.sample, fewest, most)
    except (AlulaError, KeyboardInterrupt) as error:
        if dead_letters is not None:
            write_dead_letters(journal.dead_letters(), dead_letters)
        kind = InterruptedLoadError if isinstance(error, KeyboardInterrupt | StoppedError) else type(error)
        raise kind(f"{str(error) or 'Stopped.'} {_how_far(journal, status)}") from error
    letters = write_dead_letters(journal.dead_letters(), dead_letters) if dead_letters is not None else 0
    return LoadReport(
        rows=rows,
        replaced=most - found.rows if job["replace"] else 0,
        total=found.rows,
        bad=journal.dead_count,
        dead_letters=dead_letters if letters else None,
        seconds=seconds,
        written=status.written,
        bytes=status.bytes,
        numbered=target.numbered(source),
        ignored=target.ignored(source),
        shares=shares,
        retries=pace.retries,
        verification=found,
    )


@dataclass(frozen=True)
class DryRun:
    """What a load would do.

    Args:
        rows: Rows of the source.
        bad: How many of them cannot be loaded.
        reasons: Why, of the first of them: (row, reason).
        ignored: Columns of the source that the collection has no field for.
    """

    rows: int
    bad: int
    reasons: tuple[tuple[int, str], ...]
    ignored: tuple[str, ...]


def dry_run(target: Target, source: Source, *, show: int = 10, progress: Progress | None = None) -> DryRun:
    """Read and check every row as `load` would, and write nothing.

    Args:
        target: The collection.
        source: The rows.
        show: How many reasons to keep.
        progress: Told how far it is.

    Raises:
        UsageError, DataError: As `load`.
    """
    target.check_source(source)
    report: Progress = progress or (lambda _: None)
    status = Status("checking", total=source.rows)
    journal = Journal()
    _Check(target, source, status, report).duplicates(journal, sys.maxsize)
    reasons: list[tuple[int, str]] = []
    for batch in source.batches(batch_rows(target.lowering.encoder.info)):
        checked = target.check(batch, journal.duplicates or ())
        reasons += [(batch.start + i, reason) for i, reason in sorted(checked.bad.items())][: show - len(reasons)]
        status.read += len(batch)
        status.bad += len(checked.bad)
        report(status)
    return DryRun(status.read, status.bad, tuple(reasons), target.ignored(source))


def _begin(
    journal: Journal,
    target: Target,
    source: Source,
    *,
    partition: str | None,
    mode: Mode,
    via: Via,
    stage: str | None,
) -> dict[str, Any]:
    """What is loaded, written down in a new journal or compared with what an old one says."""
    job: dict[str, Any] = {
        "server": target.server.uri,
        "collection": target.name,
        "partition": partition,
        "encoder": target.lowering.encoder.sha256,
        "source": source.name,
        "fingerprint": source.fingerprint,
    }
    if journal.job is None:
        before = target.count()
        if via == "auto":
            importable = stage is not None and can_import(target.server)
            via = choose(rows=source.rows, empty=before == 0, staged=stage is not None, importable=importable)
        if via == "import":
            _check_import(target, stage, mode)
        replace = mode == "upsert" or (mode == "auto" and before > 0)
        size = batch_rows(target.lowering.encoder.info)
        job |= {"replace": replace, "batch_rows": size, "via": via, "stage": stage, "id": uuid.uuid4().hex[:12]}
        journal.begin(job, before)
        return job
    if via != "auto":
        job["via"] = via
    if stage is not None:
        job["stage"] = stage
    for name, now in job.items():
        then = journal.job[name]
        if then != now:
            what = "rows" if name == "fingerprint" else name
            raise UsageError(
                f"The journal {journal.path} is of a load with another {what}"
                + ("" if name in ("encoder", "fingerprint") else f" ({then}, and now {now})")
                + "; give the same as then, or --restart to forget that load."
            )
    return dict(journal.job)


def _check_import(target: Target, stage: str | None, mode: Mode) -> None:
    if target.server.embedded:
        raise UsageError("Milvus Lite has no bulk import; leave --via import out.")
    if stage is None:
        raise UsageError(
            "A bulk import needs a place that the server reads files from: --stage DIR or s3://BUCKET/PREFIX."
        )
    if mode == "upsert":
        raise UsageError("A bulk import cannot replace rows; leave --mode upsert or --via import out.")


def _importing(
    journal: Journal,
    target: Target,
    job: dict[str, Any],
    *,
    stage_at_server: str | None,
    status: Status,
    report: Progress,
) -> ImportDelivery:
    """A bulk import that has taken up what earlier runs left of it."""
    delivery = ImportDelivery(journal)

    def told(stage: str, rows: int, _: int) -> None:
        delivery.check()
        if delivery.finishing:
            status.stage = stage
        status.imported = rows
        report(status)

    delivery.sink = ImportSink(
        target.server,
        target.name,
        target.specs,
        stage=job["stage"],
        folder=journal.folder,
        ledger=delivery,
        load_id=job["id"],
        stage_at_server=stage_at_server,
        partition=job["partition"],
        progress=told,
    )
    delivery.sink.recover()
    return delivery


@dataclass
class _Check:
    """Looks at all rows before the first is written."""

    target: Target
    source: Source
    status: Status
    report: Progress

    def duplicates(self, journal: Journal, most: int) -> None:
        """Note the rows whose key an earlier row has: not even an upsert tells which of two rows of one call stays."""
        if journal.duplicates is not None:
            return
        source, status, key = self.source, self.status, self.target.primary_key.name
        if source.unique or self.target.numbered(source):
            journal.duplicates = []
            return
        status.stage = "checking"
        found = duplicate_rows(source.keys(key), journal.folder, most=most, progress=self._count)
        if status.total is None:
            status.total = status.read
        status.read = 0
        if len(found) > most:
            raise DataError(
                f"Row {found[0]} of {source.name} has the {key} of an earlier row; they must be unique."
                if not most
                else f"More than {most:,} rows of {source.name} have the {key} of an earlier row, the first is row "
                f"{found[0]}. Raise --max-errors to leave them out."
            )
        journal.duplicates = found

    def _count(self, rows: int) -> None:
        self.status.read = rows
        self.report(self.status)

    def rows(self, size: int) -> None:
        """Raise a `DataError` for the first row that cannot be loaded."""
        status, source = self.status, self.source
        status.stage = "checking"
        for batch in source.batches(size):
            checked = self.target.check(batch)
            if checked.bad:
                first = min(checked.bad)
                raise DataError(f"Row {batch.start + first} of {source.name} cannot be loaded: {checked.bad[first]}.")
            self._count(status.read + len(batch))
        status.total, status.read = status.read, 0


def _settle(journal: Journal, target: Target, source: Source, sink: RpcSink, size: int) -> None:
    """Look once more at rows about which an answer was lost.

    A call that was given up may still be carried out by the server, after the one that replaced it: then a row is there
    twice. Rows that are, or that are missing, are written anew.
    """
    key = target.primary_key.name
    duplicates = journal.duplicates or []
    spans = set(journal.doubtful)
    for batch in _batches_of(source, spans, size):
        checked = target.check(batch, [n for n in duplicates if batch.start <= n < batch.start + len(batch)])
        keys = list(checked.values[key])
        with milvus_errors(f"look for rows in {target.name!r}"):
            there = sink.count_of(keys)
        if there != len(keys):
            sink.write(target.encode(checked), replace=True)


def _batches_of(source: Source, spans: set[tuple[Cursor, Cursor]], size: int) -> Any:
    """The batches with these cursors."""
    if not spans:
        return
    if all(isinstance(first, int) for first, _ in spans):
        for first, last in sorted(spans):
            after, number = (first - 1, first) if isinstance(first, int) and first > 0 else (None, 0)
            batch: Batch | None = next(source.batches(size, after=after, start=number), None)
            if batch is not None and batch.span == (first, last):
                yield batch
        return
    yield from (batch for batch in source.batches(size) if batch.span in spans)


def _how_far(journal: Journal, status: Status) -> str:
    if journal.untouched:
        return "Nothing was written."
    total = f" of {status.total:,}" if status.total else ""
    text = f"{journal.read_rows - journal.dead_count:,}{total} rows are written and acknowledged"
    if journal.path is not None:
        return f"{text}, and journaled in {journal.path}: give the same command with --resume to go on."
    return f"{text}; load the same rows again to go on: those that are there already are replaced, not doubled."
