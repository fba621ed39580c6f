"""Test on a small database that Milvus Lite calls an index as expected."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus.grpc_gen import common_pb2

from alula.errors import UnsupportedError
from alula.index_types.local import F32, I64, Mask

NAME = "ALULA_SELF_TEST"
PARAMS = {"encoder": "none"}
VECTORS = np.array([[0, 0], [3, 4], [6, 8], [0, 1]], np.float32)
QUERY, FILTER = [3.0, 3.0], "id != 1"
VALID = [True, False, True, True]


class SelfTest:
    """An index type that records the calls of Milvus Lite during the test."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @classmethod
    @contextmanager
    def among(cls, registered: MutableMapping[str, Any]) -> Iterator[SelfTest]:
        """Register it inside a ``with`` block."""
        registered[NAME] = test = cls()
        try:
            yield test
        finally:
            registered.pop(NAME, None)

    def check_build(
        self, field: str, dim: int, metric: str | None, params: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """See `LiteIndexType.check_build`."""
        self.calls.append(f"check_build {field} {dim} {metric}")
        return str(metric), dict(params)

    def check_search(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `LiteIndexType.check_search`."""
        return dict(params)

    def build(self, params: Mapping[str, Any], vectors: F32) -> _Exact:
        """See `LiteIndexType.build`."""
        self.calls.append(f"build {dict(params)} {vectors.tolist() == VECTORS.tolist()}")
        return _Exact(self)

    def load(self, params: Mapping[str, Any], path: str) -> _Exact:
        """See `LiteIndexType.load`."""
        self.calls.append(f"load {dict(params)} {Path(path).read_text()}")
        return _Exact(self)

    def run(self) -> None:
        """Create a collection, build and search its index, and load it from its file.

        Raises:
            UnsupportedError: If the calls or the results differ from those of the tested version.
        """
        with tempfile.TemporaryDirectory(prefix="alula-lite-") as folder:
            try:
                found = _use(folder)
            except Exception as error:  # any failure means another version
                raise changed(f"{type(error).__name__}: {error}") from error
        built = ["check_build v 2 L2", f"build {PARAMS} True", "search 2 None {'depth': 7}"]
        loaded = [f"load {PARAMS} saved", f"search 2 {VALID} {{'depth': 7}}"]
        if self.calls != built + loaded:
            raise changed(f"it asked for {self.calls}")
        exact = [[(1, 1.0), (3, 13.0)], [(3, 13.0), (0, 18.0)]]
        if [[(hit["id"], round(hit["distance"], 4)) for hit in hits] for hits in found] != exact:
            raise changed(f"it found {found}")


class _Exact:
    """A brute-force index with Milvus Lite's distances."""

    index_type, metric, dim = NAME, "L2", 2
    num_vectors = len(VECTORS)

    def __init__(self, test: SelfTest) -> None:
        self._test = test
        self._vectors = np.empty((0, 2), np.float32)

    def attach(self, vectors: F32) -> None:
        self._vectors = vectors

    def search(
        self, queries: F32, top_k: int, valid_mask: Mask | None = None, params: Mapping[str, Any] | None = None
    ) -> tuple[I64, F32]:
        mask = None if valid_mask is None else valid_mask.tolist()
        self._test.calls.append(f"search {top_k} {mask} {params}")
        distances = np.linalg.norm(self._vectors - queries[0], axis=1)
        if valid_mask is not None:
            distances[~valid_mask] = np.inf
        order = np.argsort(distances)[None, :top_k]
        return order, distances[order]

    def save(self, path: str) -> None:
        Path(path).write_text("saved")


def _use(folder: str) -> list[list[dict[str, Any]]]:
    lite = importlib.import_module("milvus_lite")
    servicer = importlib.import_module("milvus_lite.adapter.grpc.servicer")
    asked = {"index_type": NAME, "metric_type": "L2", **PARAMS}
    pairs = [common_pb2.KeyValuePair(key=key, value=value) for key, value in asked.items()]
    fields = [
        lite.FieldSchema(name="id", dtype=lite.DataType.INT64, is_primary=True),
        lite.FieldSchema(name="v", dtype=lite.DataType.FLOAT_VECTOR, dim=2),
    ]
    with lite.MilvusLite(folder) as database:
        collection = database.create_collection("c", lite.CollectionSchema(fields=fields))
        collection.insert([{"id": i, "v": vector.tolist()} for i, vector in enumerate(VECTORS)])
        collection.flush()
        collection._wait_for_bg()  # which would build the index as well
        collection.create_index("v", servicer.kv_pairs_to_index_params_dict(pairs))
        whole = collection.search([QUERY], top_k=2, search_params={"depth": 7})
        collection.release()
        collection.load()
        return [*whole, *collection.search([QUERY], top_k=2, expr=FILTER, search_params={"depth": 7})]


def changed(detail: str) -> UnsupportedError:
    """The error for a Milvus Lite that behaves otherwise than its version should."""
    return UnsupportedError(
        f"This Milvus Lite does not use an index as the tested versions do ({detail}); nothing was registered. "
        "Reinstall a tested version, and check that no other package changes it."
    )
