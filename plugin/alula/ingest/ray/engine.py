"""The driver of a Ray load: cuts the source, and acknowledges the results."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import logging
import math
import pickle
import socket
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from alula.errors import AlulaError, UsageError
from alula.ingest.journal import Acknowledgement
from alula.ingest.pipeline import LoadTask, Runner, Via
from alula.ingest.ray.work import RayTask, Result, Unit, first_line, last_line
from alula.ingest.target import Target
from alula.sources import ArraySource, FileSource, Source

try:
    import ray
    import ray.data
    from ray.exceptions import RayError

    from alula.ingest.ray.worker import IN_FLIGHT, WRITERS, Worker
except ImportError:
    raise UsageError("Loading on a Ray cluster needs Ray, which is not installed: pip install 'alula[ray]'.") from None

UNIT_BATCHES = 8  # batches of a slice: seconds of work, so that Ray's own milliseconds do not count
MOST_UNITS = 20_000  # Ray takes about two milliseconds for each before the first begins


class RayCluster:
    """A Ray cluster to load with, connected as long as this process lives.

    See `alula.ingest.pipeline.Engine`.

    Args:
        address: ``HOST:PORT`` of the cluster, ``auto`` for the one that this machine is part of, or ``local`` to start
            one here. An existing connection of the program is used.
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
                f"There is no Ray cluster at {address!r} ({first_line(error)}); give its address as HOST:PORT, or "
                "'local' to start one on this machine."
            ) from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def check(self, target: Target, source: Source, via: Via) -> Via:
        """The way rows are written: by calls.

        Raises:
            UsageError: If this source or collection cannot be loaded from several machines, or not this way.
        """
        if via == "import":
            raise UsageError('Ray workers write by calls to Milvus; leave via="import" or engine="ray" out.')
        if target.server.dialect.embedded:
            raise UsageError(
                "Milvus Lite admits one process to its file, so Ray workers cannot write to it; leave "
                'engine="ray" out, or use a Milvus server.'
            )
        if not isinstance(source, FileSource | ArraySource) or source.rows is None:
            raise UsageError(
                f"{source.name} cannot be cut into slices for Ray, since its rows are only found by reading it; save "
                'it as Parquet or .npy, or leave engine="ray" out.'
            )
        return "insert"

    def pipeline(self, task: LoadTask) -> Runner:
        """See `alula.ingest.pipeline.Engine`."""
        return RayPipeline(task, self.unit_batches)


class RayPipeline:
    """Moves the rows of a source into a collection with the workers of a Ray cluster.

    Args:
        task: The load.
        unit_batches: Batches that one worker loads at a time.

    Raises:
        UsageError: If rows that are there already would be doubled.
    """

    def __init__(self, task: LoadTask, unit_batches: int) -> None:
        self._task = task
        if task.journal.rows_before and not task.replace:
            raise UsageError(
                f"{task.target.name!r} contains rows, and Ray workers may write rows twice, which would double them; "
                'leave mode="insert" out.'
            )
        self._rows = int(task.source.rows or 0)
        batches = max(unit_batches, math.ceil(self._rows / task.batch_rows / MOST_UNITS))
        self._unit_rows = task.batch_rows * batches
        self._workers: set[str] = set()

    def run(self) -> None:
        """Have every slice loaded that is not acknowledged yet.

        Raises:
            DataError: If the source is damaged, or more than `max_errors` rows are rejected.
            ServerError: If Milvus refuses rows for good.
            JournalError: If the journal cannot be written.
            AlulaError: If Ray fails.
            KeyboardInterrupt: If the user stopped it; slices in flight are not acknowledged.
        """
        journal = self._task.journal
        journal.begin_run()
        units = list(self._units())
        # Ray does not say which slices it has begun. Each worker has one under way, and perhaps one more whose result
        # is on its way here: later ones count as not begun. More would prolong the check at the end.
        ahead = 2 * _cores()
        with contextlib.closing(self._results(units, ahead)) as results:  # which stops the workers
            for taken, result in enumerate(results):
                self._take(result)
                if taken + ahead < len(units):
                    journal.sending(units[taken + ahead].span)

    def _units(self) -> Iterator[Unit]:
        """The slices that are not acknowledged."""
        journal = self._task.journal
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
        """The results of the workers, in the order of their arrival."""
        if not units:
            return
        self._task.journal.sending(units[min(ahead, len(units)) - 1].span)
        slices = ray.data.from_items([dataclasses.asdict(unit) for unit in units], override_num_blocks=len(units))
        done = slices.map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(ray.put(self._ray_task()),),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=_cores(), max_tasks_in_flight_per_actor=IN_FLIGHT),
            num_cpus=1,
        )
        # a prefetched result would not be acknowledged until the next one comes
        batches: Any = iter(done.iter_batches(batch_size=None, prefetch_batches=0))
        count = 0
        with contextlib.closing(batches):
            while (batch := self._next(batches)) is not None:
                for packed in batch["result"]:
                    result = pickle.loads(packed)  # noqa: S301 - a worker of ours has pickled it
                    if isinstance(result, AlulaError):
                        raise result
                    count += 1
                    yield result
        if count != len(units):
            raise AlulaError(f"Ray gave back {count:,} of {len(units):,} slices.")

    @staticmethod
    def _next(batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except RayError as error:
            raise AlulaError(
                f"Ray failed ({last_line(error)}); its workers need this version of Alula and enough memory."
            ) from error

    def _ray_task(self) -> RayTask:
        task, target = self._task, self._task.target
        server, path = target.server, target.lowering.encoder.path
        return RayTask(
            source=task.source,
            encoder=(path.name, path.read_bytes()),
            uri=server.uri,
            login=server.login,
            collection=target.name,
            partition=task.partition,
            batch_rows=task.batch_rows,
            max_errors=task.monitor.max_errors,
            retry_timeout=task.limiter.retry_timeout,
        )

    def _take(self, result: Result) -> None:
        done, monitor = result.acknowledgement, self._task.monitor
        monitor.reject(int(done.span[0]), done.read, [(letter.number, letter.reason) for letter in done.dead])
        for span in result.doubtful:
            self._task.journal.doubt(span)
        self._task.journal.acknowledge(result.number, done)
        self._workers.add(result.worker)
        workers = len(self._workers)
        monitor.lanes.update(reading=workers, encoding=workers, writing=WRITERS * workers)
        for stage, seconds in result.busy.items():
            monitor.worked(stage, seconds)
        self._task.limiter.retries += result.retries
        monitor.add(read=done.read, encoded=result.written, written=result.written, bytes=result.bytes)


def _cores() -> int:
    """The cores of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _check_port(address: str) -> None:
    """Raise an `OSError` without a listener: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
