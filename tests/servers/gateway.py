"""Alula's gateway in front of a Milvus server, as a program of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from tests.servers.cache import ServerError

START_SECONDS = 60.0
STOP_SECONDS = 15.0


class GatewayProgram:
    """``alula gateway`` on a free port of 127.0.0.1, for as long as the ``with`` block lasts: ``uri``, ``port``.

    Args:
        upstream: The address of the Milvus server.
        arguments: More arguments of the command.
    """

    def __init__(self, upstream: str, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        address = f"127.0.0.1:{self.port}"
        self.uri = f"http://{address}"
        self._command = [sys.executable, "-m", "alula.cli", "gateway", "--upstream", upstream, "--listen", address]
        self._command += arguments
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the program runs)
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> GatewayProgram:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        log = self.log()
        self._stop()
        raise ServerError(f"The gateway did not start with `{' '.join(self._command)}`. Its last words:\n{log[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def log(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
