"""Load a source into a collection: once, or in as many runs as crashes make of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alula.errors import AlulaError, DataError, LoadInterrupted
from alula.ingest.bulk_import.sink import ImportSink
from alula.ingest.dead_letters import write_dead_letters
from alula.ingest.delivery import CallDelivery, ImportDelivery
from alula.ingest.doubtful_rows import settle
from alula.ingest.journal import Journal
from alula.ingest.pipeline import Pipeline, Progress, Status
from alula.ingest.plan import Mode, Via, begin
from alula.ingest.preflight import Preflight
from alula.ingest.rpc_sink import RpcSink
from alula.ingest.target import Target
from alula.ingest.verify import Verification, verify
from alula.milvus.retrying import RateLimiter, StoppedError
from alula.sources import Source

if TYPE_CHECKING:
    from alula.ingest.ray.engine import RayCluster

WRITERS, LITE_WRITERS = 4, 2  # calls at a time; Milvus Lite 2.5 takes more time for more
PATIENCE = 300.0  # seconds
LITE_PATIENCE = 2.0  # an embedded engine that has ended does not come back


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
    def rows_per_second(self) -> float:
        """Rows written in a second of this run."""
        return self.written / self.seconds

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
    cluster: RayCluster | None = None,
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
        cluster: Reads, encodes and writes on its machines; this one does if None.

    Raises:
        UsageError: If the source gives something else than the encoder takes, or the journal is of another load.
        DataError: If too many rows cannot be loaded, or the source is damaged.
        ServerError: If Milvus refuses rows for good.
        LoadInterrupted: If the user stopped it.
    """
    if partition is not None:
        target.check_partition(partition)
    target.check_source(source)
    journal = journal or Journal()
    report: Progress = progress or (lambda _: None)
    job = begin(journal, target, source, partition=partition, mode=mode, via=via, stage=stage, cluster=cluster)
    size = int(job["batch_rows"])
    status = Status(total=source.rows, read=journal.read_rows, bad=journal.dead_count)
    embedded = target.server.embedded
    pace = RateLimiter(LITE_WRITERS if embedded else WRITERS, min(patience, LITE_PATIENCE) if embedded else patience)
    sink = RpcSink(target.server, target.name, target.specs, partition, pace)
    delivery: CallDelivery | ImportDelivery = CallDelivery(sink, journal, replace=job["replace"])
    if job["via"] == "import":
        delivery = _importing(journal, target, job, stage_at_server=stage_at_server, status=status, report=report)
    pipeline = (cluster.pipeline if cluster else Pipeline)(
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
    look = Preflight(target, source, status, report)
    try:
        look.duplicates(journal, max_errors)
        if max_errors == 0 and journal.untouched:
            look.rows(size)
    except DataError as error:
        raise DataError(f"{error} Nothing was written.") from None
    status.stage = "loading"
    started = time.perf_counter()
    try:
        pipeline.run()
        if isinstance(delivery, ImportDelivery):
            delivery.finish()
        seconds = time.perf_counter() - started
        status.stage = "verifying"
        report(status)
        found = _finish(journal, target, source, sink, pace)
    except (AlulaError, KeyboardInterrupt) as error:
        if dead_letters is not None:
            write_dead_letters(journal.dead_letters(), dead_letters)
        kind = LoadInterrupted if isinstance(error, KeyboardInterrupt | StoppedError) else type(error)
        raise kind(f"{str(error) or 'Stopped.'} {_how_far(journal, status)}") from error
    letters = write_dead_letters(journal.dead_letters(), dead_letters) if dead_letters is not None else 0
    return LoadReport(
        rows=journal.done_rows - journal.dead_count,
        replaced=found.most - found.rows if job["replace"] else 0,
        total=found.rows,
        bad=journal.dead_count,
        dead_letters=dead_letters if letters else None,
        seconds=seconds,
        written=status.written,
        bytes=status.bytes,
        numbered=target.numbered(source),
        ignored=target.ignored(source),
        shares=pipeline.shares(seconds) | delivery.shares(seconds),
        retries=pace.retries,
        verification=found,
    )


def _finish(journal: Journal, target: Target, source: Source, sink: RpcSink, pace: RateLimiter) -> Verification:
    """Make sure of what is in doubt, and see whether the collection holds what it should."""
    job = cast("Mapping[str, Any]", journal.job)
    settle(journal, target, source, sink, pace, size=job["batch_rows"])
    if not target.server.embedded:
        pace.make(f"flush {target.name!r}", lambda _: target.server.client.flush(target.name))
    rows = journal.done_rows - journal.dead_count
    most = journal.rows_before + rows
    # an upsert does not say how many rows it replaced
    fewest = max(journal.rows_before, rows) if job["replace"] else most
    found: list[Verification] = []
    # a server that has just come back holds all rows, and answers no query for a while
    pace.make("check the rows", lambda _: found.append(verify(target, journal.sample, fewest, most)))
    return found[0]


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


def _how_far(journal: Journal, status: Status) -> str:
    if journal.untouched:
        return "Nothing was written."
    total = f" of {status.total:,}" if status.total else ""
    text = f"{journal.read_rows - journal.dead_count:,}{total} rows are written and acknowledged"
    if journal.path is not None:
        return f"{text}, and journaled in {journal.path}: give the same command with --resume to go on."
    return f"{text}; load the same rows again to go on: those that are there already are replaced, not doubled."
