"""Alula's gateway as a program that can be killed and restarted."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from tools.servers.cache import ServerError
from tools.servers.standalone import LOOPBACK, free_ports

START_SECONDS = 60.0
STOP_SECONDS = 15.0


class GatewayProgram:
    """``alula gateway`` on a free port, for one ``with`` block: ``uri``, ``port``.

    Args:
        upstream: The address of the Milvus server.
        arguments: More arguments of the command.
    """

    def __init__(self, upstream: str, *arguments: str) -> None:
        self.port = free_ports(["gateway"])["gateway"]
        self.address = f"{LOOPBACK}:{self.port}"
        self.uri = f"http://{self.address}"
        self._command = [sys.executable, "-m", "alula.cli", "gateway", "--upstream", upstream]
        self._command += ["--listen", self.address, *arguments]
        # open as long as the program may run; written at its end even while it is read
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> GatewayProgram:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        """The program's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, at the same address as before, and return when its port is open.

        Raises:
            ServerError: It ended, or did not open its port in time.
        """
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        if not opens(self.port, self._process):
            self.kill()
            command = " ".join(self._command)
            raise ServerError(f"The gateway did not start with `{command}`. Its last words:\n{self.log()[-2000:]}")

    def stop(self) -> None:
        """End it as a supervisor does, by force if that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Its output so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def opens(port: int, process: subprocess.Popen[Any]) -> bool:
    """Wait until a program opens its port; False if it ended or hangs."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
