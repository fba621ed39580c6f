"""Vectors of the tables, split by a fixed seed, with exact neighbours of queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.glosses import load_glosses
from benchmarks.glove import load_words

SPLIT = 0
K = 10
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vectors:
    """Unit vectors.

    Args:
        name: Name of the vectors.
        rows: float32 (n, d): what is searched.
        queries: float32 (q, d): held out, neither searched nor trained on.
        truth: int64 (q, 10): each query's nearest rows by cosine, nearest first.
        training: float32 (t, d): those of the rows that encoders may be trained on.
        unseen: float32 (u, d): some of the rows that no encoder is trained on.
    """

    name: str
    rows: F32
    queries: F32
    truth: I64
    training: F32
    unseen: F32


def load_vectors(quick: bool, trained_on: int, *, words: int | None = None) -> Iterator[Vectors]:
    """GloVe's words and WordNet's glosses; quick: 50,000 words and 20,000 glosses.

    Args:
        quick: True for a quick run.
        trained_on: Most rows to train on.
        words: Most of GloVe's words, queries included, where the run is not quick; all by default.
    """
    queries = 500 if quick else 1_000
    glove = load_words(queries, SPLIT, most=50_000 if quick else words)
    yield _vectors("GloVe", glove.rows, glove.queries, trained_on)
    glosses = load_glosses(20_000 if quick else None)
    order = np.random.default_rng(SPLIT).permutation(len(glosses))
    yield _vectors("MiniLM", glosses[np.sort(order[queries:])], glosses[order[:queries]], trained_on)


def _vectors(name: str, rows: F32, queries: F32, trained_on: int) -> Vectors:
    rows, queries = unit(rows), unit(queries)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    order = np.random.default_rng(SPLIT + 1).permutation(len(rows))
    unseen = min(10_000, len(rows) // 10)
    training = np.sort(order[unseen : unseen + trained_on])
    return Vectors(
        f"{name} {len(rows):,} x {rows.shape[1]}",
        rows,
        queries,
        index.search(queries, K)[1],
        rows[training],
        rows[order[:unseen]],
    )


def squared_error(vectors: F32, reconstructions: F32) -> float:
    """Mean squared error of reconstructions, both float32 (n, d), summed over d."""
    return float(np.square(vectors - reconstructions).sum(1).mean())


def unit(vectors: F32) -> F32:
    """Vectors, float32 (n, d), scaled to unit length; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-30))


def found(candidates: I64, truth: I64) -> float:
    """Recall@10 of candidates after exact re-ranking: the share of true neighbours.

    Args:
        candidates: int64 (q, R): numbers of rows, -1 where there were fewer.
        truth: int64 (q, 10).
    """
    shares = [np.isin(true, ids).mean() for ids, true in zip(candidates, truth, strict=True)]
    return float(np.mean(shares))


def spread(values: list[float], digits: int = 3) -> str:
    """The mean over seeds and, of several, their standard deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean
