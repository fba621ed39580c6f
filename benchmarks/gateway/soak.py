"""An hour of faults: gateways, server and connections killed under four clients."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from alula import encoder_store
from benchmarks.gateway.soak_model import CLIENTS, DIM, Model, columns_of
from benchmarks.gateway.soak_straight import PATIENCE, Findings, straights
from benchmarks.gateway.soak_worker import ENCODER, Refusal, Seen, Task, make, work
from benchmarks.gateway.usage import Usage, usage
from benchmarks.loading.checking import compare, count
from benchmarks.report import BUILD, Report, say
from tests.tiny_encoders import write_drq, write_flops
from tools.servers.cutting_proxy import CUTS, CuttingProxy
from tools.servers.gateway import GatewayProgram
from tools.servers.lite import LiteServer, connected
from tools.servers.standalone import MilvusStandalone

TITLE = "an hour of faults"
ANSWERS = """\
The question: do gateways keep their promises while everything around them breaks, and does their memory stay constant?
Three gateways run in front of one Milvus 2.3.5. Four independent client processes insert, upsert, delete, query and
search by pymilvus, each call through any of the three, in an ordinary collection (FLAT) and in one with a DRQ index,
created through a gateway. Each also drops its own collection now and then, recreates it with either index, writes and
searches, every call through another gateway. Concurrently the server and two of the gateways are killed (`kill -9`)
and restarted at random moments; on either side of each gateway a proxy resets connections, in the middle of a write,
between the server's work and its answer, or at random, and delays them for seconds. The third gateway loses its
connections and its server, but is never killed: its resources are measured.

Every client keeps a model of its rows. A write that is answered must be there from that moment on, for every reader;
one that is not answered is in doubt: it may be there or not, as a whole row, once. Each answer is held against the
model: a query by every field, a search by brute force: which rows may be shown, the filter, the order, the text, the
score of the row's vector, and the recall of strongly consistent ones. At quiet points everything is read, from the
server itself (where the companion fields are compared with what onnxruntime computes) and through every gateway. Calls
may fail while something is broken between the client and the server, and shortly afterwards, and never else; only that
Milvus 2.3.5 sometimes breaks off a filtered query while rows are inserted (an assertion of its own) is not counted.

Milvus 2.3.5 itself does not keep all that it has acknowledged and shown when it is killed: it answers for a while with
a part of its rows, and now and then rows stay lost, or deleted ones come back. So the clients also look at the server
without a gateway, after each acknowledged write. A row that the server had shown and does not show a minute after it
was first missed is the server's loss, since gateways keep no rows; such rows are counted separately and removed from
both sides. A row that the server never showed counts against the gateways, and so does an answer unlike the model,
unless the server, queried at once without a gateway, differs in the same way. The same soak in front of Milvus Lite,
which loses hardly any row in a kill, is `soak-lite`.

