"""A cache of encoders, in memory and on disk; the files are in Milvus."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula import encoder_store
from alula.encoders import Encoder, load_encoder
from alula.errors import UsageError
from alula.gateway.ops import metrics
from alula.gateway.upstream import Caller, MilvusError, pairs
from alula.milvus.wire.field_data import column

NO_COLLECTION, NO_INDEX = 100, 700  # Milvus's error codes
Query = Callable[[str, Sequence[str]], Sequence[Mapping[str, Any]]]


class NoEncoderError(UsageError):
    """The encoder of a collection is not in its database."""


class Encoders:
    """Encoders by fingerprint.

    Args:
        folder: Folder for files from Milvus; None for a temporary folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="alula-gateway-")
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._loaded: dict[str, Encoder] = {}
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
            NoEncoderError: If the database does not contain it.
            EncoderError: If the encoder is unusable.
        """
        found = self._loaded.get(sha256)
        if found:
            return found
        with self._lock:
            if sha256 not in self._loaded:
                path = self._folder / f"{sha256}.onnx"
                if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    try:
                        entry = encoder_store.find(_query(caller, database), sha256)
                    except UsageError as error:
                        raise NoEncoderError(str(error)) from None
                    # rows that a Strong query returned are visible to all later queries, which are faster
                    data = encoder_store.read(_query(caller, database, strong=False), entry)
                    with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as partial:
                        partial.write(data)
                    Path(partial.name).replace(path)
                # searches and inserts run concurrently, one thread each
                self._loaded[sha256] = load_encoder(path, threads=1)
                metrics.encoders_loaded.set(len(self._loaded))
            return self._loaded[sha256]


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
