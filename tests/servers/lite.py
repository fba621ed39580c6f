"""Milvus Lite: the embedded engine, which pymilvus starts as a child process when it is given a path to a .db file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

from pymilvus import MilvusClient


class LiteDatabase:
    """A fresh embedded database in a temporary directory, for as long as the ``with`` block lasts.

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
