"""Indexes of faiss that find candidates among dense vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np

from benchmarks.papers.datasets import F32, I64

SEARCH_EFFORT = "efSearch"  # of HNSW, which keeps the vectors: what it finds needs no re-ranking
_OPQ_ROUNDS = 10
_OPQ_TRAINED_ON = 20_000


@dataclass(frozen=True)
class Recipe:
    """Describes how a rival is built and searched.

    Args:
        name: Of the method.
        factory: faiss's description of the index.
        bytes_per_row: Bytes of a row.
        sweep: Name and values of the parameter that a search sets, if any.
    """

    name: str
    factory: str
    bytes_per_row: float
    sweep: tuple[str, Sequence[int]] | None = None


@dataclass(frozen=True)
class Rival:
    """An index with the settings of its search.

    Args:
        name: Of the method.
        setting: In words.
        bytes_per_row: Bytes of a row.
        index: Of faiss.
        parameters: Set before each search.
    """

    name: str
    setting: str
    bytes_per_row: float
    index: Any
    parameters: Mapping[str, int] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True if what is found is ranked by the vectors already."""
        return SEARCH_EFFORT in self.parameters

    def find(self, queries: F32, count: int) -> I64:
        """The best rows, int64 (q, count), for queries (q, d); -1 where there were fewer."""
        for name, value in self.parameters.items():
            setattr(self.index.hnsw if self.exact else self.index, name, value)
        return self.index.search(queries, count)[1]


def build_rivals(recipes: Sequence[Recipe], training: F32, rows: F32) -> Iterator[Rival]:
    """The rivals, one for each value of a sweep.

    Args:
        recipes: Of the indexes.
        training: float32 (t, d): what they may be trained on.
        rows: float32 (n, d): what they hold.
    """
    for recipe in recipes:
        index = faiss.index_factory(rows.shape[1], recipe.factory)
        some = training
        if recipe.factory.startswith("OPQ"):  # the rotation takes minutes otherwise
            faiss.downcast_VectorTransform(index.chain.at(0)).niter = _OPQ_ROUNDS
            some = training[np.random.default_rng(0).permutation(len(training))[:_OPQ_TRAINED_ON]]
        index.train(np.ascontiguousarray(some))
        index.add(rows)
        if recipe.sweep is None:
            yield Rival(recipe.name, recipe.factory, recipe.bytes_per_row, index)
            continue
        name, values = recipe.sweep
        for value in values:
            setting = f"{recipe.factory}, {name} {value}"
            yield Rival(recipe.name, setting, recipe.bytes_per_row, index, {name: value})
