"""A cache of encoders, in memory and on disk; the files are in Milvus."""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula import encoder_store
from alula.encoders import Encoder, load_encoder
from alula.encoders.session import memory_limit
from alula.encoders.trial import open_in_child
from alula.errors import EncoderError, UsageError
from alula.gateway.ops import logs, metrics
from alula.gateway.upstream import Caller, MilvusError, pairs
from alula.milvus.failures import is_denied
from alula.milvus.wire.field_data import column

RUN_SECONDS = 120.0  # of one batch
LOAD_SECONDS = 60.0  # to wait for another call that loads the same encoder, or tries another one
REFUSED_SECONDS = 600.0  # until a file is tried again that was refused
MAX_REFUSED = 4096
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108  a file system in memory
_SHA256 = re.compile(r"[0-9a-f]{64}")
NO_COLLECTION, NO_INDEX = 100, 700  # Milvus's error codes
Query = Callable[[str, Sequence[str]], Sequence[Mapping[str, Any]]]


class NoEncoderError(UsageError):
    """The encoder of a collection is not in its database."""


@dataclass(frozen=True)
class _Loaded:
    """An encoder, and the bytes of its file."""

    encoder: Encoder
    size: int


class Encoders:
    """Encoders by fingerprint; the least recently used leave the memory first.

    A file from Milvus, which anyone may have written, is first opened in a child process, one file at a time.

    Args:
        folder: Folder for files from Milvus that a child process could open; None for a temporary folder. Files that do
            not fit in it are kept in memory only.
        max_bytes: Bytes of the files of loaded encoders, by default a quarter of what encoders may take in memory; one
            encoder may have twice as many.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int | None = None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="alula-gateway-")
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._max_bytes = memory_limit() // 4 if max_bytes is None else max_bytes
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._trial = threading.Lock()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._loaded)

    def named(self, caller: Caller, database: str, name: str) -> Encoder:
        """Load the encoder that a client names, by name or fingerprint.

        Raises:
            UsageError: If the database has no such encoder.
            EncoderError: If the encoder is unusable.
        """
        return self.get(caller, database, encoder_store.find(_query(caller, database), name).sha256)

    def get(self, caller: Caller, database: str, sha256: str) -> Encoder:
        """Load the encoder of a fingerprint.

        Args:
            caller: The client, with whose rights an encoder is read that is not cached.
            database: The database of the encoder.
            sha256: The whole fingerprint.

        Raises:
            NoEncoderError: If the database does not contain it, or the fingerprint is not whole.
            EncoderError: If the encoder is unusable, or takes too long to load.
        """
        if not _SHA256.fullmatch(sha256):  # another spelling would be loaded again
            raise NoEncoderError(f"{sha256[:80]!r} is not the whole fingerprint of an encoder, in small letters.")
        found = self._cached(sha256)
        if found:
            return found
        with self._lock:
            loading = self._loading.setdefault(sha256, threading.Lock())
        # one that hangs keeps those waiting that need it, and only for a while
        if not loading.acquire(timeout=LOAD_SECONDS):
            raise EncoderError(f"The encoder {sha256[:16]} is still being loaded after {LOAD_SECONDS:g} s.")
        try:
            return self._cached(sha256) or self._load(caller, database, sha256)
        finally:
            loading.release()
            with self._lock:
                self._loading.pop(sha256, None)

    def _cached(self, sha256: str) -> Encoder | None:
        with self._lock:
            found = self._loaded.get(sha256)
            if found is None:
                return None
            self._loaded.move_to_end(sha256)
            return found.encoder

    def _load(self, caller: Caller, database: str, sha256: str) -> Encoder:
        until, reason = self._refused.get(sha256, (0.0, ""))
        if until > time.monotonic():
            raise EncoderError(reason)
        path = self._folder / f"{sha256}.onnx"
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            try:
                entry = encoder_store.find(_query(caller, database), sha256)
            except UsageError as error:
                raise NoEncoderError(str(error)) from None
            if entry.size > 2 * self._max_bytes:
                raise EncoderError(
                    f"The encoder {entry} has {entry.size / 1e6:,.0f} MB, and this gateway takes "
                    f"{2 * self._max_bytes / 1e6:,.0f}; give it more memory."
                )
            # rows that a Strong query returned are visible to all later queries, which are faster
            path = self._fetched(path, encoder_store.read(_query(caller, database, strong=False), entry))
        size = path.stat().st_size
        # searches and inserts run concurrently, one thread each
        encoder = load_encoder(path, threads=1, run_seconds=RUN_SECONDS)
        if path.parent != self._folder:
            path.unlink(missing_ok=True)
        if encoder.sha256 != sha256:
            raise EncoderError(f"The file {path} changed while it was being read.")
        with self._lock:
            self._loaded[sha256] = _Loaded(encoder, size)
            while len(self._loaded) > 1 and sum(one.size for one in self._loaded.values()) > self._max_bytes:
                self._loaded.popitem(last=False)
            metrics.encoders_loaded.set(len(self._loaded))
        return encoder

    def _fetched(self, path: Path, data: bytes) -> Path:
        """Write a file into the folder, or elsewhere if it is full, and try to open it."""
        partial = self._written(path.stem, data)
        try:
            self._try(path.stem, partial)
        except EncoderError:
            partial.unlink(missing_ok=True)
            raise
        return partial.replace(path) if partial.parent == self._folder else partial

    def _try(self, sha256: str, path: Path) -> None:
        """Open a file in a child process, and remember for a while that it was refused."""
        if not self._trial.acquire(timeout=LOAD_SECONDS):
            raise EncoderError(f"The encoder {sha256[:16]} waits for others to be opened; try again.")
        try:
            open_in_child(path)
        except EncoderError as error:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused[sha256] = (time.monotonic() + REFUSED_SECONDS, str(error))
            raise
        except OSError as error:
            raise EncoderError(f"No process can be started to open an encoder ({error.strerror}).") from None
        finally:
            self._trial.release()

    def _written(self, sha256: str, data: bytes) -> Path:
        """Write a file under a name of its own."""
        prefix = f"{sha256[:16]}-"
        for folder in (self._folder, MEMORY_FOLDER, Path(tempfile.gettempdir())):
            partial = None
            try:
                with tempfile.NamedTemporaryFile(prefix=prefix, suffix=".onnx", dir=folder, delete=False) as file:
                    partial = Path(file.name)
                    file.write(data)
                return partial
            except OSError as error:
                if partial:
                    partial.unlink(missing_ok=True)
                logs.LOGGER.warning(f"An encoder cannot be kept in {folder}: {error.strerror}.")
        raise EncoderError("The gateway has no room for an encoder's file; make room in cache_dir=... and in /tmp.")


def _query(caller: Caller, database: str, *, strong: bool = True) -> Query:
    """A function that queries the collection of encoders with the client's rights."""
    level = common_pb2.ConsistencyLevel.Strong if strong else common_pb2.ConsistencyLevel.Eventually

    def query(filter: str, fields: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        request = milvus_pb2.QueryRequest(
            db_name=database,
            collection_name=encoder_store.COLLECTION,
            expr=filter,
            output_fields=fields,
            consistency_level=level,
            guarantee_timestamp=0 if strong else 1,
            query_params=pairs([("limit", 16384)]),
        )
        try:
            answer = caller.send("Query", request)
        except grpc.RpcError as error:
            if is_denied(error):
                raise UsageError(
                    f"This login may not query the collection {encoder_store.COLLECTION!r}, which holds the encoders; "
                    "grant it the privilege Query there, as to everyone who searches or writes."
                ) from None
            raise
        except MilvusError as error:
            if "not loaded" not in error.status.reason:
                if error.status.code == NO_COLLECTION or "find collection" in error.status.reason:
                    return []  # no encoder was pushed yet
                raise
            load = milvus_pb2.LoadCollectionRequest(db_name=database, collection_name=encoder_store.COLLECTION)
            try:
                caller.send("LoadCollection", load)
            except MilvusError as refused:
                if refused.status.code == NO_INDEX:
                    return []  # it is being created, and empty
                raise
            answer = caller.send("Query", request)
        columns = {field.field_name: column(field) for field in answer.fields_data}
        rows = len(next(iter(columns.values()), ()))
        return [{name: columns[name][i] for name in fields} for i in range(rows)]

    return query