The third gateway may not grow: the medians of its resident memory, open files and threads in the last quarter of the
run are compared with those in the second quarter.
"""

SEED = 0
SEEDS = (SEED,)
MINUTES, QUICK_MINUTES = 60.0, 2.0
GATEWAYS = 3
WATCHED = GATEWAYS - 1
ORDINARY = "ordinary"
SEARCH_PARAMS: Mapping[str, Mapping[str, Any]] = {"DRQ": {"candidates": 400}, "FLOPS_SPARSE": {"candidates": 400}}
QUIET_POINTS, QUICK_QUIET_POINTS = 9, 2  # the end is one
PAUSE = (2.0, 12.0)  # seconds between two faults
LARGE = 2000  # bytes of a request that may be cut
GRACE = 5.0  # seconds after a fault in which a call may still fail by it
RECOVERY = 20.0  # seconds that a gateway has to answer again once the server does
HANG = 120.0
SAMPLE_SECONDS = 2.0
MOST_MEMORY, MOST_FILES, MOST_THREADS = 20 << 20, 8, 4  # what the watched gateway may grow by
SERVERS_OWN = "/milvus/internal/core/"  # where an assertion of the server's engine says that it lies
LEAST_RECALL = {"FLAT": 0.99, "DRQ": 0.7, "FLOPS_SPARSE": 0.7}


@dataclass(frozen=True)
class Behind:
    """The server behind the gateways.

    Args:
        server: Makes the server, given a folder.
        encoder: Writes the encoder, given a folder.
        collections: The index type of each collection.
        kills: Number of kills of the server.
        quick: The number in a quick run.
    """

    server: Callable[[Path], MilvusStandalone | LiteServer]
    encoder: Callable[[Path], Path]
    collections: Mapping[str, str]
    kills: int
    quick: int


MILVUS = Behind(
    server=lambda folder: MilvusStandalone(folder / "milvus"),
    encoder=lambda folder: write_drq(folder / "drq.onnx", input_dim=DIM, levels=8, sign_bits=128).path,
    collections={ORDINARY: "FLAT", "codes": "DRQ"},
    kills=10,
    quick=1,
)
LITE = Behind(
    server=lambda _: LiteServer(),
    encoder=lambda folder: write_flops(folder / "flops.onnx", input_dim=DIM, dim=64, max_nnz=8).path,
    collections={ORDINARY: "FLAT", "sparse": "FLOPS_SPARSE"},
    kills=60,
    quick=4,
)


@dataclass(frozen=True)
class Window:
    """A time in which calls may fail through some gateways."""

    began: float
    ended: float
    gateways: frozenset[int]


@dataclass
class Tally:
    """Counts of one run.

    Args:
        faults: Number of faults by kind.
        windows: When calls may fail.
        readings: When the server, killed a moment ago, may answer with a part of its rows.
        recoveries: Seconds until each gateway answered again, after the server did.
        samples: Time and usage of the watched gateway.
        seen: Results of the clients.
        findings: States of the server itself, seen by clients and at quiet points.
        wrong: In words.
        ended: Gateways that ended by themselves.
        hung: Calls that never ended.
        lost: Rows, at quiet points.
        doubled: Rows, at quiet points.
        differing: Rows, at quiet points.
        compared: Rows that were compared at quiet points.
    """

    faults: Counter[str] = field(default_factory=Counter)
    windows: list[Window] = field(default_factory=list)
    readings: list[Window] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    samples: list[tuple[float, Usage]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    findings: list[Findings] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrongs: int = 0
    ended: int = 0
    hung: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    compared: int = 0
    quiet_points: int = 0

    def note(self, *wrong: str) -> None:
        """Something is wrong."""
        self.wrongs += len(wrong)
        for words in wrong:
            say(f"  WRONG: {words[:600]}")
        self.wrong += [words[:600] for words in wrong][: max(0, 100 - len(self.wrong))]


def minutes(*, quick: bool) -> float:
    """Duration of the faults in seconds; SOAK_MINUTES sets another one."""
    return float(os.environ.get("SOAK_MINUTES") or (QUICK_MINUTES if quick else MINUTES))


def measure(report: Report, *, quick: bool) -> None:
    """Run the soak before Milvus 2.3.5; see `run`."""
    run(report, MILVUS, quick=quick)


def run(report: Report, behind: Behind, *, quick: bool) -> None:
    """Run the soak.

    Args:
        report: Gets the tables and the targets.
        behind: The server.
        quick: Two minutes.
    """
    tally = Tally()
    points, kills = (QUICK_QUIET_POINTS, behind.quick) if quick else (QUIET_POINTS, behind.kills)
    with tempfile.TemporaryDirectory(prefix="alula-soak-") as folder, Place(Path(folder), behind, tally) as place:
        soak = Soak(place, tally, minutes(quick=quick) * 60)
        try:
            soak.run(points, kills)
        except Exception as error:  # an hour's figures are kept whatever happens
            tally.note(f"the run broke off: {error!r}")
            say(traceback.format_exc())
        finally:
            soak.close()
            _tables(report, tally)
        if tally.wrongs:
            _keep_logs(place)
    _targets(report, tally, behind.collections, quick=quick)


class Place:
    """The server, the gateways, and the proxies on either side of each, for one block.

    Args:
        folder: Of the encoder and the server's data.
        behind: The server.
        tally: Gets the samples of the watched gateway.
    """

    def __init__(self, folder: Path, behind: Behind, tally: Tally) -> None:
        self.server = behind.server(folder)
        self.encoder = behind.encoder(folder)
        self.collections = behind.collections
        self.behind: list[CuttingProxy] = []  # between gateways and server
        self.before: list[CuttingProxy] = []  # between clients and gateways
        self.gateways: list[GatewayProgram] = []
        self._tally = tally
        self._stack = contextlib.ExitStack()
        self._done = threading.Event()

    def __enter__(self) -> Place:
        try:
            self.server.start()
            self._stack.callback(self.server.stop)
            for number in range(GATEWAYS):
                behind = CuttingProxy(self.server.port, seed=number, large=LARGE)
                self.behind.append(self._stack.enter_context(behind))
                gateway = GatewayProgram(behind.uri)
                self.gateways.append(self._stack.enter_context(gateway))
                before = CuttingProxy(gateway.port, seed=number, large=LARGE)
                self.before.append(self._stack.enter_context(before))
            sampler = threading.Thread(target=self._sample, daemon=True)
            sampler.start()
            self._stack.callback(sampler.join)
            self._stack.callback(self._done.set)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def uris(self) -> list[str]:
        """Where the clients find the gateways."""
        return [proxy.uri for proxy in self.before]

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            with contextlib.suppress(OSError):  # it has ended: the main thread will see that
                self._tally.samples.append((time.time(), usage(self.gateways[WATCHED].pid)))


class Soak:
    """The clients, and what is done to them.

    Args:
        place: Server and gateways.
        tally: Gets what happens.
        seconds: Duration of the faults.
    """

    def __init__(self, place: Place, tally: Tally, seconds: float) -> None:
        self._place = place
        self._tally = tally
        self._seconds = seconds
        self._random = random.Random(SEED)
        self._workers: list[Any] = []
        self._pipes: list[Connection] = []
        self._began: list[Any] = []
        self._declare()

    def _declare(self) -> None:
        """Make the collections through a gateway, as any client would."""
        with connected(self._place.server.uri) as server:
            encoder_store.push(server, self._place.encoder, name=ENCODER)
        client = MilvusClient(self._place.uris[0])
        for name, index_type in self._place.collections.items():
            make(client, name, index_type)
        client.close()

    def run(self, quiet_points: int, server_kills: int) -> None:
        """Let the clients work and break things, with quiet points in between."""
        self._start()
        began = time.time()
        for number in range(quiet_points):
            until = began + self._seconds * (number + 1) / quiet_points
            first, last = (server_kills * part // quiet_points for part in (number, number + 1))
            self._break_things(until, last - first)
            self._quiet_point(last=number == quiet_points - 1)

    def close(self) -> None:
        """End the clients."""
        for worker in self._workers:
            worker.terminate()
            worker.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for number in range(CLIENTS):
            here, there = context.Pipe()
            began = context.Value("d", 0.0)
            task = Task(number, self._place.uris, self._place.server.uri, self._place.collections, SEARCH_PARAMS, SEED)
            worker = context.Process(target=work, args=(task, there, began), daemon=True)
            worker.start()
            self._workers.append(worker)
            self._pipes.append(here)
            self._began.append(began)

    def _break_things(self, until: float, server_kills: int) -> None:
        span = until - time.time()
        kills = sorted(until - span * self._random.uniform(0.35, 0.95) for _ in range(server_kills))
        faults: Sequence[tuple[Callable[[], None], int]] = (
            (self._kill_gateway, 3),
            (self._kill_gateways, 1),
            (self._cut_write, 4),
            (self._cut_all, 2),
            (self._stall, 1),
        )
        while time.time() < until:
            if kills and time.time() > kills[0]:
                kills.pop(0)
                self._kill_server()
            else:
                (fault,) = self._random.choices(*zip(*faults, strict=True))
                fault()
            self._look()
            time.sleep(self._random.uniform(*PAUSE))

    @contextlib.contextmanager
    def _fault(self, what: str, gateways: Sequence[int]) -> Iterator[None]:
        """Count a fault; calls may fail during it and shortly afterwards."""
        self._tally.faults[what] += 1
        began = time.time()
        yield
        self._tally.windows.append(Window(began, time.time() + GRACE, frozenset(gateways)))
        where = "" if len(gateways) == GATEWAYS else f" (gateway {', '.join(map(str, gateways))})"
        say(f"  {time.strftime('%H:%M:%S')} {what}{where}, {time.time() - began:.1f} s")

    def _kill_gateway(self) -> None:
        number = self._random.randrange(WATCHED)
        with self._fault("a gateway killed", [number]):
            self._place.gateways[number].kill()
            time.sleep(self._random.choice([0, self._random.uniform(0, 4)]))
            self._place.gateways[number].start()

    def _kill_gateways(self) -> None:
        with self._fault("two gateways killed", range(WATCHED)):
            for number in range(WATCHED):
                self._place.gateways[number].kill()
            for number in range(WATCHED):
                self._place.gateways[number].start()

    def _kill_server(self) -> None:
        began = time.time()
        with self._fault("the server killed", range(GATEWAYS)):
            self._place.server.kill()
            time.sleep(self._random.uniform(0, 3))
            self._place.server.start()
            _until(lambda: self._ask(self._place.server.uri), 180)
            answered = time.time()
            for number, gateway in enumerate(self._place.gateways):
                try:
                    _until(lambda gateway=gateway: self._ask(gateway.uri), RECOVERY + 100)
                except (MilvusException, grpc.RpcError) as error:
                    self._tally.note(f"gateway {number} does not answer, and the server does: {error}")
                self._tally.recoveries.append(time.time() - answered)
        self._tally.readings.append(Window(began, time.time() + PATIENCE, frozenset()))

    def _ask(self, uri: str) -> None:
        client = MilvusClient(uri)
        try:
            for name in self._place.collections:
                count(client, name)
        finally:
            client.close()

    def _cut_write(self) -> None:
        side, number = self._a_proxy()
        kind = self._random.choice(CUTS)
        where = "behind" if side is self._place.behind else "before"
        with self._fault(f"cut {kind}, {where} a gateway", [number]):
            proxy = side[number]
            cuts = sum(proxy.cuts.values())
            proxy.cut_next(kind)
            deadline = time.time() + 20
            while sum(proxy.cuts.values()) == cuts and time.time() < deadline:
                time.sleep(0.05)
            proxy.disarm()  # later, nobody would expect it

    def _cut_all(self) -> None:
        side, number = self._a_proxy()
        where = "behind" if side is self._place.behind else "before"
        with self._fault(f"all connections cut, {where} a gateway", [number]):
            side[number].cut_now()

    def _stall(self) -> None:
        side, number = self._a_proxy()
        seconds = self._random.uniform(1, 6)
        with self._fault("stalled for seconds", [number]):
            side[number].stall(seconds)
            time.sleep(seconds)

    def _a_proxy(self) -> tuple[list[CuttingProxy], int]:
        return self._random.choice([self._place.before, self._place.behind]), self._random.randrange(GATEWAYS)

    def _look(self) -> None:
        """True if server and gateways run."""
        for number, gateway in enumerate(self._place.gateways):
            if not gateway.alive:
                self._tally.ended += 1
                self._tally.note(f"gateway {number} has ended by itself")
                gateway.start()
        if self._place.server.ended:
            say("  the server has ended by itself: it is started again")
            self._kill_server()
        for number, began in enumerate(self._began):
            if began.value and time.time() - began.value > HANG:
                self._tally.hung += 1
                raise RuntimeError(f"A call of client {number} has not ended for {HANG:.0f} s.")
            if not self._workers[number].is_alive():
                raise RuntimeError(f"Client {number} has ended.")

    def _quiet_point(self, *, last: bool) -> None:
        """Stop the clients, compare everything, and let them go on."""
        time.sleep(GRACE)  # what still goes on without a fault
        for pipe in self._pipes:
            pipe.send("report")
        models: dict[str, list[Model]] = defaultdict(list)
        for number, pipe in enumerate(self._pipes):
            if not pipe.poll(HANG):
                self._tally.hung += 1
                raise RuntimeError(f"Client {number} does not report.")
            seen, held = pipe.recv()
            self._tally.seen.append(seen)
            self._tally.findings.append(seen.findings)
            self._tally.note(*seen.wrong)
            self._tally.wrongs += seen.wrongs - len(seen.wrong)
            for name, model in held.items():
                models[name].append(model)
        time.sleep(3)  # what was in doubt is done or will never be
        for name, some in models.items():
            self._compare(name, some)
        self._tally.quiet_points += 1
        for number, pipe in enumerate(self._pipes):
            pipe.send(None if last else {name: some[number] for name, some in models.items()})

    def _compare(self, name: str, models: Sequence[Model]) -> None:
        doubtful = [id_ for model in models for id_ in model.doubtful]
        for model, straight in zip(models, straights(self._place.server.uri), strict=True):
            straight.reconcile(name, model)
            model.settle(straight.states(name))
            straight.close()
            self._tally.findings.append(straight.findings)
        there = sum(id_ in model.certain for model in models for id_ in doubtful)
        columns = columns_of({id_: version for model in models for id_, version in model.certain.items()})
        encoder = None if name == ORDINARY else self._place.encoder
        ways = [("the server", self._place.server.uri, encoder)]
        ways += [(f"gateway {i}", gateway.uri, None) for i, gateway in enumerate(self._place.gateways)]
        for where, uri, companions in ways:
            client = MilvusClient(uri)
            verdict = compare(client, name, columns, companions)
            client.close()
            self._tally.compared += len(columns["id"])
            self._tally.lost += verdict.lost
            self._tally.doubled += verdict.doubled
            self._tally.differing += verdict.wrong
            if not verdict.clean:
                self._tally.note(f"{name}, read from {where}: {verdict}")
        say(
            f"  {time.strftime('%H:%M:%S')} quiet: {name} has {len(columns['id']):,} rows, {len(doubtful):,} were in "
            f"doubt and {there:,} of these are there"
        )


def _keep_logs(place: Place) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    for number, gateway in enumerate(place.gateways):
        path = BUILD / f"gateway-soak-{number}.log"
        path.write_text(gateway.log())
        say(f"  What gateway {number} printed: {path}")


def _until(attempt: Callable[[], object], seconds: float) -> None:
    """Retry until it works; raise the last error after a time limit."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            attempt()
        except (MilvusException, grpc.RpcError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _unexplained(tally: Tally) -> list[Refusal]:
    return [
        refusal
        for seen in tally.seen
        for refusal in seen.refusals
        if SERVERS_OWN not in refusal.message
        and not any(
            refusal.gateway in window.gateways and refusal.began < window.ended and refusal.ended > window.began
            for window in tally.windows
        )
    ]


def _nobodys(tally: Tally) -> list[str]:
    return [words for found in tally.findings for words in found.nobodys]


def _unconfirmed(tally: Tally) -> list[str]:
    """Answers unlike the model, at times when the server had all its rows."""
    return [
        words
        for seen in tally.seen
        for at, words in seen.passing
        if not any(window.began < at < window.ended for window in tally.readings)
    ]


def _tables(report: Report, tally: Tally) -> None:
    for what, times in sorted(tally.faults.items()):
        report.row("Faults", fault=what, times=times)
    for what in sorted({what for seen in tally.seen for what in seen.milliseconds}):
        milliseconds = [value for seen in tally.seen for value in seen.milliseconds.get(what, ())]
        refused = sum(refusal.what == what for seen in tally.seen for refusal in seen.refusals)
        report.row(
            "Calls of the clients",
            call=what,
            answered=len(milliseconds),
            failed=refused,
            **{
                "answers compared": sum(seen.judged[what] for seen in tally.seen),
                "p50 ms": float(np.median(milliseconds)),
                "p99 ms": float(np.quantile(milliseconds, 0.99)),
            },
        )
    servers: Counter[str] = sum((found.servers for found in tally.findings), Counter())
    for what, rows in sorted(servers.items()):
        report.row("Rows that Milvus itself had returned and lost in a kill", what=what, rows=rows)
    report.figures["rows that Milvus itself lost or brought back"] = servers.total()
    report.figures["answers as Milvus itself had it, unlike the model"] = sum(seen.servers for seen in tally.seen)
    report.figures["answers with a part of the rows, after Milvus was killed"] = sum(
        len(seen.passing) for seen in tally.seen
    ) - len(_unconfirmed(tally))
    own = sum(SERVERS_OWN in refusal.message for seen in tally.seen for refusal in seen.refusals)
    report.figures["calls that an assertion of the server's engine ended"] = own
    for refusal in _unexplained(tally)[:20]:
        say(f"  unexplained: {refusal}")
    report.figures["unexplained calls"] = [vars(refusal) for refusal in _unexplained(tally)[:100]]
    report.figures["wrong"] = [*tally.wrong, *_nobodys(tally)[:100], *_unconfirmed(tally)[:100]]
    report.figures["seconds until a gateway answered again"] = tally.recoveries
    began = tally.samples[0][0] if tally.samples else 0.0
    report.picture(
        f"{report.name}-memory",
        "Resident memory of the gateway that is not killed",
        "minutes",
        "MB",
        {
            "resident": [
                ((at - began) / 60, held.rss / 2**20) for at, held in tally.samples[:: len(tally.samples) // 300 + 1]
            ]
        },
    )
    for number, quarter in enumerate(_quarters(tally), 1):
        report.row(
            "The gateway that is not killed",
            quarter=number,
            **{name: float(np.median(values)) for name, values in quarter.items()},
        )


def _quarters(tally: Tally) -> list[dict[str, list[float]]]:
    """Memory (MB), files and threads of the watched gateway, by quarters of the run."""
    parts = np.array_split(np.arange(len(tally.samples)), 4) if len(tally.samples) >= 8 else []
    return [
        {
            "resident MB": [tally.samples[i][1].rss / 2**20 for i in part],
            "not of files MB": [tally.samples[i][1].anonymous / 2**20 for i in part],
            "open files": [tally.samples[i][1].files for i in part],
            "threads": [tally.samples[i][1].threads for i in part],
            "cores": [
                np.diff([tally.samples[i][1].cpu for i in (part[0], part[-1])])[0]
                / (tally.samples[part[-1]][0] - tally.samples[part[0]][0])
            ],
        }
        for part in parts
    ]


def _targets(report: Report, tally: Tally, collections: Mapping[str, str], *, quick: bool) -> None:
    def none(what: str, figure: int) -> None:
        report.target(f"Soak: {what}", figure, "0", figure == 0)

    none("acknowledged writes that the server never showed", len(_nobodys(tally)))
    none("rows lost at quiet points", tally.lost)
    none("rows doubled at quiet points", tally.doubled)
    none("rows that differ in a field at quiet points", tally.differing)
    none("wrong answers and other findings", tally.wrongs + len(_unconfirmed(tally)))
    none("gateways that ended by themselves", tally.ended)
    none("calls that hung", tally.hung)
    none("calls that failed while nothing was broken", len(_unexplained(tally)))
    points = QUICK_QUIET_POINTS if quick else QUIET_POINTS
    report.at_least("Soak: quiet points", tally.quiet_points, points)
    for name, index_type in collections.items():
        recalls = [recall for seen in tally.seen for recall in seen.recalls[name]]
        report.at_least(
            f"Soak: mean recall@10 while it goes on, {name}", float(np.mean(recalls or [0])), LEAST_RECALL[index_type]
        )
    if tally.recoveries:
        slowest = max(tally.recoveries)
        what = "Soak: most seconds until a gateway answered again once the server did"
        report.at_most(what, slowest, RECOVERY)
    quarters = _quarters(tally)
    if quarters:
        for name, most in (
            ("resident MB", MOST_MEMORY / 2**20),
            ("open files", MOST_FILES),
            ("threads", MOST_THREADS),
        ):
            grown = float(np.median(quarters[3][name]) - np.median(quarters[1][name]))
            report.at_most(f"Soak: growth of the gateway that is not killed, {name}", grown, most)
