"""Milvus Lite: the embedded engine, a child process that pymilvus starts.

Every other client needs an address: `LiteServer` has the same engine listen on a port.
"""

from __future__ import annotations

import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import tenacity
from pymilvus import MilvusClient

import alula
from tools.servers.cache import ServerError

START_SECONDS = 30.0


class LiteDatabase:
    """A new embedded database in a temporary directory, for one ``with`` block.

    The engine starts with the first client and ends with the block. It also ends when this process does, in whatever
    way: it watches a lock on the database that the kernel then releases.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="alula-lite-")

    def __enter__(self) -> LiteDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self._directory.name).resolve() / "alula.db"

    @property
    def uri(self) -> str:
        """The address for ``MilvusClient(uri)``."""
        return str(self.path)

    @property
    def pid(self) -> int | None:
        """The engine's process id, or None while it does not run."""
        from milvus_lite.server_manager import server_manager_instance

        engine = server_manager_instance._servers.get(self.uri)
        return None if engine is None or engine._p is None else engine._p.pid

    @property
    def ended(self) -> bool:
        """True when the engine was started and has ended by itself."""
        from milvus_lite.server_manager import server_manager_instance

        engine = server_manager_instance._servers.get(self.uri)
        return engine is not None and engine._p is not None and engine._p.poll() is not None

    def client(self) -> MilvusClient:
        """A new client of this database; starts the engine if it does not run."""
        return MilvusClient(self.uri)

    def release(self) -> None:
        """Stop the engine and keep the data; the next client starts it again."""
        from milvus_lite.server_manager import server_manager_instance

        # Not release_all(): databases of other tests may be open.
        if self.uri in server_manager_instance._servers:
            server_manager_instance.release_server(self.uri)

    def stop(self) -> None:
        """Stop the engine and remove the data."""
        self.release()
        self._directory.cleanup()


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(alula.ServerError),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(START_SECONDS),
    reraise=True,
)
def connected(uri: str) -> alula.Server:
    """A connection to a server, tried again where Milvus Lite has just hung up."""
    return alula.connect(uri)


class LiteServer:
    """A new database of the embedded engine on a free port: ``uri``.

    The engine lives as long as the ``with`` block, and ends when this process does, as that of `LiteDatabase`. It hangs
    up on clients that ping it without making calls, as pymilvus does: reconnect after a pause, by `connected`.

    Args:
        memory: Most bytes of address space; a request that needs more ends the engine. No limit by default.
    """

    def __init__(self, *, memory: int | None = None) -> None:
        from milvus_lite.server import Server

        class OnPort(Server):
            """Milvus Lite's own way to a port leaves out the lock that ends the engine."""

            @property
            def uds_path(self) -> str:
                return address

        self._directory = tempfile.TemporaryDirectory(prefix="alula-lite-")
        self._memory = memory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        address = f"127.0.0.1:{self.port}"
        self.uri = f"http://{address}"
        self._engine = OnPort(str(Path(self._directory.name).resolve() / "alula.db"))

    def __enter__(self) -> LiteServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ended(self) -> bool:
        """True if it was started and ended by itself."""
        return self._engine._p is not None and self._engine._p.poll() is not None

    def start(self) -> None:
        """Start the engine on the same data and port; return when the port is open.

        Raises:
            ServerError: It did not start.
        """
        started = self._engine.start()
        if started and self._memory is not None and sys.platform == "linux":
            resource.prlimit(self._engine._p.pid, resource.RLIMIT_AS, (self._memory, self._memory))
        deadline = time.monotonic() + START_SECONDS
        while started and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise ServerError(f"Milvus Lite did not start at {self.uri}, or not within {START_SECONDS:.0f} s.")

    @property
    def pid(self) -> int | None:
        """The engine's process id, or None while it does not run."""
        return None if self._engine._p is None else self._engine._p.pid

    def restart(self) -> None:
        """Start an engine that has ended by itself, on the same data and port."""
        self._engine.stop()
        self.start()

    def kill(self) -> None:
        """End the engine as a crash would; ``start()`` brings it back on the same data."""
        if self._engine._p is not None:
            self._engine._p.kill()
            self._engine.stop()

    def stop(self) -> None:
        """Stop the engine and remove the data."""
        self._engine.stop()
        self._directory.cleanup()
