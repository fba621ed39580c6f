"""Vectors for exact scores, and byte codes that rule most of them out unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.errors import DataError
from alula.kernels.constants import CACHE_LINE, METRICS
from alula.kernels.loops import sparse_loops
from alula.kernels.topk import F32, I64, U8, U32

HEADER_FLOATS = 3  # float32 at the end of each row of codes: step, half the squared norm (L2), norm
ENCODE_ROWS = 1 << 10  # rows encoded at once: few enough for the processor's cache
CENTRE_SAMPLE = 4096  # at most this many rows give the centre


class GrowableArray:
    """An array (n, ...) to append rows to, which doubles its memory when it is full.

    Args:
        array: float32, uint8, ...: the initial rows, copied at the first append.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._memory = array
        self.array = array

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Append rows (m, ...)."""
        n = len(self.array)
        if n + len(rows) > len(self._memory) or not self._memory.flags.writeable:
            memory = np.empty((max(n + len(rows), 2 * n if n else 0), *rows.shape[1:]), self.array.dtype)
            memory[:n] = self.array
            self._memory = memory
        self._memory[n : n + len(rows)] = rows
        self.array = self._memory[: n + len(rows)]


class Vectors:
    """Vectors by position, ranked by their exact scores.

    Each vector (its direction for COSINE) minus a centre is also stored as a row of bytes u, so that it is about
    step * (u - 128), with one step per row, which suits vectors of any length and place. Three float32 follow: the
    step, half the squared norm (L2; otherwise 0), and the norm::

        |<- d codes, uint8 ->| 0 ... 0 | step | |x|^2 / 2 | |x| |
        |<-------------- s bytes, a multiple of 64 ------------->|

    Args:
        dim: Their dimension d.
        metric: ``COSINE``, ``IP`` or ``L2``.
    """

    def __init__(self, dim: int, metric: str) -> None:
        self.dim, self.metric = dim, metric
        self._number, self._loops = METRICS[metric], sparse_loops()
        self._width = -(-(dim + 4 * HEADER_FLOATS) // CACHE_LINE) * CACHE_LINE
        self._array = GrowableArray(np.empty((0, dim), np.float32))
        self._codes = GrowableArray(np.empty((0, self._width), np.uint8))
        self._centre: F32 | None = None

    @classmethod
    def restore(cls, arrays: Mapping[str, npt.NDArray[Any]], metric: str) -> Vectors | None:
        """Restore vectors from saved `arrays` without copying; None if there are none.

        Args:
            arrays: Arrays by name, those of others among them.
            metric: ``COSINE``, ``IP`` or ``L2``.
        """
        if "vectors" not in arrays:
            return None
        vectors = cls(arrays["vectors"].shape[1], metric)
        if len(arrays["vectors"]):
            vectors._array, vectors._codes = GrowableArray(arrays["vectors"]), GrowableArray(arrays["vector_codes"])
            vectors._centre = arrays["vector_centre"]
        return vectors

    @classmethod
    def over(cls, array: F32, metric: str) -> Vectors:
        """Wrap an array (n, d) of vectors without copying it; appending copies.

        Args:
            array: float32 (n, d): finite, and not to change.
            metric: ``COSINE``, ``IP`` or ``L2``.
        """
        vectors = cls(array.shape[1], metric)
        vectors._array = GrowableArray(np.ascontiguousarray(array, np.float32))
        vectors._describe(array)
        return vectors

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays to save, by name."""
        centre = np.zeros(self.dim, np.float32) if self._centre is None else self._centre
        return {"vectors": self.array, "vector_codes": self.codes, "vector_centre": centre}

    def __len__(self) -> int:
        return len(self.array)

    @property
    def array(self) -> F32:
        """float32 (n, d): the vectors."""
        array: F32 = self._array.array
        return array

    @array.setter
    def array(self, vectors: F32) -> None:
        self._array, self._codes = (GrowableArray(rows.array[:0]) for rows in (self._array, self._codes))
        self._centre = None
        self.add(vectors)

    @property
    def codes(self) -> U8:
        """uint8 (n, s): the rows of bytes, s a multiple of 64."""
        codes: U8 = self._codes.array
        return codes

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.array.nbytes + self.codes.nbytes)

    def add(self, vectors: F32) -> None:
        """Add vectors (m, d) behind those there are."""
        if len(vectors):
            self._array.add(vectors)
            self._describe(vectors)

    def _describe(self, vectors: F32) -> None:
        if self._centre is None:
            some = vectors[:: -(-len(vectors) // CENTRE_SAMPLE)]  # any centre will do, a good one makes finer codes
            self._centre = self._directions(some).mean(axis=0, dtype=np.float64).astype(np.float32)
        for start in range(0, len(vectors), ENCODE_ROWS):
            self._codes.add(self._encode(self._directions(vectors[start : start + ENCODE_ROWS]) - self._centre))

    def _directions(self, vectors: F32) -> F32:
        if self.metric != "COSINE":
            return vectors
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        scaled: F32 = np.divide(vectors, largest, out=np.zeros_like(vectors), where=largest > 0)
        norms = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
        np.divide(scaled, norms, out=scaled, where=norms > 0)
        return scaled

    def _encode(self, rest: F32) -> U8:
        sizes = np.abs(rest).max(axis=1, keepdims=True, initial=0) / np.float32(127)
        codes = np.zeros((len(rest), self._width), np.uint8)
        scaled = np.divide(rest, sizes, out=np.zeros_like(rest), where=sizes > 0)
        codes[:, : self.dim] = np.clip(np.rint(scaled, out=scaled), -127, 127, out=scaled) + 128
        norms = np.sqrt(np.einsum("ij,ij->i", rest, rest))
        about = codes[:, self._width - 4 * HEADER_FLOATS :].view(np.float32)
        about[:, 0], about[:, 2] = sizes[:, 0], norms
        if self.metric == "L2":
            about[:, 1] = norms * norms / 2
        return codes

    def best(self, query: F32, positions: npt.NDArray[Any], k: int) -> tuple[I64, F32]:
        """The k best rows at the given positions, best first; ties keep their order.

        Args:
            query: float32 (d,).
            positions: integers (c,).
            k: Number of rows.

        Returns:
            Positions int64 (min(k, c),) and exact scores float32 (min(k, c),), as Milvus reports them.
        """
        rows = np.asarray(positions, np.uint32)
        found, scores = np.empty(k, np.int64), np.empty(k, np.float32)
        count = self.rank(np.ascontiguousarray(query, np.float32), rows, found, scores)
        return found[:count], scores[:count]

    def rank(self, query: F32, rows: U32, positions: I64, scores: F32) -> int:
        """Write the best rows into given arrays; see `best`.

        Args:
            query: float32 (d,), contiguous.
            rows: uint32 (c,).
            positions: int64 (k,): the rows that were found.
            scores: float32 (k,): their scores.

        Returns:
            The number found, min(k, c).
        """
        centred = query - self._centre if self.metric == "L2" and self._centre is not None else query
        number: int = self._loops.rank(rows, self.array, self.codes, query, centred, self._number, positions, scores)
        return number


def check_vectors(held: Vectors | None, vectors: F32 | None, rows: int) -> None:
    """Raise a `DataError` unless new rows come with the vectors that the index needs."""
    if held is None:
        return
    if vectors is None or len(vectors) != rows:
        raise DataError("The index holds vectors: add as many vectors as rows.")
    if vectors.shape != (rows, held.dim):
        raise DataError(f"The vectors have the shape {vectors.shape}, and the index holds {held.dim} dimensions.")
