"""``alula gateway`` as a process of its own, that can be killed, started again, and looked at from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from milvus_lite.server import Server as LiteServer
from pymilvus import MilvusClient

from tests.servers.standalone import LOOPBACK, _free_ports

COMMAND = [sys.executable, "-m", "alula.cli", "gateway"]
START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


class NotStartedError(RuntimeError):
    """A program ended, or did not open its port in time."""


@dataclass(frozen=True)
class Usage:
    """What a process holds at a moment.

    Args:
        rss: Resident bytes.
        anonymous: Those of them that are no pages of files.
        files: Open file descriptors.
        threads: Threads.
        cpu: Seconds of all cores, user and system, since it began.
    """

    rss: int
    anonymous: int
    files: int
    threads: int
    cpu: float


def usage(pid: int) -> Usage:
    """What a process holds now, by Linux's own account.

    Raises:
        FileNotFoundError, ProcessLookupError: If it has ended.
    """
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold blanks
    return Usage(
        rss=int(status["VmRSS"].split()[0]) << 10,
        anonymous=int(status["RssAnon"].split()[0]) << 10,
        files=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        threads=int(status["Threads"]),
        cpu=(int(times[11]) + int(times[12])) / TICKS,
    )


def free_port() -> int:
    """A port that nobody listens on."""
    return _free_ports(["port"])["port"]


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a program has opened its port on the loopback.

    Raises:
        NotStartedError: If it ended, or did not open its port in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotStartedError(f"The program {' '.join(map(str, process.args))} did not open its port {port}.")
        time.sleep(0.05)


class LitePort:
    """Milvus Lite 2.5 on a port of its own, as a server for several clients, for as long as the ``with`` block lasts.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._port = free_port()
        self._engine = LiteServer(str(path), f"{LOOPBACK}:{self._port}")

    def __enter__(self) -> LitePort:
        if not (self._engine.init() and self._engine.start()):
            raise NotStartedError("Milvus Lite did not start.")
        wait_for(self._port, self._engine._p)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.stop()

    @property
    def uri(self) -> str:
        """The address for ``MilvusClient(uri)``."""
        return f"http://{LOOPBACK}:{self._port}"


class Gateway:
    """One gateway on a port of its own, for as long as the ``with`` block lasts, or until it is killed.

    Args:
        upstream: The address of the Milvus behind it.
        log: What it prints is added to this file.
        options: Further options of the command.
    """

    def __init__(self, upstream: str, log: Path, *options: str) -> None:
        self.port = free_port()
        self.log = log
        self._command = [*COMMAND, "--upstream", upstream, "--listen", f"{LOOPBACK}:{self.port}", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def uri(self) -> str:
        """The address for ``MilvusClient(uri)``; the same after a restart."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def usage(self) -> Usage:
        """What it holds now."""
        assert self._process is not None
        return usage(self._process.pid)

    def client(self) -> MilvusClient:
        """A new client of it."""
        return MilvusClient(self.uri)

    def launch(self) -> None:
        """Start it and return at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and return when its port is open.

        Raises:
            NotStartedError: If it ended, or did not open its port in time; the message ends with its log.
        """
        self.launch()
        assert self._process is not None
        try:
            wait_for(self.port, self._process)
        except NotStartedError as error:
            self.stop()
            raise NotStartedError(f"{error} Its log is {self.log}:\n{self.log.read_text()[-2000:]}") from None

    def kill(self) -> None:
        """Kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a supervisor does, by force if it takes too long."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
