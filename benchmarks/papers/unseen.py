"""Glosses with their hypernyms as classes, some of them unseen in training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from alula_exporters import TrainingData, make_training_data
from benchmarks.glosses import GLOSSES, load_glosses
from benchmarks.hypernyms import load_hypernyms
from benchmarks.papers.datasets import F32, I64, SPLIT, unit

DEPTHS = (1, 4, 16)
_TRAINED = 0.8  # share of the classes


@dataclass(frozen=True, eq=False)
class Classes:
    """Vectors float32 (n, 384) of unit length and their classes int64 (n,).

    Args:
        training: Rows of the classes to train on.
        queries: Rows of other classes, as many of each.
        rows: All glosses that are no queries, in random order; -1 for the class of those in no unseen class.
    """

    training: tuple[F32, I64]
    queries: tuple[F32, I64]
    rows: tuple[F32, I64]

    def data(self, seed: int) -> TrainingData:
        """The training rows, a part of them held out."""
        return make_training_data(*self.training, seed=seed)


@cache
def load_classes(quick: bool) -> Classes:
    """1,300 classes of 10 glosses or more to train on, 325 unseen with 5 queries each.

    Quick: 20,000 of the glosses, classes of at least 5, 2 queries each.
    """
    labels, most, members, asked = load_hypernyms(), None, 10, 5
    if quick:
        most, members, asked = 20_000, 5, 2
        labels = labels[np.linspace(0, GLOSSES - 1, most).astype(np.int64)]  # as `load_glosses` picks them
    vectors = unit(np.asarray(load_glosses(most)))
    training, queries, rows = split_classes(labels, members, asked, np.random.default_rng(SPLIT))
    unseen = np.where(np.isin(labels, labels[queries]), labels, -1)
    return Classes(
        (vectors[training], labels[training]), (vectors[queries], labels[queries]), (vectors[rows], unseen[rows])
    )


def split_classes(labels: I64, members: int, asked: int, generator: np.random.Generator) -> tuple[I64, I64, I64]:
    """Numbers of the training rows, of the queries, and of all rows but the queries.

    Args:
        labels: int64 (n,): classes, -1 for none.
        members: Least number of rows of a class.
        asked: Queries of each class that is not trained on.
        generator: Source of randomness.
    """
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    names = generator.permutation(names[counts >= members])
    trained, unseen = np.split(names, [round(_TRAINED * len(names))])
    order = generator.permutation(len(labels))
    queries = np.concatenate([order[labels[order] == name][:asked] for name in unseen])
    return np.flatnonzero(np.isin(labels, trained)), np.sort(queries), order[~np.isin(order, queries)]


def precisions(found: I64, labels: I64, row_labels: I64) -> dict[int, float]:
    """Shares of the first 1, 4 and 16 found rows that have their query's class.

    Args:
        found: int64 (q, 16): numbers of rows, best first; -1 where there were fewer.
        labels: int64 (q,): the queries' classes.
        row_labels: int64 (n,).
    """
    right = (row_labels[found] == labels[:, None]) & (found >= 0)
    return {depth: float(right[:, :depth].mean()) for depth in DEPTHS}
