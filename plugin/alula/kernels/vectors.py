"""The rows' own vectors, held for exact scores, and beside them as bytes, which say what vectors need not be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.errors import DataError
from alula.kernels.loops import sparse_loops
from alula.kernels.topk import F32, I64, U8, U32

METRICS = {"COSINE": 0, "IP": 1, "L2": 2}
LINE = 64  # bytes of a cache line: a row of codes begins at one
ABOUT = 3  # float32 numbers behind each row's codes
CHUNK = 1 << 10  # rows that are turned into codes at once: few enough for the processor's cache
SAMPLE = 4096  # most rows whose mean is the centre


class Growing:
    """An array (n, ...) that rows are added to; its memory is doubled where it is full.

    Args:
        array: float32, uint8, ...: the rows there are; they are copied when the first are added.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._memory = array
        self.array = array

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Add rows (m, ...) behind those there are."""
        n = len(self.array)
        if n + len(rows) > len(self._memory) or not self._memory.flags.writeable:
            memory = np.empty((max(n + len(rows), 2 * n if n else 0), *rows.shape[1:]), self.array.dtype)
            memory[:n] = self.array
            self._memory = memory
        self._memory[n : n + len(rows)] = rows
        self.array = self._memory[: n + len(rows)]


class Vectors:
    """Vectors by position, and the best of some of them by their exact scores.

    Beside each vector stands a row of bytes: codes u of what is left of the vector (its direction for COSINE) after a
    centre is taken away, so that it is about size * (u - 128) with a size of the row's own, which is safe for vectors
    of any length and place; then, as float32, the size, half the squared norm (L2; otherwise 0), and the norm.

    Args:
        dim: Their dimension d.
        metric: ``COSINE``, ``IP`` or ``L2``.
    """

    def __init__(self, dim: int, metric: str) -> None:
        self.dim, self.metric = dim, metric
        self._number, self._loops = METRICS[metric], sparse_loops()
        self._width = -(-(dim + 4 * ABOUT) // LINE) * LINE
        self._array = Growing(np.empty((0, dim), np.float32))
        self._codes = Growing(np.empty((0, self._width), np.uint8))
        self._centre: F32 | None = None

    @classmethod
    def restore(cls, arrays: Mapping[str, npt.NDArray[Any]], metric: str) -> Vectors | None:
        """Vectors out of the `arrays` that were saved, without copying them; None if none were.

        Args:
            arrays: Arrays by name, those of others among them.
            metric: ``COSINE``, ``IP`` or ``L2``.
        """
        if "vectors" not in arrays:
            return None
        vectors = cls(arrays["vectors"].shape[1], metric)
        if len(arrays["vectors"]):
            vectors._array, vectors._codes = Growing(arrays["vectors"]), Growing(arrays["vector_codes"])
            vectors._centre = arrays["vector_centre"]
        return vectors

    @classmethod
    def over(cls, array: F32, metric: str) -> Vectors:
        """Vectors that lie in an array (n, d) already, which is not copied; more cannot be added without a copy.

        Args:
            array: float32 (n, d): finite, and not to change.
            metric: ``COSINE``, ``IP`` or ``L2``.
        """
        vectors = cls(array.shape[1], metric)
        vectors._array = Growing(np.ascontiguousarray(array, np.float32))
        vectors._describe(array)
        return vectors

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is to be saved, by name."""
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
        self._array, self._codes = (Growing(rows.array[:0]) for rows in (self._array, self._codes))
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
            some = vectors[:: -(-len(vectors) // SAMPLE)]  # any centre will do, a good one makes finer codes
            self._centre = self._directions(some).mean(axis=0, dtype=np.float64).astype(np.float32)
        for start in range(0, len(vectors), CHUNK):
            self._codes.add(self._encode(self._directions(vectors[start : start + CHUNK]) - self._centre))

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
        about = codes[:, self._width - 4 * ABOUT :].view(np.float32)
        about[:, 0], about[:, 2] = sizes[:, 0], norms
        if self.metric == "L2":
            about[:, 1] = norms * norms / 2
        return codes

    def best(self, query: F32, positions: npt.NDArray[Any], k: int) -> tuple[I64, F32]:
        """The k best of the rows at some positions, best first; of equal ones those that come first.

        Args:
            query: float32 (d,).
            positions: integers (c,).
            k: How many.

        Returns:
            Positions int64 (min(k, c),) and exact scores float32 (min(k, c),), as Milvus reports them.
        """
        rows = np.asarray(positions, np.uint32)
        found, scores = np.empty(k, np.int64), np.empty(k, np.float32)
        count = self.rank(np.ascontiguousarray(query, np.float32), rows, found, scores)
        return found[:count], scores[:count]

    def rank(self, query: F32, rows: U32, positions: I64, scores: F32) -> int:
        """`best` into arrays that are there, of which the positions' length says how many.

        Args:
            query: float32 (d,), contiguous.
            rows: uint32 (c,).
            positions: int64 (k,): the rows that were found.
            scores: float32 (k,): their scores.

        Returns:
            How many were found, min(k, c).
        """
        centred = query - self._centre if self.metric == "L2" and self._centre is not None else query
        number: int = self._loops.rank(rows, self.array, self.codes, query, centred, self._number, positions, scores)
        return number


def check_vectors(held: Vectors | None, vectors: F32 | None, rows: int) -> None:
    """Raise a `DataError` unless the vectors that come with rows can be added to those that an index holds, if any."""
    if held is None:
        return
    if vectors is None or len(vectors) != rows:
        raise DataError("The index holds vectors: add as many vectors as rows.")
    if vectors.shape != (rows, held.dim):
        raise DataError(f"The vectors have the shape {vectors.shape}, and the index holds {held.dim} dimensions.")
