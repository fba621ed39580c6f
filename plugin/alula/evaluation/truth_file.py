"""Read and write files of true neighbours."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.errors import DataError
from alula.evaluation.recall import Nearest
from alula.evaluation.row_source import F32, Key, RowSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TruthFingerprint:
    """Identifies the input of a search for true neighbours.

    Args:
        queries: float32 (q, d).
        metric: ``COSINE``, ``IP`` or ``L2``.
        rows: `RowSource.fingerprint`; "" if the rows cannot be read.
    """

    queries: F32
    metric: str
    rows: str

    @classmethod
    def of(cls, queries: F32, metric: str, rows: RowSource | None) -> TruthFingerprint:
        """Fingerprint queries and rows.

        For a collection this reads all keys and a sample of the vectors.
        """
        return cls(queries, metric, rows.fingerprint() if rows else "")

    @property
    def digest(self) -> str:
        """SHA-256 of everything, in hexadecimal digits."""
        digest = hashlib.sha256(f"{self.metric} {self.queries.shape} {self.rows}".encode())
        digest.update(np.ascontiguousarray(self.queries).tobytes())
        return digest.hexdigest()

    @property
    def digest_without_rows(self) -> str:
        """The digest of versions that did not fingerprint the rows of a collection."""
        return TruthFingerprint(self.queries, self.metric, "").digest


def load_truth(path: Path, fingerprint: TruthFingerprint, k: int) -> list[Nearest] | None:
    """Read a file of `save_truth`; None if it is unreadable or does not fit.

    A file of a version that did not fingerprint the rows of a collection is accepted with a warning.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as stored:
        digest = str(stored["fingerprint"])
        without_rows = "rows" not in stored and digest == fingerprint.digest_without_rows
        if stored["k"] >= k and (digest == fingerprint.digest or without_rows):
            if digest != fingerprint.digest:
                log.warning(
                    "%s does not record the rows it was computed from, so it may be outdated; delete it to compute "
                    "the true neighbours again.",
                    path,
                )
            return _unpacked(stored["keys"], stored["scores"], stored["counts"], k)
    return None


def save_truth(path: Path, fingerprint: TruthFingerprint, k: int, truth: Sequence[Nearest]) -> None:
    """Write true neighbours to a file; a read-only folder is not an error."""
    arrays: dict[str, Any] = {
        "keys": np.array([key for one in truth for key in one.keys]),
        "scores": np.concatenate([one.scores for one in truth]),
        "counts": np.array([len(one.keys) for one in truth]),  # more than k where there are ties
        "k": np.array(k),
        "fingerprint": np.array(fingerprint.digest),
        "rows": np.array(fingerprint.rows),
    }
    with contextlib.suppress(OSError), path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def check_truth(path: Path, fingerprint: TruthFingerprint) -> None:
    """Raise a DataError that says why a file of true neighbours does not fit."""
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as stored:
        rows = str(stored["rows"]) if "rows" in stored else ""
        same_queries = TruthFingerprint(fingerprint.queries, fingerprint.metric, rows).digest == stored["fingerprint"]
        if rows != fingerprint.rows and same_queries:
            raise DataError(
                f"{path} contains the true neighbours in other rows: the rows changed after it was written. Delete it "
                "or give another name, to compute them again."
            )
    raise DataError(f"{path} is of other queries, other rows, or a smaller k; remove it, or give another name.")


def read_truth(path: Path, queries: int, k: int, key_type: type[Key]) -> list[Nearest]:
    """Read a user's file of true neighbours.

    The file is a ``.npy`` array (queries, k or more) of keys, or a file of `save_truth`. An array has no ties: each key
    counts as nearer than the next.

    Args:
        path: The file.
        queries: Number of queries.
        k: Neighbours per query.
        key_type: Type of the rows' keys.

    Raises:
        DataError: If the file cannot be read, is for other queries, or its keys are of another type.
    """
    try:
        loaded: Any = np.load(path)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            keys, scores, counts, most = loaded["keys"], loaded["scores"], loaded["counts"], int(loaded["k"])
        elif loaded.ndim == 2:
            counts, most = np.full(len(loaded), loaded.shape[1]), loaded.shape[1]
            keys, scores = loaded.ravel(), np.tile(-np.arange(most, dtype=np.float32), len(loaded))
        else:
            raise ValueError
        if keys.dtype.kind not in "iuU":
            raise ValueError
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise DataError(
            f"{path} contains no true neighbours; give a .npy array (queries, k) of the rows' keys, nearest first."
        ) from None
    if (keys.dtype.kind == "U") != (key_type is str):
        are, given = ("strings", "integers") if key_type is str else ("integers", "strings")
        raise DataError(
            f"{path} contains {given}, and the rows' keys are {are}; give the true neighbours by these keys."
        )
    if len(counts) != queries or most < k:
        raise DataError(
            f"{path} has {most:,} neighbours of {len(counts):,} queries, and {k:,} of {queries:,} are needed; "
            "check k=... and queries=... again."
        )
    return _unpacked(keys, scores, counts, k)


def _unpacked(keys: npt.NDArray[Any], scores: F32, counts: npt.NDArray[Any], k: int) -> list[Nearest]:
    """Split keys and scores by query; keep the first k of each with their ties."""
    ends = np.cumsum(counts)[:-1]
    rows = zip(np.split(keys, ends), np.split(scores, ends), strict=True)
    return [Nearest(some.tolist(), values).first(k) for some, values in rows]
