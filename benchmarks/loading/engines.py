"""The two engines of the fault runs: create, read, kill, slow down."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

import alula
from benchmarks.loading.checking import Rows, count
from tools.servers.lite import LiteDatabase
from tools.servers.standalone import MilvusStandalone

COLLECTION = "rows"


class ServerEngine:
    """Milvus 2.3.5 standalone: one server for all runs, restarted on its data."""

    name = "Milvus 2.3.5"

    def __init__(self, place: Path) -> None:
        self._server = MilvusStandalone(place / "milvus")
        self._server.start()

    @property
    def uri(self) -> str:
        return self._server.uri

    @property
    def port(self) -> int:
        return self._server.port

    def create(self, rows: Rows, encoder: Path, *, keep_vectors: bool) -> None:
        """An empty collection, in place of the last one."""
        with alula.connect(self.uri) as server:
            if server.has_collection(COLLECTION):
                server.client.drop_collection(COLLECTION)
            _create(server, rows, encoder, "DRQ", keep_vectors=keep_vectors)

    @contextlib.contextmanager
    def reading(self) -> Iterator[MilvusClient]:
        """A client, once a freshly started server answers for the collection."""
        client = self._server.client()
        try:
            _until_it_answers(client)
            yield client
        finally:
            client.close()

    def kill(self) -> None:
        """Kill -9."""
        self._server.kill()

    def start(self) -> None:
        """Start it again on its data."""
        self._server.start()

    def revive(self) -> None:
        """Restart it if it ended by itself, as after a freeze of over a minute."""
        if self._server.ended:
            self.kill()
            self.start()

    @property
    def pid(self) -> int:
        assert self._server.pid is not None
        return self._server.pid

    @contextlib.contextmanager
    def settings(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Run with other settings for the block: restarts the server before and after it."""
        self._restart(settings)
        try:
            yield
        finally:
            self._restart({})

    def _restart(self, settings: Mapping[str, Any]) -> None:
        self.kill()
        self._server.settings = dict(settings)
        self.start()

    def close(self) -> None:
        self._server.stop()


class LiteEngine:
    """Milvus Lite 2.5: a new database per run; the engine is a child of the loader."""

    name = "Milvus Lite 2.5"

    def __init__(self, place: Path) -> None:
        self._database = LiteDatabase()

    @property
    def uri(self) -> str:
        return self._database.uri

    def create(self, rows: Rows, encoder: Path, *, keep_vectors: bool) -> None:
        """An empty collection in a database of its own."""
        self._database.stop()
        self._database = LiteDatabase()
        with alula.connect(self.uri) as server:
            _create(server, rows, encoder, "FLOPS_SPARSE", keep_vectors=keep_vectors)

    @contextlib.contextmanager
    def reading(self) -> Iterator[MilvusClient]:
        """A client to read with."""
        client = self._database.client()
        try:
            yield client
        finally:
            client.close()
            self._database.release()

    def revive(self) -> None:
        """Nothing: a loader starts it."""

    def close(self) -> None:
        self._database.stop()


Engine = ServerEngine | LiteEngine


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _create(server: alula.Server, rows: Rows, encoder: Path, index_type: str, *, keep_vectors: bool) -> None:
    alula.Collection.create(
        server,
        COLLECTION,
        encoder=encoder,
        index_type=index_type,
        columns=rows.scalars,
        keep_vectors=keep_vectors,
        consistency_level="Strong",
    )


def _until_it_answers(client: MilvusClient, seconds: float = 120.0) -> None:
    """Wait until a server that was just started has its collection in memory again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            count(client, COLLECTION)
        except MilvusException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
