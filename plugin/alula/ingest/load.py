"""Load a source into a collection, in one run or, after crashes, in several."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alula.errors import AlulaError, DataError, LoadInterrupted
from alula.ingest.bulk_import.delivery import ImportDelivery, ImportLedger
from alula.ingest.bulk_import.sink import ImportSink
from alula.ingest.dead_letters import write_dead_letters
from alula.ingest.delivery import CallDelivery, Delivery
from alula.ingest.doubtful_rows import rewrite_doubtful
from alula.ingest.journal import Journal
from alula.ingest.monitor import LoadMonitor, Status, StatusCallback
from alula.ingest.pipeline import Engine, LoadTask, LocalEngine, Via
from alula.ingest.plan import LoadPlan, Mode, plan_load
from alula.ingest.preflight import Preflight
from alula.ingest.rpc_sink import RpcSink
from alula.ingest.target import Target
from alula.ingest.verify import Verification, verify
from alula.milvus.retrying import RateLimiter, StoppedError
from alula.progress import NO_FIGURES, Figures
from alula.sources import Source
from alula.tracing import span

RETRY_TIMEOUT = 300.0  # seconds


@dataclass(frozen=True, repr=False)
class LoadReport:
    """The result of a load.

    Args:
        rows: Rows loaded, including earlier runs.
        replaced: Rows among them that replaced a row with the same id.
        total: Rows in the collection afterwards.
        bad: Rejected rows.
        dead_letters: The file with the rejected rows; None without rejected rows or without a file for them.
        seconds: Time for reading, encoding and writing in this run.
        written: Rows written in this run.
        bytes: Bytes written in this run.
        auto_ids: True if the row numbers are the keys, because the source has no id column.
        ignored: Columns of the source without a field in the collection.
        shares: Busy share of reading, encoding and writing.
        retries: Repeated calls.
        verification: The check at the end.
    """

    rows: int
    replaced: int
    total: int
    bad: int
    dead_letters: Path | None
    seconds: float
    written: int
    bytes: int
    auto_ids: bool
    ignored: tuple[str, ...]
    shares: dict[str, float]
    retries: int
    verification: Verification

    def __repr__(self) -> str:
        rejected = f", {self.bad:,} rejected" if self.bad else ""
        rejected += f" ({self.dead_letters})" if self.dead_letters else ""
        replaced = f", {self.replaced:,} of them replaced" if self.replaced else ""
        problem = f"; {self.verification.problem}" if self.verification.problem else ""
        return (
            f"<LoadReport: {self.rows:,} rows loaded{replaced}{rejected} in {self.seconds:.1f} s; the collection "
            f"contains {self.total:,}{problem}>"
        )

    @property
    def rows_per_second(self) -> float:
        """Rows written per second of this run."""
        return self.written / self.seconds

    @property
    def bottleneck(self) -> str:
        """The busiest stage."""
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
    retry_timeout: float = RETRY_TIMEOUT,
    progress: StatusCallback | None = None,
    engine: Engine | None = None,
) -> LoadReport:
    """Load a source into a collection, or resume the load that a journal records.

    With `max_errors` 0 the source is read twice: every row is checked before the first is written.

    Args:
        target: The collection.
        source: The rows.
        partition: Partition to write to.
        mode: ``upsert`` replaces rows with the same id, ``insert`` is faster and doubles them, ``auto`` inserts into an
            empty collection and else upserts.
        via: ``insert``: by insert and upsert calls. ``import``: as files that the server reads from the staging area,
            into an empty collection. ``auto`` imports very many rows if a staging area is given.
        stage: URL of a staging area, from which the server reads files.
        stage_at_server: The staging area as the server names it, if the name differs.
        journal: Records acknowledged rows; one in memory if None.
        max_errors: The most rows that may be rejected.
        dead_letters: The Parquet file for the rejected rows; the file of another load is kept, and the next free name
            taken (``rows-2.parquet``).
        retry_timeout: Seconds for which a failing call to Milvus is repeated.
        progress: Called with the status whenever it changes.
        engine: Reads, encodes and writes; this process if None.

    Raises:
        UsageError: If the source does not fit the encoder, or the journal is of another load.
        DataError: If too many rows cannot be loaded, or the source is damaged.
        ServerError: If Milvus refuses rows for good.
        LoadInterrupted: If the user stopped it.
    """
    if partition is not None:
        target.check_partition(partition)
    target.check_source(source)
    journal = journal or Journal()
    engine = engine or LocalEngine()
    plan = plan_load(journal, target, source, partition=partition, mode=mode, via=via, stage=stage, engine=engine)
    limiter = RateLimiter(target.server.dialect.writers, min(retry_timeout, target.server.dialect.longest_retry))
    status = Status(total=source.rows, read=journal.read_rows, bad=journal.dead_count)
    monitor = LoadMonitor(source.name, status, progress or (lambda _: None), limiter, max_errors=max_errors)
    sink = RpcSink(target.server, target.name, target.specs, partition, limiter)
    delivery = _delivery(plan, target, journal, sink, monitor, stage_at_server=stage_at_server)
    task = LoadTask(
        target, source, delivery, journal, limiter, monitor, plan.batch_rows, partition, replace=plan.replace
    )
    pipeline = engine.pipeline(task)
    _look(task)
    with _explained(plan, journal, status, dead_letters):
        monitor.enter("loading")
        started = time.perf_counter()
        with span("alula.load.write", collection=target.name, via=plan.via, source=source.name):
            pipeline.run()
            delivery.finish(monitor)
        seconds = time.perf_counter() - started
        monitor.enter("verifying")
        with span("alula.load.verify", collection=target.name, rows=journal.done_rows, rejected=journal.dead_count):
            verification = _finish(plan, task, sink)
    letters = write_dead_letters(journal.dead_letters(), dead_letters, plan.id) if dead_letters is not None else None
    return LoadReport(
        rows=journal.done_rows - journal.dead_count,
        replaced=verification.most - verification.rows if plan.replace else 0,
        total=verification.rows,
        bad=journal.dead_count,
        dead_letters=letters,
        seconds=seconds,
        written=status.written,
        bytes=status.bytes,
        auto_ids=target.auto_ids(source),
        ignored=target.ignored(source),
        shares=monitor.shares(seconds),
        retries=limiter.retries,
        verification=verification,
    )


def _delivery(
    plan: LoadPlan,
    target: Target,
    journal: Journal,
    sink: RpcSink,
    monitor: LoadMonitor,
    *,
    stage_at_server: str | None,
) -> Delivery:
    """Calls, or a bulk import that has resumed the files of earlier runs."""
    if plan.via != "import":
        return CallDelivery(sink, journal, replace=plan.replace)
    stopping = threading.Event()

    def report(stage: str, rows: int, _: int | None, __: Figures = NO_FIGURES) -> None:
        if stopping.is_set():
            raise StoppedError("Stopped.")
        monitor.set(imported=rows)
        if stage == "counting":
            monitor.enter(stage)

    ledger = ImportLedger(journal)
    importing = ImportSink(
        target.server,
        target.name,
        target.specs,
        stage=plan.stage or "",
        folder=journal.folder,
        ledger=ledger,
        load_id=plan.id,
        stage_at_server=stage_at_server,
        partition=plan.partition,
        progress=report,
    )
    importing.recover()
    return ImportDelivery(importing, ledger, stopping)


def _look(task: LoadTask) -> None:
    """Find duplicate keys and, with `max_errors` 0, bad rows; nothing is written."""
    preflight = Preflight(task.target, task.source, task.monitor)
    try:
        preflight.duplicates(task.journal)
        if task.monitor.max_errors == 0 and task.journal.untouched:
            preflight.rows(task.batch_rows)
    except DataError as error:
        raise DataError(f"{error} Nothing was written.") from None


def _finish(plan: LoadPlan, task: LoadTask, sink: RpcSink) -> Verification:
    """Rewrite rows in doubt, and check that the collection contains all rows."""
    journal, target, limiter = task.journal, task.target, task.limiter
    rewrite_doubtful(task, sink)
    if target.server.dialect.flushes:
        limiter.run(f"flush {target.name!r}", lambda _: target.server.client.flush(target.name))
    if plan.identity != target.identity() and plan.identity:
        raise DataError(
            f"The collection {target.name!r} was dropped and created again during this load, so rows are missing; "
            "restart the load."
        )
    rows = journal.done_rows - journal.dead_count
    most = journal.rows_before + rows
    # an upsert does not say how many rows it replaced
    fewest = max(journal.rows_before, rows) if plan.replace else most
    found: list[Verification] = []
    # a server that has just come back has all rows, and answers no query for a while
    limiter.run("check the rows", lambda _: found.append(verify(target, journal.sample, fewest, most)))
    return found[-1]


@contextmanager
def _explained(plan: LoadPlan, journal: Journal, status: Status, dead_letters: Path | None) -> Iterator[None]:
    """Add to every error how far the load is, and write the rejected rows."""
    try:
        yield
    except (AlulaError, KeyboardInterrupt) as error:
        if dead_letters is not None:
            write_dead_letters(journal.dead_letters(), dead_letters, plan.id)
        kind = LoadInterrupted if isinstance(error, KeyboardInterrupt | StoppedError) else type(error)
        raise kind(f"{str(error) or 'Stopped.'} {_how_far(journal, status)}") from error


def _how_far(journal: Journal, status: Status) -> str:
    if journal.untouched:
        return "Nothing was written."
    total = f" of {status.total:,}" if status.total else ""
    text = f"{journal.read_rows - journal.dead_count:,}{total} rows are written and acknowledged"
    if journal.path is not None:
        return f"{text}, and journaled in {journal.path}."
    return f"{text}; load the same rows again to resume: rows that are there already are replaced, not doubled."
