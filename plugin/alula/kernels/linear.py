"""Sparse queries by a linear encoder, in bytes: what onnxruntime needs longer for than a search in this process."""

from __future__ import annotations

import numpy as np

from alula.kernels.compiled import sparse_loops
from alula.kernels.found import F32, I64
from alula.kernels.vectors import LINE

PADDING = 256  # outputs are read in steps of so many


class LinearQueries:
    """The queries max(top-k(W x' + b), 0), where x' is x / |x| or x / scale.

    W and x' are rounded to bytes, each row of W in steps of its own: of dimensions with nearly equal outputs another
    one may be kept than by floats, and weights differ by about 1 %. That finds the same candidates as far as recall can
    tell; scores that are handed out must not be computed from such weights.

    Args:
        weight: float32 (D, d): W.
        bias: float32 (D,): b.
        nnz: k.
        floor: The weight of the largest output where none is larger.
        scale: What vectors are divided by; None for their own length.
    """

    def __init__(self, weight: F32, bias: F32, *, nnz: int, floor: float, scale: float | None) -> None:
        outputs, dim = weight.shape
        steps = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
        self._head = np.full((outputs, -(-dim // LINE) * LINE), 128, np.uint8)
        scaled = np.divide(weight, steps, out=np.zeros_like(weight), where=steps > 0)
        self._head[:, :dim] = np.rint(scaled) + 128
        self._fixed = (self._head, steps[:, 0].copy(), np.ascontiguousarray(bias), scale or 0.0, floor, nnz)
        self._rooms: list[_Room] = []

    def encode(self, vector: F32) -> tuple[I64, F32]:
        """The dimensions int64 (t,), rising, and the weights float32 (t,) of a query, up to a factor.

        Args:
            vector: float32 (d,), contiguous.
        """
        room = self._rooms.pop() if self._rooms else _Room(len(self._head))
        nnz = self._fixed[-1]
        dims, weights = np.empty(nnz, np.int64), np.empty(nnz, np.float32)
        size = sparse_loops().encode(
            vector, *self._fixed, room.outputs, room.maxima, room.found, room.keys, dims, weights
        )
        self._rooms.append(room)
        return dims[:size], weights[:size]

    def of(self, vectors: F32) -> EncodedQueries:
        """Queries of vectors, float32 (n, d), each encoded when it is asked for."""
        return EncodedQueries(self, np.ascontiguousarray(vectors, np.float32))


class EncodedQueries:
    """Queries for `InvertedIndex.search`."""

    def __init__(self, encoder: LinearQueries, vectors: F32) -> None:
        self._encoder, self._vectors = encoder, vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, i: int) -> tuple[I64, F32]:
        return self._encoder.encode(self._vectors[i])


class _Room:
    def __init__(self, outputs: int) -> None:
        padded = -(-outputs // PADDING) * PADDING
        self.outputs = np.zeros(padded, np.float32)
        self.maxima, self.keys = np.empty(padded + PADDING, np.uint32), np.empty(padded + PADDING, np.uint32)
        self.found = np.empty(padded, np.uint32)
