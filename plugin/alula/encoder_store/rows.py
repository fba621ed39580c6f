"""The collection of the encoder store: create, query, insert, delete."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pymilvus.exceptions import MilvusException

from alula.encoder_store.entries import COLLECTION, Query, entries, rows_of
from alula.errors import UsageError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.deleting import delete_rows
from alula.milvus.expressions import literal
from alula.milvus.load_state import ensure_loaded, load_collection
from alula.milvus.retrying import call_with_retries
from alula.milvus.schema_fields import add_field
from alula.milvus.wire.types import field_spec
from alula.milvus.writing import send, write_request

LEFTOVER_SECONDS = 24 * 3600  # younger parts may be of a running push
CALL_SECONDS, RETRY_TIMEOUT = 60.0, 60.0

FIELDS = (
    field_spec("id", "VARCHAR", max_length=64),
    field_spec("role", "VARCHAR", max_length=8),
    field_spec("sha256", "VARCHAR", max_length=64),
    field_spec("part", "INT64"),
    field_spec("pushed", "INT64"),
    field_spec("data", "VARCHAR", max_length=65535),
    field_spec("nothing", "FLOAT_VECTOR", dim=2),  # Milvus creates no collection without a vector field
)


def querying(server: Server, consistency_level: Literal["Strong", "Eventually"] = "Strong") -> Query:
    """The `Query` function of a database's store, which is loaded if need be.

    Args:
        server: The connected server.
        consistency_level: ``Strong`` for the latest rows; a server takes 0.3 s for each such query.
    """

    def query(filter_: str, fields: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        def rows() -> Sequence[Mapping[str, Any]]:
            answer: Sequence[Mapping[str, Any]] = server.client.query(
                COLLECTION, filter=filter_, output_fields=list(fields), consistency_level=consistency_level
            )
            return answer

        with milvus_errors(f"read {COLLECTION!r}"):
            try:
                return rows()
            except MilvusException:
                # one without an index is being created, and empty
                if not server.client.has_collection(COLLECTION) or not server.client.list_indexes(COLLECTION):
                    return []
                ensure_loaded(server, COLLECTION)
                return rows()

    return query


def create_collection(server: Server) -> None:
    """Create, index and load the collection, as far as that has not been done."""
    client = server.client
    with milvus_errors(f"create the collection {COLLECTION!r}"):
        if not client.has_collection(COLLECTION):
            schema = client.create_schema(
                auto_id=False, description="Encoder files, put here by 'alula encoders push'."
            )
            for field in FIELDS:
                add_field(schema, field, is_primary=field.name == "id")
            client.create_collection(COLLECTION, schema=schema, shards_num=1)
        fields = {field["name"] for field in client.describe_collection(COLLECTION)["fields"]}
        if fields != {field.name for field in FIELDS}:
            raise UsageError(
                f"The collection {COLLECTION!r} at {server.uri} is not what Alula keeps encoders in; rename or "
                "drop it, or use another database."
            )
        if not client.list_indexes(COLLECTION):
            index = client.prepare_index_params()
            index.add_index("nothing", index_type="FLAT", metric_type="L2")
            client.create_index(COLLECTION, index, sync=False)  # nothing to wait for
        load_collection(server, COLLECTION)


def flush(server: Server) -> None:
    """Write the rows to storage.

    Milvus keeps new rows in its log and in memory until there are many or some minutes have passed, and Milvus 2.3.5
    lost such rows for good when it was killed: every gateway would lose its encoders.
    """
    with milvus_errors(f"flush {COLLECTION!r}"):
        server.client.flush(COLLECTION)


def insert(server: Server, role: str, sha256: str, data: Mapping[int, str], pushed: int | None = None) -> None:
    """Insert rows of one file, given as ``part`` and ``data``."""
    count = len(data)
    columns = {
        "role": [role] * count,
        "sha256": [sha256] * count,
        "part": list(data),
        "pushed": [int(time.time()) if pushed is None else pushed] * count,
        "data": list(data.values()),
        "nothing": np.zeros((count, 2), np.float32),
    }

    def call() -> None:
        ids = [uuid.uuid4().hex for _ in data]
        request = write_request(COLLECTION, {"id": ids, **columns}, FIELDS, 0, count, partition="", upsert=False)
        send(server, request, CALL_SECONDS)

    call_with_retries(f"write into {COLLECTION!r}", call, RETRY_TIMEOUT)


def remove_leftovers(server: Server, query: Query, known: Iterable[str]) -> None:
    """Remove the parts of incomplete files, unless a push may still be writing them.

    Args:
        server: The connected server.
        query: As for `entries`.
        known: Fingerprints of complete files.
    """
    others = "".join(f" and sha256 != {literal(sha256)}" for sha256 in known)
    old = f'role == "part" and pushed < {int(time.time()) - LEFTOVER_SECONDS}{others}'
    rows = querying(server, "Eventually")(old, ["id", "sha256"])
    if rows:
        complete = {entry.sha256 for entry in entries(query)}
        delete_rows(server, COLLECTION, "id", [row["id"] for row in rows if row["sha256"] not in complete])


def delete_file(server: Server, query: Query, sha256: str) -> None:
    """Delete all rows of a file but its names."""
    for role in ("file", "part"):  # in this order, so that an interruption leaves no complete file
        delete_where(server, query, rows_of(role, sha256))


def delete_where(server: Server, query: Query, filter_: str) -> None:
    """Delete the rows that satisfy a filter."""
    delete_rows(server, COLLECTION, "id", [row["id"] for row in query(filter_, ["id"])])
