"""Training data: a fingerprint that names it, a sample that fits in time, and rows held out for judging."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alula.encoders import Metric
from alula.errors import DataError
from alula.ingest.sources import read_vectors

F32 = npt.NDArray[np.float32]

MAX_ROWS = 500_000
MAX_HELD_OUT = 1_000
MIN_ROWS = 320  # a tenth is held out, and what is left must hold one row for each of the 256 codewords
_CHUNK = 65_536
_DISTINCT_SAMPLE = 20_000


@dataclass(frozen=True)
class TrainingData:
    """Vectors split for training, and what names them.

    Args:
        train: float32 (n, d): the rows to learn from.
        held_out: float32 (h, d): rows that training never sees, for quality and parity figures.
        fingerprint: sha256 (hex) of the shape and bytes of *all* vectors that were given, sampled or not.
        total_rows: How many rows were given.
    """

    train: F32
    held_out: F32
    fingerprint: str
    total_rows: int

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return int(self.train.shape[1])


def load_training_data(
    path: Path, *, field: str | None = None, max_rows: int = MAX_ROWS, seed: int = 0
) -> TrainingData:
    """Read a file of vectors and split it; see `make_training_data`.

    Args:
        path: A file that `alula.ingest.sources.read_vectors` takes.
        field: The column that holds the vectors, for files with columns.
        max_rows: Most rows to train on; more are sampled without replacement.
        seed: Seed of the sample and the split.

    Raises:
        DataError: If the file cannot be read, or cannot be learned from.
    """
    return make_training_data(read_vectors(path, field), max_rows=max_rows, seed=seed)


def make_training_data(vectors: npt.ArrayLike, *, max_rows: int = MAX_ROWS, seed: int = 0) -> TrainingData:
    """Split vectors into rows to learn from and rows held out (a tenth, at most 1,000).

    Args:
        vectors: Array-like (n, d) of finite numbers, d >= 2, at least `MIN_ROWS` rows.
        max_rows: Most rows to train on; more are sampled without replacement.
        seed: Seed of the sample and the split.

    Raises:
        DataError: If there are too few rows or dimensions, NaN or infinite values, or (nearly) all rows are equal.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] < 2:
        raise DataError(f"The training vectors have shape {array.shape}; rows of at least 2 numbers are needed.")
    if min(len(array), max_rows) < MIN_ROWS:
        raise DataError(
            f"There are only {min(len(array), max_rows):,} training rows; an encoder needs at least {MIN_ROWS}, "
            "and tens of thousands to be good."
        )
    order = np.random.default_rng(seed).permutation(len(array))
    count = min(MAX_HELD_OUT, len(array) // 10)
    # sorted, so that the rows are read from memory (or a memory map) in one pass
    held_out = array[np.sort(order[:count])]
    train = array[np.sort(order[count : count + max_rows])]
    if not (np.isfinite(held_out).all() and np.isfinite(train).all()):
        raise DataError("The training vectors hold NaN or infinite values; remove or mend those rows.")
    return TrainingData(train, held_out, fingerprint(array), len(array))


def fingerprint(vectors: F32) -> str:
    """The sha256 (hex) of the vectors' shape and little-endian float32 bytes.

    Args:
        vectors: float32 (n, d).
    """
    digest = hashlib.sha256(repr(vectors.shape).encode())
    for start in range(0, len(vectors), _CHUNK):
        digest.update(np.ascontiguousarray(vectors[start : start + _CHUNK], dtype="<f4").data)
    return digest.hexdigest()


def input_scale(train: F32, metric: Metric) -> float:
    """What the encoder divides its input by: 1 for COSINE, else the root mean square norm of the training rows.

    Args:
        train: float32 (n, d).
        metric: The metric the encoder is trained for.

    Raises:
        DataError: If the norm is 0 or not finite in float32.
    """
    if metric == "COSINE":
        return 1.0
    scale = float(np.sqrt(np.mean(np.einsum("ij,ij->i", train, train, dtype=np.float64))))
    if not 1e-30 < scale < 1e30:
        raise DataError(f"The training vectors' root mean square norm is {scale:g}; rescale them to ordinary numbers.")
    return scale


def check_distinct(rows: F32, wanted: int) -> None:
    """Refuse rows of which too few differ from each other.

    Args:
        rows: float32 (n, d), as the encoder sees them (normalised or scaled).
        wanted: How many different rows are needed.

    Raises:
        DataError: If there are fewer.
    """
    # a part is often enough to know, and sorting all rows takes seconds
    for sample in (rows[:: 1 + len(rows) // _DISTINCT_SAMPLE], rows):
        distinct = len(np.unique(np.round(sample, 6), axis=0))
        if distinct >= wanted:
            return
    raise DataError(
        f"Only {distinct} of {len(rows):,} training rows differ from each other; at least {wanted} are needed "
        "(are the vectors constant, or the wrong column?)."
    )
