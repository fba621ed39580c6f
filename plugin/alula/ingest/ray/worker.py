"""The worker of a Ray load: reads, encodes and writes slices."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import ray

from alula.encoders import load_encoder
from alula.errors import AlulaError, ServerError
from alula.ingest.delivery import CallDelivery
from alula.ingest.journal import Acknowledgement, Journal
from alula.ingest.monitor import LoadMonitor, Status
from alula.ingest.pipeline import SAMPLE_PER_BATCH, LoadTask, Pipeline
from alula.ingest.ray.work import RayTask, Result, Unit, first_line
from alula.ingest.rpc_sink import RpcSink
from alula.ingest.target import Target
from alula.milvus import connect
from alula.milvus.retrying import RateLimiter, retry_policy
from alula.sources.source_slice import SourceSlice

WRITERS = 2  # calls at a time of one worker, whose one core cannot encode more rows than these carry
IN_FLIGHT = 2  # slices that a worker has at a time: one under way, one waiting


class Worker:
    """Loads slices, in a process of Ray's.

    Args:
        task: Reference of the `RayTask` in Ray's object store.
    """

    def __init__(self, task: Any) -> None:
        self._task: RayTask = ray.get(task)
        self._target: Target | None = None
        context = ray.get_runtime_context()
        self._id = context.get_actor_id()
        # a process that replaces a lost one gets the slices of that first
        self._in_doubt = IN_FLIGHT if context.was_current_actor_reconstructed else 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Load one slice; errors are returned: Ray would add pages of text."""
        unit = Unit(**{name: column[0].tolist() for name, column in batch.items()})
        try:
            result: Result | AlulaError = self._load(unit)
        except AlulaError as error:
            result = error
        except Exception as error:  # a broken machine, or a bug: the journal is in order all the same
            result = AlulaError(f"A Ray worker failed ({type(error).__name__}: {first_line(error)}).")
        return {"result": [pickle.dumps(result)]}

    def _open(self) -> Target:
        task = self._task
        name, content = task.encoder
        with tempfile.TemporaryDirectory(prefix="alula-ray-") as folder:
            (Path(folder) / name).write_bytes(content)
            encoder = load_encoder(Path(folder) / name, threads=1)
        # the driver has connected with the same login: a failure now may pass, as a call's failure does
        waiting = retry_policy(task.retry_timeout, retry_if=lambda error: isinstance(error, ServerError))
        server = waiting(connect, task.uri, **task.login)
        target: Target = waiting(Target.open, server, task.collection, encoder)
        return target

    def _load(self, unit: Unit) -> Result:
        task = self._task
        self._target = target = self._target or self._open()
        limiter = RateLimiter(WRITERS, task.retry_timeout)
        journal = Journal()
        journal.duplicates = unit.duplicates
        if unit.in_doubt or self._in_doubt:
            journal.sending(unit.span)
        self._in_doubt = max(0, self._in_doubt - 1)
        sink = RpcSink(target.server, target.name, target.specs, task.partition, limiter)
        status = Status()
        monitor = LoadMonitor(task.source.name, status, lambda _: None, limiter, max_errors=task.max_errors)
        load = LoadTask(
            target,
            SourceSlice(task.source, unit.first, unit.last),
            CallDelivery(sink, journal, replace=True),
            journal,
            limiter,
            monitor,
            task.batch_rows,
            task.partition,
        )
        Pipeline(load, cores=1).run()
        rows = unit.last - unit.first + 1
        if journal.done_rows != rows:
            raise AlulaError(
                f"{task.source.name} gave {journal.done_rows:,} rows of the {rows:,} from row {unit.first} on; it must "
                "be the same on all machines, and must not change."
            )
        sample = journal.ranked_sample[:SAMPLE_PER_BATCH]
        return Result(
            number=unit.number,
            worker=self._id,
            acknowledgement=Acknowledgement(unit.span, rows, list(journal.dead_letters()), sample),
            doubtful=journal.doubtful,
            written=status.written,
            bytes=status.bytes,
            busy=monitor.busy,
            retries=limiter.retries,
        )
