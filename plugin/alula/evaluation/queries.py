"""Make the questions of an evaluation: queries, given or drawn from the rows, and their true neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alula.encoders import Encoder
from alula.errors import DataError, UsageError
from alula.evaluation.ground_truth import Questions, cached_truth, find_truth, fingerprint, read_truth
from alula.evaluation.recall import Nearest
from alula.evaluation.row_source import F32, Key, Progress, Rows, sample_rows, silent
from alula.sources import read_inputs

_ARRAYS = (".npy", ".npz", ".h5", ".hdf5")


@dataclass(frozen=True)
class Asked:
    """Questions, and in words where they are from."""

    questions: Questions
    queries_from: str
    truth_from: str


def make_questions(
    rows: Rows | None,
    *,
    queries: Path | None,
    column: str | None,
    encoder: Encoder | None,
    sample: int,
    seed: int,
    k: int,
    metric: str,
    truth: Path | None,
    key_type: type[Key] = int,
    progress: Progress = silent,
) -> Asked:
    """Queries and their true neighbours.

    Args:
        rows: The rows; None if they cannot be read, and true neighbours are given.
        queries: A file of queries; None to draw them from the rows.
        column: Its column.
        encoder: What makes vectors of queries that are texts or images; None if they are vectors.
        sample: How many to draw.
        seed: Seed of drawing them.
        k: Neighbours per query.
        metric: ``COSINE``, ``IP`` or ``L2``.
        truth: A file of true neighbours, or a name to keep those that are found under. Without it they are kept beside
            the file of the rows, if it is one.
        key_type: What the rows' keys are.
        progress: Told of the rows read.

    Raises:
        UsageError: If there are fewer rows than needed, or nothing to find the true neighbours with.
        DataError: If a file cannot be used.
    """
    own: Sequence[Key] | None = None
    labels: Sequence[str] | None = None
    if queries is not None:
        vectors, labels = _read_queries(queries, column, encoder)
        queries_from = f"{queries.name}, {len(vectors):,} queries"
    elif rows is None:
        raise UsageError("There are no rows to draw queries from; give queries with --queries.")
    else:
        own, vectors = sample_rows(rows, sample, seed, progress)
        queries_from = f"{sample:,} rows of {rows.source.name}, drawn with seed {seed}; a row is no answer to itself"

    def asked(nearest: list[Nearest], truth_from: str) -> Asked:
        true, ties = [one.keys[:k] for one in nearest], [one.keys[k:] for one in nearest]
        return Asked(Questions(vectors, true, own, labels, ties), queries_from, truth_from)

    given = truth is not None and truth.exists()
    if truth is not None and given and truth.suffix != ".npz":
        return asked(read_truth(truth, len(vectors), k, key_type), truth.name)
    print_ = fingerprint(vectors, metric, rows)

    def find() -> list[Nearest]:
        if given:
            raise DataError(
                f"{truth} is of other queries, other rows, or a smaller k; remove it, or give another name."
            )
        if rows is None:
            raise UsageError("There are no rows to find the true neighbours in; give them with --truth.")
        return find_truth(rows, vectors, k, metric, own=own, progress=progress)

    if truth is not None and given and queries is not None:
        found = read_truth(truth, len(vectors), k, key_type) if rows is None else cached_truth(truth, print_, k, find)
    else:
        beside = rows.file.with_name(f"{rows.file.name}.{print_[:12]}.truth.npz") if rows and rows.file else None
        found = cached_truth(truth or beside, print_, k, find)
    source = f"{truth.name}" if given and truth else f"scoring every row of {rows.source.name}" if rows else ""
    return asked(found, source)


def _read_queries(path: Path, column: str | None, encoder: Encoder | None) -> tuple[F32, list[str] | None]:
    """The vectors of a file of queries, and the texts if it holds such."""
    takes = encoder.info.input if encoder else "vectors"
    if encoder is None or takes == "vectors" or (path.suffix in _ARRAYS and _holds_floats(path)):
        vectors = np.asarray(read_inputs(path, column), np.float32)
        return (encoder.check_vectors(vectors, what="queries") if encoder else vectors), None
    inputs = read_inputs(path, column, takes)
    return encoder.embed(inputs, queries=True), [str(text) for text in inputs] if takes == "text" else None


def _holds_floats(path: Path) -> bool:
    """Whether a file of arrays holds embeddings, which an encoder of texts or images takes as well."""
    if path.suffix != ".npy":
        return False
    try:
        return bool(np.load(path, mmap_mode="r").dtype.kind == "f")
    except (OSError, ValueError):
        return False
