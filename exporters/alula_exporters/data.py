"""Training data: fingerprint, sample, and rows held out for evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders import Input, Metric
from alula.errors import DataError, UsageError
from alula.sources import open_source, read_inputs
from alula_exporters.labels import Labels, read_labels

F32 = npt.NDArray[np.float32]
Inputs = npt.NDArray[Any]  # vectors float32 (n, d), images uint8 (n, h, w, c) or texts object (n,)

MAX_ROWS = 500_000
MAX_HELD_OUT = 1_000
MIN_ROWS = 320  # a tenth is held out, and what is left must hold one row for each of the 256 codewords
_CHUNK = 65_536
_DISTINCT_SAMPLE = 20_000


@dataclass(frozen=True)
class TrainingData:
    """Rows split for training, and what names them.

    Args:
        train: The rows to learn from: vectors float32 (n, d), images uint8 (n, h, w, c) or texts (n,).
        held_out: As many columns, (h, ...): rows that training never sees, for quality and parity figures.
        fingerprint: sha256 (hex) of *all* rows that were given, sampled or not, and of their labels.
        total_rows: Number of rows before sampling.
        classes: The labels' names in the order of their numbers; empty without labels.
        train_labels: int64 (n,): the class number of each row to learn from; or bool (n, C): which classes it has.
        held_out_labels: int64 (h,) or bool (h, C).
        label_vectors: float32 (C, e): meanings of the classes, for the loss ``adaptive-margin``; None for the means of
            their vectors, and of images and texts for unrelated classes.
    """

    train: Inputs
    held_out: Inputs
    fingerprint: str
    total_rows: int
    classes: tuple[str, ...] = ()
    train_labels: Labels | None = None
    held_out_labels: Labels | None = None
    label_vectors: F32 | None = None

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return int(self.train.shape[1])

    @property
    def labels(self) -> Labels:
        """The labels of `train`: int64 (n,) or bool (n, C).

        Raises:
            DataError: If there are none.
        """
        if self.train_labels is None:
            raise DataError("This loss needs a label for every row, and the training data has none; give labels.")
        return self.train_labels


def load_training_data(
    path: Path,
    *,
    field: str | None = None,
    input: Input = "vectors",
    labels: Path | None = None,
    label_column: str | None = None,
    label_vectors: Path | None = None,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> TrainingData:
    """Read a file of vectors, images or texts and split it; see `make_training_data`.

    Args:
        path: A file that `alula.sources.open_source` takes.
        field: The column that holds the rows, for files with columns.
        input: Type of the rows.
        labels: A ``.npy`` file of one label for each row, or of rows and classes of 0 and 1; or a text file with one
            label in each line.
        label_column: The column that holds the labels, or lists of them, for files with columns.
        label_vectors: A ``.npy`` file, (C, e).
        max_rows: Most rows to train on; more are sampled without replacement.
        seed: Seed of the sample and the split.

    Raises:
        UsageError, DataError: If a file cannot be read, or cannot be learned from.
    """
    inputs: Any = read_inputs(path, field, input)
    found: Any = None
    if labels is not None:
        found = _read_labels(labels)
    elif label_column is not None:
        found = _label_column(path, field, input, label_column)
    return make_training_data(
        np.array(inputs, dtype=object) if input == "text" else inputs,
        found,
        label_vectors=None if label_vectors is None else _load_npy(label_vectors),
        max_rows=max_rows,
        seed=seed,
    )


def _read_labels(path: Path) -> Any:
    if path.suffix == ".npy":
        return _load_npy(path)
    try:
        return np.array(path.read_text(encoding="utf-8").splitlines(), dtype=object)
    except (OSError, UnicodeDecodeError):
        raise DataError(f"The labels {path} are neither a .npy array nor text with one label in each line.") from None


def _load_npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataError(f"The file {path} is not a .npy array of numbers or strings, or it is truncated.") from None


def _label_column(path: Path, field: str | None, input: Input, name: str) -> Any:
    source = open_source(path, field, input)
    if name not in source.scalars:
        have = ", ".join(source.scalars) or "no column beside the rows"
        raise UsageError(f"{path} has no column {name!r} for the labels; it has {have}.")
    return [label for batch in source.batches() for label in batch.columns[name].to_pylist()]


def make_training_data(
    inputs: npt.ArrayLike,
    labels: npt.ArrayLike | Sequence[Sequence[str]] | None = None,
    *,
    label_vectors: npt.ArrayLike | None = None,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> TrainingData:
    """Split rows into rows to learn from and rows held out (a tenth, at most 1,000).

    Args:
        inputs: Finite numbers (n, d), d >= 2; or images, uint8 (n, h, w, c); or texts, n strings. At least `MIN_ROWS`
            rows.
        labels: n class names or numbers, at least two different ones; rows with the same label are near each other.
            The two texts of a pair share a label of their own. For rows of several classes, which are near each other
            if they share one, n lists of names or an array (n, C) of 0 and 1.
        label_vectors: (C, e) numbers, one row for each class in the sorted order of the labels.
        max_rows: Most rows to train on; more are sampled without replacement.
        seed: Seed of the sample and the split.

    Raises:
        DataError: If there are too few rows or dimensions, NaN or infinite values, (nearly) all rows are equal, or
            the labels do not fit.
    """
    array = _as_inputs(inputs)
    if min(len(array), max_rows) < MIN_ROWS:
        raise DataError(
            f"There are only {min(len(array), max_rows):,} training rows; an encoder needs at least {MIN_ROWS}, "
            "and tens of thousands to be good."
        )
    if labels is None:
        return _split(array, TrainingData(array, array, fingerprint(array), len(array)), max_rows, seed)
    classes, numbers = read_labels(labels, len(array))
    return _split(
        array,
        TrainingData(
            array,
            array,
            fingerprint(array, numbers),
            len(array),
            classes,
            numbers,
            numbers,
            None if label_vectors is None else _check_label_vectors(label_vectors, len(classes)),
        ),
        max_rows,
        seed,
    )


def _split(array: Inputs, everything: TrainingData, max_rows: int, seed: int) -> TrainingData:
    order = np.random.default_rng(seed).permutation(len(array))
    count = min(MAX_HELD_OUT, len(array) // 10)
    # sorted, so that the rows are read from memory (or a memory map) in one pass
    apart, taken = np.sort(order[:count]), np.sort(order[count : count + max_rows])
    held_out, train = array[apart], array[taken]
    if array.dtype == np.float32 and not (np.isfinite(held_out).all() and np.isfinite(train).all()):
        raise DataError("The training vectors contain NaN or infinite values; remove or mend those rows.")
    split = replace(everything, train=train, held_out=held_out)
    numbers = everything.train_labels
    return split if numbers is None else replace(split, train_labels=numbers[taken], held_out_labels=numbers[apart])


def _check_label_vectors(vectors: npt.ArrayLike, classes: int) -> F32:
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2 or len(array) != classes or not np.isfinite(array).all() or not array.any(axis=1).all():
        raise DataError(
            f"The label vectors have shape {array.shape}; one row of finite numbers, not all 0, is needed for each of "
            f"the {classes} classes."
        )
    return array


def _as_inputs(inputs: npt.ArrayLike) -> Inputs:
    """Vectors float32 (n, d), images uint8 (n, h, w, c) or texts object (n,)."""
    array = np.asarray(inputs)
    if array.dtype == np.uint8 and array.ndim == 4:
        return array
    if array.ndim == 1 and array.dtype.kind in "UO" and all(isinstance(text, str) for text in array):
        return array.astype(object)
    if array.dtype == np.uint8 and array.ndim == 3:
        raise DataError(
            f"The training images have shape {array.shape}; images are uint8 (rows, height, width, channels), with one "
            "channel for grey ones."
        )
    try:
        array = np.ascontiguousarray(array, dtype=np.float32)
    except (TypeError, ValueError):
        raise DataError("The training rows are neither vectors nor images nor texts.") from None
    if array.ndim != 2 or array.shape[1] < 2:
        raise DataError(f"The training vectors have shape {array.shape}; rows of at least 2 numbers are needed.")
    return array


def fingerprint(*arrays: Inputs) -> str:
    """The sha256 (hex) of the arrays' shapes and little-endian bytes, or of texts.

    Args:
        arrays: Vectors float32 (n, d), images uint8 (n, h, w, c), texts object (n,) or `Labels`.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        if array.dtype == object:
            for text in array:
                digest.update(repr(text).encode())
            continue
        for start in range(0, len(array), _CHUNK):
            chunk = array[start : start + _CHUNK]
            digest.update(np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def input_scale(train: F32, metric: Metric) -> float:
    """Divisor of the input: 1 for COSINE, else the root mean square norm of rows.

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
        wanted: Number of different rows needed.

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
