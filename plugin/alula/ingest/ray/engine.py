"""A load on many machines: Ray Data gives parts of a source to workers, and the driver keeps the journal.

A worker reads, encodes and writes its part with the same `Pipeline` as a load on one machine. What it did comes back as
one small result, and is acknowledged when the driver has it on disk. Ray carries a part out again when a worker is
lost, without a word, and workers of a driver that was killed may write for a moment longer. So rows are always
upserted: a part that is written twice, or late, leaves the same rows. Parts about which anything is in doubt are looked
at once more when all are done, as after any other load.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import logging
import math
import pickle
import socket
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import tenacity

from alula.collection import Collection
from alula.encoders import load_encoder
from alula.errors import AlulaError, ServerError, UsageError
from alula.ingest.delivery import CallDelivery
from alula.ingest.journal import Acknowledgement, Journal
from alula.ingest.pipeline import SAMPLE_PER_BATCH, Pipeline, Status
from alula.ingest.rpc_sink import RpcSink
from alula.ingest.target import Target
from alula.milvus import Server, connect
from alula.milvus.retrying import FIRST_WAIT, LONGEST_WAIT, RateLimiter
from alula.sources import ArraySource, Cursor, FileSource, Source
from alula.sources.source_slice import Part

try:
    import ray
    import ray.data
    from ray.exceptions import RayError
except ImportError:
    raise UsageError("Loading on a Ray cluster needs Ray, which is not installed: pip install 'alula[ray]'.") from None

UNIT_BATCHES = 8  # batches of a part: seconds of work, so that Ray's own milliseconds do not count
MOST_UNITS = 20_000  # Ray takes about two milliseconds for each before the first begins
WRITERS = 2  # calls at a time of one worker, whose one core cannot encode more than these carry
IN_FLIGHT = 2  # parts that a worker has at a time: one that it works on, one that waits


@dataclass(frozen=True)
class Unit:
    """A part of a source that one worker loads.

    Args:
        number: The how many-th part behind what is done it is.
        first: Number of its first row.
        last: Number of its last row.
        duplicates: Numbers of rows in it whose key an earlier row has.
        in_doubt: Whether an earlier run may have written rows of it.
    """

    number: int
    first: int
    last: int
    duplicates: Sequence[int]
    in_doubt: bool


@dataclass(frozen=True)
class Result:
    """What a worker did with a part.

    Args:
        number: The part's.
        worker: The worker's id.
        acknowledgement: What became of the rows.
        doubtful: Batches about which an answer was lost.
        written: Rows written.
        bytes: Bytes written.
        busy: Seconds for reading, encoding and writing, those of all the worker's threads added.
        retries: Calls that were made again.
    """

    number: int
    worker: str
    acknowledgement: Acknowledgement
    doubtful: Sequence[tuple[Cursor, Cursor]]
    written: int
    bytes: int
    busy: dict[str, float]
    retries: int


@dataclass(frozen=True)
class Job:
    """What all workers need. It lies in Ray's object store, where neither logs nor the dashboard show it.

    Args:
        source: The rows; files must be readable under the same names on every machine.
        encoder: The encoder file's name and content.
        uri: Milvus.
        login: What else `connect` takes; a certificate authority's file must be there on every machine.
        collection: The collection.
        partition: Partition to write to.
        size: Rows in a batch.
        max_errors: The most rows that may be left out.
        patience: Seconds for which a failing call to Milvus is made again.
    """

    source: Source
    encoder: tuple[str, bytes]
    uri: str
    login: dict[str, Any] = field(repr=False)
    collection: str
    partition: str | None
    size: int
    max_errors: int
    patience: float


class RayCluster:
    """A Ray cluster to load with; connected as long as this process lives.

    Args:
        address: ``HOST:PORT`` of the cluster, ``auto`` for the one that this machine is part of, or ``local`` to start
            one here. A connection that the program has already is used as it is.
        unit_batches: Batches that one worker loads at a time.

    Raises:
        UsageError: If there is no such cluster.
    """

    name = "ray"

    def __init__(self, address: str = "auto", *, unit_batches: int = UNIT_BATCHES) -> None:
        self.unit_batches = unit_batches
        if ray.is_initialized():
            return
        own = {"include_dashboard": False} if address == "local" else {}
        try:
            _check_port(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise UsageError(
                f"There is no Ray cluster at {address!r} ({_first_line(error)}); give --ray-address HOST:PORT, or "
                "'local' to start one on this machine."
            ) from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False

    @staticmethod
    def check(target: Target, source: Source, via: str) -> Literal["insert"]:
        """How rows are written: by calls.

        Raises:
            UsageError: If this source or collection cannot be loaded from several machines, or not that way.
        """
        if via == "import":
            raise UsageError("Ray's workers write by calls to Milvus; leave --via import or --engine ray out.")
        if target.server.embedded:
            raise UsageError(
                "Milvus Lite lets one process have its file, so Ray's workers cannot write to it; leave --engine ray "
                "out, or use a Milvus server."
            )
        if not isinstance(source, FileSource | ArraySource) or source.rows is None:
            raise UsageError(
                f"{source.name} cannot be cut into parts for Ray, since only a reading of it tells where its rows are; "
                "save it as Parquet or .npy, or leave --engine ray out."
            )
        return "insert"

    def pipeline(self, *arguments: Any, **options: Any) -> RayPipeline:
        """A `RayPipeline` on this cluster; arguments as `Pipeline`."""
        return RayPipeline(self, *arguments, **options)


class RayPipeline(Pipeline):
    """Moves the rows of a source into a collection with the workers of a Ray cluster.

    Args:
        cluster: The cluster.
        arguments: As `Pipeline`.
        options: As `Pipeline`.

    Raises:
        UsageError: If rows that are there already would be doubled.
    """

    def __init__(self, cluster: RayCluster, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._about = cast("Mapping[str, Any]", self._journal.job)
        if self._journal.rows_before and not self._about["replace"]:
            raise UsageError(
                f"{self._target.name!r} holds rows, and Ray's workers may write rows twice, which would double them; "
                "leave --mode insert out."
            )
        self._rows = int(self._source.rows or 0)
        batches = max(cluster.unit_batches, math.ceil(self._rows / self._size / MOST_UNITS))
        self._unit_rows = self._size * batches
        self._workers: set[str] = set()

    def run(self) -> None:
        """Have every part loaded that is not acknowledged yet.

        Raises:
            DataError: If the source is damaged, or more rows than `max_errors` cannot be loaded.
            ServerError: If Milvus refuses rows for good.
            JournalError: If the journal cannot be written.
            AlulaError: If Ray fails.
            KeyboardInterrupt: If the user stopped it; parts in flight are not acknowledged.
        """
        self._journal.begin_run()
        units = list(self._units())
        # Nothing says which parts Ray has begun. Each worker has one under way, and perhaps one more whose result is on
        # its way here: those further behind are taken as not begun. More would cost the look at the end much time.
        ahead = 2 * _cores()
        with contextlib.closing(self._results(units, ahead)) as results:  # which stops the workers
            for taken, result in enumerate(results):
                self._take(result)
                if taken + ahead < len(units):
                    self._journal.sending(_span(units[taken + ahead]))

    def _units(self) -> Iterator[Unit]:
        """The parts that are not acknowledged."""
        journal = self._journal
        duplicates = sorted(journal.duplicates or [])
        begin = 0 if journal.done is None else int(journal.done) + 1
        for number, first in enumerate(range(begin, self._rows, self._unit_rows)):
            last = min(first + self._unit_rows, self._rows) - 1
            if journal.is_acknowledged((first, last)):
                journal.acknowledge(number, Acknowledgement((first, last), last - first + 1))
                continue
            here = duplicates[bisect.bisect_left(duplicates, first) : bisect.bisect_right(duplicates, last)]
            yield Unit(number, first, last, here, journal.in_doubt((first, last)))

    def _results(self, units: Sequence[Unit], ahead: int) -> Generator[Result, None, None]:
        """What the workers did, as it comes."""
        if not units:
            return
        self._journal.sending(_span(units[min(ahead, len(units)) - 1]))
        parts = ray.data.from_items([dataclasses.asdict(unit) for unit in units], override_num_blocks=len(units))
        done = parts.map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(ray.put(self._job()),),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=_cores(), max_tasks_in_flight_per_actor=IN_FLIGHT),
            num_cpus=1,
        )
        # a prefetched result would not be acknowledged until the next one comes
        batches: Any = iter(done.iter_batches(batch_size=None, prefetch_batches=0))
        count = 0
        with contextlib.closing(batches):
            while (batch := self._next(batches)) is not None:
                for packed in batch["result"]:
                    result = pickle.loads(packed)  # noqa: S301 - a worker of ours has made it
                    if isinstance(result, AlulaError):
                        raise result
                    count += 1
                    yield result
        if count != len(units):
            raise AlulaError(f"Ray gave back {count:,} of {len(units):,} parts.")

    @staticmethod
    def _next(batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except RayError as error:
            raise AlulaError(
                f"Ray could not go on ({_last_line(error)}); its workers need this version of Alula and enough memory."
            ) from error

    def _job(self) -> Job:
        target, server = self._target, self._target.server
        path = target.lowering.encoder.path
        return Job(
            source=self._source,
            encoder=(path.name, path.read_bytes()),
            uri=server.uri,
            login=server.login,
            collection=target.name,
            partition=self._about["partition"],
            size=self._size,
            max_errors=self._max_errors,
            patience=self._pace.patience,
        )

    def _take(self, result: Result) -> None:
        what = result.acknowledgement
        self._count_bad(int(what.span[0]), what.read, [(letter.number, letter.reason) for letter in what.dead])
        for span in result.doubtful:
            self._journal.doubt(span)
        self._journal.acknowledge(result.number, what)
        self._workers.add(result.worker)
        workers = len(self._workers)
        self.lanes = {"reading": workers, "encoding": workers, "writing": WRITERS * workers}
        for stage, seconds in result.busy.items():
            self.busy[stage] += seconds
        self._pace.retries += result.retries
        self._report(read=what.read, encoded=result.written, written=result.written, bytes=result.bytes)


class Worker:
    """Loads parts, in a process of Ray's.

    Args:
        job: Where Ray keeps the `Job`.
    """

    def __init__(self, job: Any) -> None:
        self._job: Job = ray.get(job)
        self._target: Target | None = None
        about = ray.get_runtime_context()
        self._id = about.get_actor_id()
        # a process that takes the place of one that was lost gets its parts first
        self._in_doubt = IN_FLIGHT if about.was_current_actor_reconstructed else 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Load one part; an error comes back as a result, since Ray would make pages of text of it."""
        unit = Unit(**{name: column[0].tolist() for name, column in batch.items()})
        try:
            result: Result | AlulaError = self._load(unit)
        except AlulaError as error:
            result = error
        except Exception as error:  # a broken machine, or a bug: the journal is in order all the same
            result = AlulaError(f"A worker of Ray's failed ({type(error).__name__}: {_first_line(error)}).")
        return {"result": [pickle.dumps(result)]}

    def _open(self) -> Target:
        name, content = self._job.encoder
        with tempfile.TemporaryDirectory(prefix="alula-ray-") as folder:
            (Path(folder) / name).write_bytes(content)
            encoder = load_encoder(Path(folder) / name, threads=1)
        # the driver has connected with the same login: what fails now may pass, as a call's failure does
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ServerError),
            wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            stop=tenacity.stop_after_delay(self._job.patience),
            reraise=True,
        )
        server: Server = waiting(connect, self._job.uri, **self._job.login)
        collection: Collection = waiting(Collection.open, server, self._job.collection, encoder=encoder)
        return collection.target()

    def _load(self, unit: Unit) -> Result:
        job = self._job
        self._target = target = self._target or self._open()
        pace = RateLimiter(WRITERS, job.patience)
        journal = Journal()
        journal.duplicates = unit.duplicates
        if unit.in_doubt or self._in_doubt:
            journal.sending(_span(unit))
        self._in_doubt = max(0, self._in_doubt - 1)
        sink = RpcSink(target.server, target.name, target.specs, job.partition, pace)
        status = Status()
        pipeline = Pipeline(
            target,
            Part(job.source, unit.first, unit.last),
            CallDelivery(sink, journal, replace=True),
            journal,
            pace,
            size=job.size,
            max_errors=job.max_errors,
            progress=lambda _: None,
            status=status,
            cores=1,
        )
        pipeline.run()
        rows = unit.last - unit.first + 1
        if journal.done_rows != rows:
            raise AlulaError(
                f"{job.source.name} gave {journal.done_rows:,} rows of the {rows:,} from row {unit.first} on; it must "
                "be the same on all machines, and must not change."
            )
        sample = journal.ranked_sample[:SAMPLE_PER_BATCH]
        return Result(
            number=unit.number,
            worker=self._id,
            acknowledgement=Acknowledgement(_span(unit), rows, list(journal.dead_letters()), sample),
            doubtful=journal.doubtful,
            written=status.written,
            bytes=status.bytes,
            busy=pipeline.busy,
            retries=pace.retries,
        )


def _span(unit: Unit) -> tuple[int, int]:
    return unit.first, unit.last


def _cores() -> int:
    """The cores of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _check_port(address: str) -> None:
    """Raise an `OSError` when nothing listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _last_line(error: BaseException) -> str:
    """The end of a message of Ray's, which begins with the stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
