"""Pairs of texts to learn from: queries, documents and a teacher's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alula.errors import DataError, UsageError
from alula.sources import check_finite, open_source
from alula_exporters.data import fingerprint

MIN_QUERIES = 40  # a tenth is held out
MAX_HELD_OUT = 500


@dataclass(frozen=True)
class Query:
    """A query and documents for it.

    Args:
        text: The query.
        documents: Distinct texts. Without scores all of them answer the query; else the best-scored comes first, and
            it alone is taken to answer the query.
        scores: The teacher's score of each document, falling; None without a teacher.
    """

    text: str
    documents: tuple[str, ...]
    scores: tuple[float, ...] | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """The documents that answer the query."""
        return self.documents if self.scores is None else self.documents[:1]


@dataclass(frozen=True)
class Pairs:
    """Queries split for training, and what names them.

    Args:
        train: The queries to learn from.
        held_out: Queries that training never sees; their documents may be those of others.
        fingerprint: sha256 (hex) of all pairs.
        total: Number of pairs.
    """

    train: Sequence[Query]
    held_out: Sequence[Query]
    fingerprint: str
    total: int

    @property
    def scored(self) -> bool:
        """True if a teacher scored the documents."""
        return self.train[0].scores is not None


def read_pairs(path: Path, *, seed: int = 0) -> Pairs:
    """Read pairs of texts and hold out a tenth of the queries, at most 500.

    Args:
        path: A table (JSON lines, Parquet, CSV, ...) with the columns ``query`` and ``document``. Several rows of one
            query are several documents. With a column ``score``, a number from a cross-encoder, a dense model or a
            person, the documents of a query are ranked.
        seed: Seed of the split.

    Raises:
        UsageError, DataError: If the file cannot be read or lacks a column, or its rows cannot be learned from.
    """
    texts: list[str] = []
    queries: list[Any] = []
    scores: list[Any] = []
    source = open_source(path, "document", "text")
    if "query" not in source.scalars:
        raise UsageError(
            f"{path} has no column 'query'; a row is a query and a document, with a score if one is known."
        )
    for batch in source.batches(8192):
        check_finite(batch, source.name)
        texts += batch.inputs
        queries += batch.columns["query"].to_pylist()
        scores += batch.columns["score"].to_pylist() if "score" in source.scalars else []
    found = _grouped(path.name, queries, texts, scores)
    if len(found) < MIN_QUERIES:
        raise DataError(
            f"{path.name} has {len(found):,} different queries; fine-tuning needs at least {MIN_QUERIES}, and "
            "thousands to be good."
        )
    order = np.random.default_rng(seed).permutation(len(found))
    count = min(MAX_HELD_OUT, len(found) // 10)
    named = fingerprint(*(np.array(column, object) for column in (queries, texts, scores) if column))
    return Pairs([found[i] for i in order[count:]], [found[i] for i in order[:count]], named, len(texts))


def _grouped(name: str, queries: Sequence[Any], documents: Sequence[str], scores: Sequence[Any]) -> list[Query]:
    groups: dict[str, dict[str, float]] = {}
    for row, (query, document) in enumerate(zip(queries, documents, strict=True)):
        if not isinstance(query, str) or not query.strip():
            raise DataError(f"Row {row} of {name} has no query; a query is a text that is not empty.")
        score = scores[row] if scores else 0.0
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise DataError(f"Row {row} of {name} has the score {score!r}; give each row a number, or none a score.")
        groups.setdefault(query, {})[document] = float(score)
    if not scores:
        return [Query(query, tuple(found)) for query, found in groups.items()]
    if all(len(found) == 1 for found in groups.values()):
        raise DataError(
            f"Each query of {name} has one document, and scores teach which of two is better; give further documents "
            "with their scores, or leave the scores out."
        )
    ranked = {query: sorted(found.items(), key=lambda one: -one[1]) for query, found in groups.items()}
    return [
        Query(query, tuple(text for text, _ in found), tuple(score for _, score in found))
        for query, found in ranked.items()
    ]
