"""Prepare queries, from a file or drawn from the rows, and true neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alula.encoders import Encoder
from alula.errors import UsageError
from alula.evaluation.ground_truth import Queries, find_ground_truth
from alula.evaluation.recall import Nearest
from alula.evaluation.row_source import F32, Key, RowSource, sample_rows
from alula.evaluation.truth_file import TruthFingerprint, check_truth, load_truth, read_truth, save_truth
from alula.progress import Progress, silent
from alula.sources import read_inputs

_ARRAYS = (".npy", ".npz", ".h5", ".hdf5")


@dataclass(frozen=True)
class QueryOptions:
    """The user's choice of queries and true neighbours.

    Args:
        queries: A file of queries; None to draw them from the rows.
        column: Its column.
        sample: Number of queries to draw.
        seed: Seed of the draw.
        k: Neighbours per query.
        truth: A file of true neighbours, or the name of a file to write them to. By default they are cached beside the
            file of the rows, if the rows are in one.
    """

    queries: Path | None = None
    column: str | None = None
    sample: int = 200
    seed: int = 0
    k: int = 10
    truth: Path | None = None


@dataclass(frozen=True)
class QuerySet:
    """Queries with their true neighbours, and the source of both in words."""

    queries: Queries
    queries_from: str
    truth_from: str


@dataclass(frozen=True)
class _Drawn:
    """Queries before their true neighbours are known; see `Queries`."""

    vectors: F32
    source: str
    own: Sequence[Key] | None = None
    labels: Sequence[str] | None = None


def make_queries(
    rows: RowSource | None,
    options: QueryOptions,
    *,
    encoder: Encoder | None,
    metric: str,
    key_type: type[Key] = int,
    progress: Progress = silent,
) -> QuerySet:
    """Read or draw queries, and find or read their true neighbours.

    Args:
        rows: The rows; None if they cannot be read and true neighbours are given.
        options: The user's choice.
        encoder: Embeds queries that are texts or images; None if they are vectors.
        metric: ``COSINE``, ``IP`` or ``L2``.
        key_type: Type of the rows' keys.
        progress: Called with the number of rows read.

    Raises:
        UsageError: If there are fewer rows than needed, or no rows to find the true neighbours in.
        DataError: If a file cannot be used.
    """
    if options.queries is not None:
        vectors, labels = _read_queries(options.queries, options.column, encoder)
        drawn = _Drawn(vectors, f"{options.queries.name}, {len(vectors):,} queries", labels=labels)
    elif rows is None:
        raise UsageError("There are no rows to draw queries from; give queries=..., a file of them.")
    else:
        own, vectors = sample_rows(rows, options.sample, options.seed, progress)
        words = f"{options.sample:,} rows of {rows.source.name}, drawn with seed {options.seed}"
        drawn = _Drawn(vectors, f"{words}; a row is no answer to itself", own)
    nearest, truth_from = _ground_truth(rows, drawn, options, metric=metric, key_type=key_type, progress=progress)
    true, ties = [one.keys[: options.k] for one in nearest], [one.keys[options.k :] for one in nearest]
    return QuerySet(Queries(drawn.vectors, true, drawn.own, drawn.labels, ties), drawn.source, truth_from)


def _ground_truth(
    rows: RowSource | None,
    drawn: _Drawn,
    options: QueryOptions,
    *,
    metric: str,
    key_type: type[Key],
    progress: Progress,
) -> tuple[list[Nearest], str]:
    """Read the true neighbours, or find and cache them; and name their source."""
    path, k = options.truth, options.k
    given = path is not None and path.exists()
    if path is not None and given and (path.suffix != ".npz" or (rows is None and options.queries is not None)):
        return read_truth(path, len(drawn.vectors), k, key_type), path.name
    if rows is None:
        raise UsageError("There are no rows to find the true neighbours in; give truth=..., a file of them.")
    fingerprint = TruthFingerprint.of(drawn.vectors, metric, rows)
    if path is None and rows.file is not None:
        path = rows.file.with_name(f"{rows.file.name}.{fingerprint.digest[:12]}.truth.npz")
    nearest = load_truth(path, fingerprint, k) if path is not None and path.exists() else None
    if nearest is None and path is not None and given:
        check_truth(path, fingerprint)
    if nearest is None:
        nearest = find_ground_truth(rows, drawn.vectors, k, metric, own=drawn.own, progress=progress)
        if path is not None:
            save_truth(path, fingerprint, k, nearest)
    return nearest, path.name if path is not None and given else f"scoring every row of {rows.source.name}"


def _read_queries(path: Path, column: str | None, encoder: Encoder | None) -> tuple[F32, list[str] | None]:
    """The vectors of a file of queries, and their texts if it contains texts."""
    takes = encoder.info.input if encoder else "vectors"
    if encoder is None or takes == "vectors" or (path.suffix in _ARRAYS and _has_floats(path)):
        vectors = np.asarray(read_inputs(path, column), np.float32)
        return (encoder.check_vectors(vectors, what="queries") if encoder else vectors), None
    inputs = read_inputs(path, column, takes)
    return encoder.embed(inputs, queries=True), [str(text) for text in inputs] if takes == "text" else None


def _has_floats(path: Path) -> bool:
    """True for a ``.npy`` file of embeddings, which every encoder accepts."""
    if path.suffix != ".npy":
        return False
    try:
        return bool(np.load(path, mmap_mode="r").dtype.kind == "f")
    except (OSError, ValueError):
        return False
