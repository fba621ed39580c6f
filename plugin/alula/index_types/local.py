"""The contract of an index in this process: encoded rows of an index type, searched without a server."""

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
EncodedRows: TypeAlias = "sp.csr_array | DrqRows"  # what an encoder makes of rows, by its kind


class LocalIndex(ABC):
    """Encoded rows of one index type in this process.

    Rows have positions from 0 in the order they came; a deleted row keeps its position. Creating or opening one
    compiles the loops of its searches, or loads them (`alula.kernels.warm_up`), so that no search has to.

    Args:
        index: What holds them.
    """

    def __init__(self, index: InvertedIndex | CodeIndex) -> None:
        self._held = index
        warm_up()

    def __len__(self) -> int:
        """Positions given out so far, those of deleted rows counted."""
        return len(self._held)

    @property
    def keeps_vectors(self) -> bool:
        """Whether the rows' vectors are held, for exact scores."""
        return self._held.vectors is not None

    @property
    def alive(self) -> Mask:
        """Bool (n,): which positions hold a row that was not deleted."""
        return self._held.alive

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by what they hold."""
        return self._held.nbytes

    def hold(self, vectors: F32) -> None:
        """Hold the vectors (n, d) of all rows from here on, for exact scores; they are not copied, and must not change.

        Args:
            vectors: float32 (n, d), finite, by position.
        """
        self._held.vectors = Vectors.over(vectors, self._held.metric)

    def delete(self, positions: I64) -> None:
        """Delete rows by position; positions that were deleted before change nothing."""
        self._held.delete(positions)

    def save(self, folder: Path) -> None:
        """Write everything into a folder, for `IndexType.open_local`."""
        self._held.save(folder)

    @abstractmethod
    def add(self, rows: EncodedRows, vectors: F32 | None = None) -> None:
        """Add rows behind those there are, with their vectors (m, d) where they are kept."""

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
        """The best rows for each query.

        Args:
            queries: float32 (n, d), checked.
            limit: Results per query.
            options: Checked `IndexType.local_options`, each present; those that only a server has a use for
                (``nprobe``) change nothing.
            rerank: How many candidates to score by their vectors: all by default where they are kept, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.

        Returns:
            Positions and scores: exact ones in the metric where candidates were scored by their vectors, otherwise
            the index type's estimates.

        Raises:
            UsageError: If an option's value cannot be used.
        """
