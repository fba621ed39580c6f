"""The contract of an index in this process: search encoded rows without a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.encoders import DrqRows
from alula.kernels import CodeIndex, InvertedIndex, TopK, warm_up
from alula.kernels.vectors import Vectors

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
EncodedRows: TypeAlias = "sp.csr_array | DrqRows"  # by the kind of encoder


class LocalIndex(ABC):
    """Encoded rows of one index type in this process.

    Rows have positions from 0 in the order of `add`; a deleted row keeps its position. Creating or opening one
    compiles the loops of its searches, or loads them (`alula.kernels.warm_up`), so that no search has to.

    Args:
        index: The kernel index that stores them.
    """

    def __init__(self, index: InvertedIndex | CodeIndex) -> None:
        self._held = index
        warm_up()

    def __len__(self) -> int:
        """The number of positions, those of deleted rows included."""
        return len(self._held)

    @property
    def keeps_vectors(self) -> bool:
        """True if the rows' vectors are held, for exact scores."""
        return self._held.vectors is not None

    @property
    def alive(self) -> Mask:
        """Bool (n,): False at the positions of deleted rows."""
        return self._held.alive

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by content."""
        return self._held.nbytes

    def hold(self, vectors: F32) -> None:
        """Use these vectors of all rows for exact scores; no copy, so do not change them.

        Args:
            vectors: float32 (n, d), finite, by position.
        """
        self._held.vectors = Vectors.over(vectors, self._held.metric)

    def delete(self, positions: I64) -> None:
        """Delete rows by position; deleting one twice changes nothing."""
        self._held.delete(positions)

    def save(self, folder: Path) -> None:
        """Write the index into a folder, for `IndexType.open_local`."""
        self._held.save(folder)

    @abstractmethod
    def add(self, rows: EncodedRows, vectors: F32 | None = None) -> None:
        """Append rows, with their vectors (m, d) if the index keeps vectors."""

    @abstractmethod
    def search(
        self,
        queries: F32,
        limit: int,
        options: Mapping[str, Any],
        *,
        rerank: int | None = None,
        valid: Mask | None = None,
    ) -> TopK:
        """Search for the best rows for each query.

        Args:
            queries: float32 (n, d), checked.
            limit: Results per query.
            options: Checked `IndexType.local_options`, each present; options for servers only (``nprobe``) change
                nothing.
            rerank: The number of candidates to score by their vectors: all by default if they are kept, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.

        Returns:
            Positions and scores: exact scores in the metric if candidates were scored by their vectors, otherwise the
            index type's estimates.

        Raises:
            UsageError: If an option's value cannot be used.
        """
