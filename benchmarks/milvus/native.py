"""Milvus's own index types, filled and searched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType

import alula

K = 10
BYTES = 8 << 20  # of the vectors of one insert
LITE_BYTES = 1 << 20  # the time that Milvus Lite takes grows with the square of it
F32 = npt.NDArray[np.float32]


def load_native(server: alula.Server, name: str, vectors: F32, index_type: str, params: dict[str, Any]) -> None:
    """Load vectors (n, d) into a new collection for COSINE; keys are row numbers."""
    client = server.client
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    client.create_collection(name, schema=schema)
    step = max(1, (LITE_BYTES if server.embedded else BYTES) // (4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):
        rows = [{"id": i, "vector": vector} for i, vector in enumerate(vectors[start : start + step], start)]
        client.insert(name, rows)
    if not server.embedded:
        client.flush(name)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=index_type, metric_type="COSINE", params=params)
    client.create_index(name, index)
    client.load_collection(name)
    settle(server, name)


def settle(server: alula.Server, name: str) -> None:
    """Wait for the indexes and load again, so that only indexed rows are timed."""
    if server.embedded:
        return
    client, deadline = server.client, time.monotonic() + 900
    while time.monotonic() < deadline:
        states = [client.describe_index(name, index) for index in client.list_indexes(name)]
        if all(int(state.get("pending_index_rows", 0)) == 0 for state in states):
            break
        time.sleep(1)
    client.release_collection(name)
    client.load_collection(name)


def native_search(server: alula.Server, name: str, search: dict[str, Any]) -> Callable[[F32], list[int]]:
    """A search for the `K` nearest rows of one query, with these parameters."""
    given = {"metric_type": "COSINE", "params": search}

    def one(query: F32) -> list[int]:
        return list(server.client.search(name, [query], limit=K, search_params=given)[0].ids)

    return one
