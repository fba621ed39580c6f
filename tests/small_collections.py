"""Small collections in both real engines, and what a brute force in numpy finds in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import alula
from tests.tiny_encoders import random_vectors

ROWS, DIM = 600, 8
AWKWARD_IDS = [
    "it's",
    'say "hi"',
    "back\\slash",
    "ends in \\",
    "emoji 😀",
    "{braces}",
    "%s",
    "tab\there",
    "a,b",
    "' or '' == '",
]


@dataclass(frozen=True)
class Rows:
    """Rows with scalar columns: ids are strings, ten of them awkward."""

    vectors: np.ndarray = field(default_factory=lambda: random_vectors(ROWS, DIM, seed=1))

    @property
    def ids(self) -> list[str]:
        return AWKWARD_IDS + [f"row {i}" for i in range(len(AWKWARD_IDS), ROWS)]

    @property
    def columns(self) -> dict[str, list]:
        return {"id": self.ids, "year": [1900 + i % 100 for i in range(ROWS)], "word": [f"w{i}" for i in range(ROWS)]}

    def create(self, server: alula.Server, name: str, encoder, index_type: str, **arguments) -> alula.Collection:
        """An empty collection for these rows."""
        return alula.Collection.create(
            server,
            name,
            encoder=encoder.path,
            index_type=index_type,
            primary_key="id:VARCHAR(100)",
            columns=["year:INT64", "word:VARCHAR(16)"],
            consistency_level="Strong",
            **arguments,
        )

    def filled(self, server: alula.Server, name: str, encoder, index_type: str, **arguments) -> alula.Collection:
        """A collection that holds them."""
        collection = self.create(server, name, encoder, index_type, **arguments)
        collection.insert(self.vectors, self.columns)
        return collection


def scores(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """Scores as Milvus reports them, in float64."""
    query, vectors = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "L2":
        return ((vectors - query) ** 2).sum(axis=1)
    products = vectors @ query
    return products if metric == "IP" else products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def best(values: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Positions of the k best scores."""
    return np.argsort(values if metric == "L2" else -values, kind="stable")[:k]
