"""The index of one segment, with the interface of Milvus Lite 3's vector indexes.

Milvus Lite has the vectors of every segment in memory, so the sidecar file contains codes alone, and candidates are
scored exactly by the segment's own array.
"""

from __future__ import annotations

import json
import logging
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alula.catalog.binding import check_fit
from alula.encoders import Encoder
from alula.encoders.metric import better_is_larger
from alula.errors import AlulaError, DataError
from alula.index_types import IndexType, LocalIndex, candidate_counts
from alula.index_types.local import F32, I64, Mask
from alula.kernels import TopK, exact_scores, top_k

METADATA, FORMAT = "alula.json", 1
CANDIDATES = 500  # for index types without that option; fewer rows are all ranked exactly

_log = logging.getLogger("alula.lite")


@dataclass(frozen=True)
class EncodedBy:
    """The index type and the encoder of a field's index."""

    kind: IndexType
    encoder: Encoder

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata in a sidecar file."""
        info = self.encoder.info
        return {
            "format": FORMAT,
            "index_type": self.kind.name,
            "metric": info.metric,
            "encoder": str(self.encoder.path),
            "encoder_sha256": self.encoder.sha256,
        }


class SegmentIndex:
    """The index of one segment's vectors.

    Args:
        recipe: Its index type and encoder.
        rows: The encoded rows.
    """

    def __init__(self, recipe: EncodedBy, rows: LocalIndex) -> None:
        self._recipe, self._rows = recipe, rows
        self.index_type = recipe.kind.name
        self.metric = recipe.encoder.info.metric
        self.dim = recipe.encoder.info.input_dim
        self.num_vectors = len(rows)
        self._vectors: F32 = np.empty((0, self.dim), np.float32)
        self._findable = None if rows.alive.all() else rows.alive

    @classmethod
    def build(cls, recipe: EncodedBy, vectors: F32) -> SegmentIndex:
        """Encode the vectors (n, d) of a segment.

        Raises:
            EncoderError, UnsupportedError: If they cannot be encoded, or the index type works on a server only.
        """
        encoder = recipe.encoder
        finite: Mask = np.asarray(np.isfinite(vectors).all(axis=1))
        usable = vectors if finite.all() else np.where(finite[:, None], vectors, np.float32(0))
        rows = recipe.kind.local(encoder, encoder.info.metric, keep_vectors=False)
        rows.add(encoder.encode_rows(usable, checked=True))
        if not finite.all():  # Milvus Lite accepts them, and keeps deleted ones for a while
            _log.warning("%d rows contain NaN or infinite values, and no search finds them.", (~finite).sum())
            rows.delete(np.flatnonzero(~finite))
        return cls(recipe, rows)

    def attach(self, vectors: F32) -> None:
        """Use the segment's vectors (n, d) for exact scores."""
        if self._findable is not None:
            vectors = np.where(self._findable[:, None], vectors, np.float32(0))
        self._vectors = vectors
        self._rows.hold(vectors)

    def search(
        self, queries: F32, top_k: int, valid_mask: Mask | None = None, params: Mapping[str, Any] | None = None
    ) -> tuple[I64, F32]:
        """Search for the nearest rows of each query.

        Args:
            queries: float32 (n, d).
            top_k: The number of rows to find; fewer if fewer are valid.
            valid_mask: bool (rows,): the rows that can be found; all by default.
            params: Checked search options of the index type; missing ones have their defaults.

        Returns:
            Rows int64 (n, top_k), nearest first and -1 behind the last, and Milvus Lite's distances float32
            (n, top_k): 1 - cosine, minus the inner product, or the Euclidean distance, not squared.

        Raises:
            UsageError, DataError: If an option or a query cannot be used.
        """
        queries = self._recipe.encoder.check_vectors(queries, what="queries")
        if self._findable is not None:
            valid_mask = self._findable if valid_mask is None else valid_mask & self._findable
        kind = self._recipe.kind
        options = {option.name: option.default for option in kind.local_options} | dict(params or {})
        if "oversample" in options:
            options["candidates"], _ = candidate_counts(options, top_k, oversample=kind.oversample)
        every = self.num_vectors if valid_mask is None else int(np.count_nonzero(valid_mask))
        if every > max(options.get("candidates", CANDIDATES), top_k):
            found = self._rows.search(queries, top_k, options, valid=valid_mask)
        else:  # all are candidates
            found = TopK.empty(len(queries), top_k)
        # Sparse codes find only rows that share a term with the query, and the user can ask for more rows than those.
        for query in np.flatnonzero(found.positions[:, min(top_k, every) - 1] < 0):
            best, scores = self._exact(queries[query], top_k, valid_mask)
            found.positions[query, : len(best)], found.scores[query, : len(best)] = best, scores
        distances = _distances(found.scores, self.metric)
        return found.positions, np.where(found.positions < 0, np.float32(np.inf), distances)

    def _exact(self, query: F32, limit: int, valid: Mask | None) -> tuple[I64, F32]:
        rows = np.arange(self.num_vectors) if valid is None else np.flatnonzero(valid)
        scores = exact_scores(query, self._vectors[rows], self.metric)
        order = top_k(scores, limit, larger=better_is_larger(self.metric))[:limit]
        return rows[order], scores[order]

    def save(self, path: str) -> None:
        """Write the index into one file, which appears when it is complete.

        Milvus Lite copies and deletes sidecars as files, so it must be one.
        """
        target = Path(path)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".alula-") as made:
            folder, packed = Path(made) / "rows", Path(made) / target.name
            self._rows.save(folder)
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(METADATA, json.dumps(self._recipe.metadata | {"rows": self.num_vectors}))
                for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                    archive.write(file, file.relative_to(folder.parent))
            packed.replace(target)

    @classmethod
    def load(cls, recipe: EncodedBy, path: str) -> SegmentIndex:
        """Open a file of `save`.

        Raises:
            DataError: If the file is damaged.
            EncoderError: If it was created with another encoder; both fingerprints are named.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                metadata = json.loads(archive.read(METADATA))
                _check_same(recipe, metadata, path)
                # A memory-mapped file needs no name: the mapping keeps its contents until the index is freed.
                with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".alula-") as made:
                    archive.extractall(made)
                    rows = recipe.kind.open_local(Path(made) / "rows", recipe.encoder)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, DataError) as error:
            raise DataError(
                f"The index file {path} cannot be read ({error}); delete it, and load the collection again to rebuild "
                "it."
            ) from None
        return cls(recipe, rows)


class FailedIndex:
    """The place of an index whose build failed, so that searches report it.

    Milvus Lite builds in the background, logs failures there and searches without an index.
    """

    def __init__(self, index_type: str, metric: str, vectors: int, dim: int, message: str) -> None:
        self.index_type, self.metric = index_type, metric
        self.num_vectors, self.dim = vectors, dim
        self._message = message

    def search(self, *_: Any, **__: Any) -> tuple[I64, F32]:
        """Raise the error of the build.

        Raises:
            AlulaError: Always.
        """
        raise AlulaError(self._message)

    def save(self, path: str) -> None:
        """Write nothing, so that the next load builds it again."""


def _check_same(recipe: EncodedBy, metadata: Mapping[str, Any], path: str) -> None:
    if metadata["format"] != FORMAT:
        raise ValueError(f"its format is {metadata['format']}, and this version of Alula reads {FORMAT}")
    check_fit(recipe.kind, recipe.encoder, subject=f"The index file {path}", fingerprint=metadata["encoder_sha256"])


def _distances(scores: F32, metric: str) -> F32:
    if metric == "IP":
        return -scores
    return np.sqrt(np.maximum(scores, 0)) if metric == "L2" else np.maximum(1 - scores, 0)
