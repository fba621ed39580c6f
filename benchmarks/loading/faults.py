"""The fault table: interrupted loads, and the rows of the collection afterwards.

Every run makes an empty collection, loads the same rows while the fault strikes at moments that a seed decides, goes
on with ``--resume`` until the loader says that all is done, and then reads every row and compares it with brute force.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.loading.checking import Rows, check
from benchmarks.loading.engines import COLLECTION, Engine, LiteEngine, ServerEngine, frozen
from benchmarks.loading.loader import LIMIT, Loader, LoaderHangsError, children
from benchmarks.report import BUILD, Report, say
from tests.tiny_encoders import write_drq, write_flops
from tools.servers.cutting_proxy import CuttingProxy

TITLE = "what is in the collection after a fault"
ANSWERS = """\
The question: when something breaks in the middle of a load, is every row there afterwards, once, and right? Each run
makes an empty collection, starts `alula load` of 30,000 rows (a vector of 16 numbers, a number and a text of 600 bytes:
20 MB), lets the fault strike at moments that a seed chooses, mostly while rows are being written, and starts the same
command with `--resume` until it says that all is done. Then every row is read by pymilvus alone and compared with brute
force: the ids, the source's columns, and the companion fields as onnxruntime computes them from the encoder file.
With the sink "upsert" half of the ids were there before, with other rows. "Lost" are rows that are not there, "doubled"
are rows too many (the server's own count shows them), "wrong" are rows of which any field differs. "Interruptions" are
those that struck a loader at work; each run of some faults has several.

Killed is `kill -9`; frozen is `SIGSTOP` for seconds, in every fourth run for longer than a call may take. A connection
is cut by a proxy that resets it in the middle of a write request, or once the server has answered a write and before
the client has the answer. The rate limit is Milvus's own quota. The journal's disk is 4 MB large and is filled up while
rows are written. Of two loaders with one journal the second has to be refused.
"""

SEED = 0
SEEDS = (SEED,)
ROWS = 30_000
DIM = 16
TEXT = 600  # bytes in a row's text: 20 MB in all, a dozen requests
WRITING_SHARE = 0.9
ATTEMPTS = 8  # a load that was hit at most twice needs no more
TABLE = "Faults"
RATE = {"quotaAndLimits.dml.enabled": True, "quotaAndLimits.dml.insertRate.max": 2}  # MB/s: a load takes ten seconds
LONG_FREEZE = 70.0  # seconds: longer than a write may take
JOURNAL_DISK = 4 << 20  # bytes: enough for the load, but for the ballast


class FailedRunError(RuntimeError):
    """A run did something else than it should have."""


@dataclass(frozen=True)
class Window:
    """Seconds of an undisturbed load, from the start of its journal.

    Args:
        writing: Seconds until all rows are written.
        whole: Seconds until its process has ended.
    """

    writing: float
    whole: float


@dataclass
class Run:
    """One load that is to be hit.

    Args:
        engine: Where to.
        loader: The command.
        random: Source of the moments.
        window: Duration of an undisturbed load.
        interruptions: Faults that struck a loader at work.
        unwritten: Faults that struck before all rows were acknowledged.
    """

    engine: Engine
    loader: Loader
    random: random.Random
    window: Window
    interruptions: int = 0
    unwritten: int = 0

    def pause(self, share: float = 1.0) -> None:
        """Wait until a random moment, mostly one in which rows are written."""
        window = self.window.writing if self.random.random() < WRITING_SHARE else self.window.whole
        until = time.monotonic() + self.random.random() * window * share
        while time.monotonic() < until and self.loader.alive:
            time.sleep(0.005)

    def strike(self) -> bool:
        """Count an interruption if there is a loader to interrupt."""
        struck = self.loader.alive
        if struck:
            self.interruptions += 1
            self.unwritten += self.loader.still_writing(ROWS)
        return struck

    def finish(self) -> None:
        """Wait for the loader, and resume until it says that all is done.

        Raises:
            FailedRunError: If it does not get there.
        """
        for _ in range(ATTEMPTS):
            if self._wait() == 0:
                return
            self.loader.start()
        raise FailedRunError(f"The loader never came to its end: exit codes {self.loader.codes}.")

    def _wait(self) -> int:
        ends = time.monotonic() + LIMIT
        while self.loader.alive and time.monotonic() < ends:
            self.engine.revive()
            time.sleep(0.1)
        self.engine.revive()
        return self.loader.wait(1)


def loader_killed(run: Run) -> None:
    """Kill -9 the loader, in every second run the resumed one again."""
    _kill(run)


def loader_and_engine_killed(run: Run) -> None:
    """Kill -9 the loader and the embedded engine, its child."""
    _kill(run, engine=True)


def _kill(run: Run, *, engine: bool = False) -> None:
    for share in (1.0, 0.7)[: run.random.choice([1, 2])]:
        run.loader.start()
        run.pause(share)
        if not run.strike():
            return
        run.loader.kill(engine=engine)


def engine_killed(run: Run) -> None:
    """Kill -9 the embedded engine under a running loader, which then fails."""
    run.loader.change("--retry-timeout", "10")
    run.loader.start()
    run.pause()
    if run.strike():
        for child in children(run.loader.pid):
            os.kill(child, 9)


def server_killed(run: Run) -> None:
    """Kill -9 the server, start it again; the loader may wait for it or be resumed."""
    run.loader.start()
    run.pause()
    run.strike()
    _server(run).kill()
    time.sleep(run.random.uniform(0, 3))
    _server(run).start()


def both_killed(run: Run) -> None:
    """Kill -9 the server and the loader, one shortly after the other."""
    run.loader.start()
    run.pause()
    run.strike()
    kills: list[Callable[[], object]] = [_server(run).kill, run.loader.kill]
    run.random.shuffle(kills)
    kills[0]()
    time.sleep(run.random.uniform(0, 0.5))
    kills[1]()
    _server(run).start()


def connection_cut(run: Run) -> None:
    """Reset connections within requests, and between a write and its answer."""
    with _behind(run, chance=0.3) as proxy:
        run.loader.start()
        run.finish()
    run.interruptions += sum(proxy.cuts.values())
    run.unwritten += sum(proxy.cuts.values())  # only writes are large enough to be cut


def connection_cut_at_moments(run: Run) -> None:
    """Reset the connections while an import goes on, whose requests are all small."""
    with _behind(run) as proxy:
        run.loader.start()
        for _ in range(3):
            run.pause(0.4)
            run.strike()
            proxy.cut_now()
        run.finish()


def slow_replies(run: Run) -> None:
    """Hold all traffic back for seconds."""
    with _behind(run, delay=run.random.uniform(0.1, 0.5)) as proxy:
        run.loader.start()
        for _ in range(2):
            run.pause()
            run.strike()
            proxy.stall(run.random.uniform(2, 12))
        run.finish()


def server_frozen(run: Run) -> None:
    """SIGSTOP the server for seconds, every fourth time beyond a call's timeout."""
    run.loader.start()
    run.pause()
    run.strike()
    long = run.random.random() < 0.25
    with frozen(_server(run).pid):
        time.sleep(LONG_FREEZE if long else run.random.uniform(1, 8))


def engine_frozen(run: Run) -> None:
    """The same for the embedded engine."""
    run.loader.start()
    run.pause()
    if run.strike():
        long = run.random.random() < 0.25
        for engine in children(run.loader.pid):  # none when the loader is just about to end
            with frozen(engine):
                time.sleep(LONG_FREEZE if long else run.random.uniform(1, 8))


def rate_limited(run: Run) -> None:
    """The server takes 1 MB a second at most, and refuses what is more."""
    engine = _server(run)
    with engine.settings(RATE):
        run.loader.start()
        run.strike()
        run.finish()


def journal_disk_full(run: Run) -> None:
    """The journal's file system fills up; the loader stops, and resumes with space."""
    folder = run.loader.place / "disk"
    with _small_disk(folder):
        run.loader.journal = folder / "load.journal"
        run.loader.change("--journal", str(run.loader.journal))
        ballast = folder / "ballast"
        run.loader.start()
        run.pause()
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:  # until there is no space
                file.write(bytes(4096))
        was_unwritten = run.loader.still_writing(ROWS)
        if run.loader.wait() != 0:
            run.interruptions += 1
            run.unwritten += was_unwritten
        ballast.unlink()
        run.finish()


def two_loaders(run: Run) -> None:
    """A second loader with the same journal is refused; the first continues."""
    run.loader.start()
    second = run.loader.twin()
    for resume in (False, True):
        run.pause(0.5)
        if not run.strike():
            break
        with frozen(run.loader.pid):  # or it would have ended before the second had begun
            second.launch(resume=resume)
            code = second.wait()
        if code != 2:
            raise FailedRunError(f"A second loader with the same journal ended with {code}, not 2.")
    if run.loader.wait() != 0:
        raise FailedRunError(f"The first loader ended with {run.loader.codes[-1]} after a second one had been refused.")


def _server(run: Run) -> ServerEngine:
    assert isinstance(run.engine, ServerEngine)
    return run.engine


@contextlib.contextmanager
def _behind(run: Run, **options: float) -> Iterator[CuttingProxy]:
    """Send the loader through a proxy for the block."""
    with CuttingProxy(_server(run).port, seed=run.random.randrange(1 << 30), **options) as proxy:
        run.loader.change("--uri", proxy.uri)
        yield proxy


def _tmpfs(folder: Path) -> bool:
    """Mount a disk of `JOURNAL_DISK` bytes, if this user may."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={JOURNAL_DISK}", "tmpfs", str(folder)]
    return bool(shutil.which("mount")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    if not _tmpfs(folder):
        raise SkippedError("a small disk cannot be mounted by this user")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class SkippedError(RuntimeError):
    """A fault cannot be made here."""


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Args:
        name: In words.
        strike: The fault of a run; an unfinished load is finished afterwards.
        engine: The engine.
        sink: Way of writing: ``insert``; ``upsert``, over half of the ids with other rows; or ``import``.
        runs: Number of runs.
        quick: Number of runs in a quick benchmark.
    """

    name: str
    strike: Callable[[Run], None]
    engine: type[ServerEngine] | type[LiteEngine]
    runs: int
    quick: int
    sink: str = "insert"


FAULTS = (
    Fault("loader killed", loader_killed, ServerEngine, 12, 1),
    Fault("loader killed", loader_killed, ServerEngine, 4, 0, "upsert"),
    Fault("loader killed", loader_killed, ServerEngine, 2, 1, "import"),
    Fault("server killed", server_killed, ServerEngine, 3, 1),
    Fault("server killed", server_killed, ServerEngine, 1, 0, "import"),
    Fault("loader and server killed", both_killed, ServerEngine, 3, 0),
    Fault("connection cut in requests and before replies", connection_cut, ServerEngine, 6, 1),
    Fault("connection cut in requests and before replies", connection_cut, ServerEngine, 2, 0, "upsert"),
    Fault("connection cut", connection_cut_at_moments, ServerEngine, 1, 0, "import"),
    Fault("server frozen", server_frozen, ServerEngine, 3, 0),
    Fault("slow and stalled replies", slow_replies, ServerEngine, 2, 0),
    Fault("rate limit", rate_limited, ServerEngine, 1, 0),
    Fault("journal's disk full", journal_disk_full, ServerEngine, 2, 0),
    Fault("two loaders, one journal", two_loaders, ServerEngine, 2, 0),
    Fault("loader killed", loader_killed, LiteEngine, 12, 1),
    Fault("loader killed", loader_killed, LiteEngine, 3, 0, "upsert"),
    Fault("loader and engine killed", loader_and_engine_killed, LiteEngine, 6, 1),
    Fault("engine killed", engine_killed, LiteEngine, 3, 1),
    Fault("engine frozen", engine_frozen, LiteEngine, 2, 0),
    Fault("journal's disk full", journal_disk_full, LiteEngine, 2, 1),
    Fault("two loaders, one journal", two_loaders, LiteEngine, 2, 1),
)


@dataclass
class Tally:
    """The results of all runs of one fault."""

    runs: int = 0
    interruptions: int = 0
    unwritten: int = 0
    unfinished: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0


@dataclass
class Bench:
    """Engines, rows and encoders shared by all runs, created on first use."""

    place: Path
    rows: Rows = field(default_factory=lambda: Rows(ROWS, DIM, SEED, TEXT))
    engines: dict[type[ServerEngine] | type[LiteEngine], Engine] = field(default_factory=dict)
    windows: dict[tuple[str, str], Window] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = self.rows.write(self.place / "rows.parquet")
        self.stale = self.rows.write_stale(self.place / "stale.parquet")
        self.encoders = {
            ServerEngine: write_drq(self.place / "drq.onnx", input_dim=DIM).path,
            LiteEngine: write_flops(self.place / "flops.onnx", input_dim=DIM, dim=64, max_nnz=8).path,
        }

    def run(self, fault: Fault, number: int, tally: Tally) -> None:
        """One run; what went wrong is added to the tally, and the loader's words are kept."""
        window = self._window(fault)
        run = self._new_run(fault, number, window)
        tally.runs += 1
        try:
            fault.strike(run)
            run.finish()
        except (FailedRunError, LoaderHangsError) as error:
            tally.unfinished += 1
            self._keep(run, fault, number, str(error))
        tally.interruptions += run.interruptions
        tally.unwritten += run.unwritten
        with run.engine.reading() as client:
            verdict = check(client, COLLECTION, self.rows, self.encoders[fault.engine])
        tally.lost += verdict.lost
        tally.doubled += verdict.doubled
        tally.wrong += verdict.wrong
        if not verdict.clean:
            self._keep(run, fault, number, f"{verdict}")
        shutil.rmtree(run.loader.place)

    def close(self) -> None:
        """Stop the engines."""
        for engine in self.engines.values():
            engine.close()

    def _new_run(self, fault: Fault, number: int, window: Window) -> Run:
        if fault.engine not in self.engines:
            self.engines[fault.engine] = fault.engine(self.place)
        engine = self.engines[fault.engine]
        encoder = self.encoders[fault.engine]
        # every second run keeps the vectors
        engine.create(self.rows, encoder, keep_vectors=number % 2 == 0)
        place = Path(tempfile.mkdtemp(dir=self.place))
        options = (
            ["--via", "import", "--stage", str(place / "stage")] if fault.sink == "import" else ["--via", "insert"]
        )
        if fault.sink == "upsert":
            before = Loader(place, COLLECTION, self.stale, encoder, engine.uri, options=options)
            before.launch()
            if before.wait() != 0:
                raise SystemExit(f"The rows to replace could not be loaded:\n{before.log.read_text()[-2000:]}")
        loader = Loader(place, COLLECTION, self.source, encoder, engine.uri, options=options)
        return Run(engine, loader, random.Random(f"{SEED} {fault.name} {engine.name} {fault.sink} {number}"), window)

    def _window(self, fault: Fault) -> Window:
        """Seconds of an undisturbed load."""
        key = (fault.engine.name, fault.sink)
        if key not in self.windows:
            run = self._new_run(fault, 0, Window(0, 0))
            run.loader.start()
            started, writing = time.monotonic(), 0.0
            while run.loader.alive:
                if run.loader.still_writing(ROWS):
                    writing = time.monotonic() - started
                time.sleep(0.01)
            code = run.loader.wait()
            whole = time.monotonic() - started
            # an import's files are soon written, and then the server reads them
            self.windows[key] = Window(whole if fault.sink == "import" else writing, whole)
            if code:
                self._keep(run, fault, -1, f"an undisturbed load ended with {code}")
            with run.engine.reading() as client:
                verdict = check(client, COLLECTION, self.rows, self.encoders[fault.engine])
            if code or not verdict.clean:
                raise SystemExit(f"A load that nothing disturbs fails: {verdict}\n{run.loader.log.read_text()[-2000:]}")
            say(
                f"  an undisturbed load ({fault.engine.name}, {fault.sink}): {self.windows[key].writing:.1f} s "
                f"until all is written, {self.windows[key].whole:.1f} s in all"
            )
        return self.windows[key]

    def _keep(self, run: Run, fault: Fault, number: int, what: str) -> None:
        run_name = f"{fault.strike.__name__}-{fault.engine.name}-{fault.sink}-{number}".replace(" ", "-")
        kept = BUILD / "loading-failures" / run_name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(run.loader.place, kept)
        say(f"  run {number} of {fault.name} ({fault.engine.name}, {fault.sink}): {what}\n  see {kept}")


def measure(report: Report, *, quick: bool, only: str = "", runs: int | None = None) -> None:
    """Run the table.

    Args:
        report: Gets the table and the targets.
        quick: True for few runs.
        only: Run only faults of which the name, engine and sink contain this text.
        runs: Number of runs of each fault, instead of the table's.
    """
    bench = Bench(Path(tempfile.mkdtemp(prefix="alula-faults-")))
    total = Tally()
    try:
        for fault in FAULTS:
            wanted = runs if runs is not None else fault.quick if quick else fault.runs
            if only not in f"{fault.strike.__name__} {fault.engine.name} {fault.sink}":
                continue
            tally = Tally()
            try:
                for number in range(wanted):
                    bench.run(fault, number, tally)
            except SkippedError as error:
                say(f"  {fault.name} left out: {error}")
                continue
            if wanted:
                _row(report, fault, tally, total)
    finally:
        bench.close()
        shutil.rmtree(bench.place, ignore_errors=True)
    _targets(report, total)


def _row(report: Report, fault: Fault, tally: Tally, total: Tally) -> None:
    for name, value in vars(tally).items():
        setattr(total, name, getattr(total, name) + value)
    report.row(
        TABLE,
        fault=fault.name,
        engine=fault.engine.name,
        sink=fault.sink,
        runs=tally.runs,
        **{
            "interruptions": tally.interruptions,
            "of them before all was written": tally.unwritten,
            "never finished": tally.unfinished,
            "rows lost": tally.lost,
            "rows doubled": tally.doubled,
            "rows wrong": tally.wrong,
        },
    )


def _targets(report: Report, total: Tally) -> None:
    for what, figure in (
        ("loads that were not finished, by loader or --resume", total.unfinished),
        ("rows lost in all runs", total.lost),
        ("rows doubled in all runs", total.doubled),
        ("rows wrong in all runs", total.wrong),
    ):
        report.target(f"Faults: {what}", figure, "0", figure == 0)
    report.at_least("Faults: interruptions before all was written, per run", total.unwritten / max(1, total.runs), 0.5)


@click.command()
@click.option("--only", default="", help="Only faults of which function, engine and sink contain this text.")
@click.option("--runs", type=int, help="Number of runs of each fault.")
def main(only: str, runs: int | None) -> None:
    """Run some of the faults; the figures go nowhere but to the screen."""
    report = Report("loading-some-faults", list(SEEDS), "python -m benchmarks.loading.faults")
    measure(report, quick=False, only=only, runs=runs)
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
