"""Glosses and pictures in classes, some of which are unseen in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from alula_exporters import TrainingData, make_training_data
from alula_exporters.backbones import Backbone
from benchmarks.characters import TRAINED_FONTS, load_characters
from benchmarks.glosses import GLOSSES, load_glosses
from benchmarks.hypernyms import load_hypernyms
from benchmarks.papers.datasets import F32, I64, SPLIT, unit

DEPTHS = (1, 4, 16)
_TRAINED = 0.8  # share of the classes

Figures = Mapping[int, float]  # precision by depth
Inputs = npt.NDArray[Any]  # vectors float32 (n, d), or pictures uint8 (n, h, w, c)


@dataclass(frozen=True, eq=False)
class Classes:
    """Vectors of unit length or pictures, and their classes int64 (n,).

    Args:
        training: Rows of the classes to train on.
        queries: Rows of other classes, as many of each.
        rows: The rows that are searched, in random order; -1 for the class of those in no unseen class.
    """

    training: tuple[Inputs, I64]
    queries: tuple[Inputs, I64]
    rows: tuple[Inputs, I64]

    def data(self, seed: int, label_vectors: F32 | None = None) -> TrainingData:
        """The training rows, a part of them held out."""
        return make_training_data(*self.training, label_vectors=label_vectors, seed=seed)

    def embed(self, network: Backbone) -> tuple[F32, F32]:
        """Unit vectors of the queries and of the searched rows."""
        return unit(network.embed(self.queries[0])), unit(network.embed(self.rows[0]))

    def judge(self, queries: F32, rows: F32) -> Figures:
        """Precisions of the best rows by inner product.

        Args:
            queries: float32 (q, d), in the order of the classes' queries.
            rows: float32 (n, d).
        """
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(np.ascontiguousarray(rows))
        return self.precisions(index.search(np.ascontiguousarray(queries), max(DEPTHS))[1])

    def precisions(self, found: I64) -> Figures:
        """`precisions` of found rows, int64 (q, 16)."""
        return precisions(found, self.queries[1], self.rows[1])


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


@cache
def load_pictures(quick: bool) -> Classes:
    """2,372 characters in 18 fonts to train on, and 593 others in 6 other fonts.

    Of each unseen character two pictures are queries; the others are searched, among those of the trained characters in
    the same unseen fonts. Quick: every fourth character.
    """
    every = load_characters()
    wanted = every.characters % 4 == 0 if quick else np.ones(len(every.characters), bool)
    pictures, labels, fonts = every.pictures[wanted], every.characters[wanted], every.fonts[wanted]
    unseen_fonts = np.flatnonzero(fonts >= len(TRAINED_FONTS))
    seen, *parts = split_classes(labels[unseen_fonts], 3, 2, np.random.default_rng(SPLIT))
    queries, rows = (unseen_fonts[part] for part in parts)
    seen_labels = labels[unseen_fonts[seen]]
    training = (fonts < len(TRAINED_FONTS)) & np.isin(labels, seen_labels)
    unseen = np.where(np.isin(labels, labels[queries]), labels, -1)
    return Classes(
        (pictures[training], labels[training]), (pictures[queries], labels[queries]), (pictures[rows], unseen[rows])
    )


def class_means(vectors: F32, labels: I64) -> F32:
    """The mean of each class, float32 (C, d), in the order of the labels."""
    return np.stack([vectors[labels == label].mean(0) for label in np.unique(labels)])


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


def precisions(found: I64, labels: I64, row_labels: I64) -> Figures:
    """Shares of the first 1, 4 and 16 found rows that have their query's class.

    Args:
        found: int64 (q, 16): numbers of rows, best first; -1 where there were fewer.
        labels: int64 (q,): the queries' classes.
        row_labels: int64 (n,).
    """
    right = (row_labels[found] == labels[:, None]) & (found >= 0)
    return {depth: float(right[:, :depth].mean()) for depth in DEPTHS}
