"""One Milvus standalone shared by processes: the first starts and stops it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.servers.standalone import MilvusStandalone


class SharedStandalone:
    """A server that the processes with the same folder and name share.

    Each user holds a shared lock on a file, which the kernel releases when the process ends in whatever way. The
    process that started the server waits in `release` until it can lock that file alone.

    Args:
        folder: Where the files are that the processes find each other by.
        name: The name of the server in this folder.
        options: Arguments of `MilvusStandalone`; the same in each process.
    """

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        self._state = folder / f"{name}.json"
        self._starting = folder / f"{name}.start"
        self._users = folder / f"{name}.users"
        self._options = options
        self._lock: int | None = None
        self._started: MilvusStandalone | None = None

    def acquire(self) -> MilvusStandalone:
        """The running server; it is started when no other process has started it.

        Raises:
            ServerError: It could not be installed or started.
        """
        with _locked(self._starting):
            self._lock = os.open(self._users, os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            if self._state.exists():
                return MilvusStandalone.attached(json.loads(self._state.read_text()), **self._options)
            server = MilvusStandalone(**self._options)
            server.start()
            self._started = server
            self._state.write_text(json.dumps(server.address()))
            return server

    def release(self) -> None:
        """Release the server; the process that started it stops it after the last use."""
        if self._lock is None:
            return
        if self._started is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._state.unlink()
            self._started.stop()
            self._started = None
        os.close(self._lock)
        self._lock = None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """A lock that one process has at a time."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
