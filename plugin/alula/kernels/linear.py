"""Sparse queries by a linear encoder, in bytes: what onnxruntime needs longer for than a search in this process."""

from __future__ import annotations

import numpy as np

from alula.kernels.loops import sparse_loops
from alula.kernels.topk import F32, I64, U8
from alula.kernels.vectors import LINE

LONG = 256  # vectors of so many dimensions are shortened first ...
SHORT = 128  # ... to so many ...
MOST = 3  # ... and so many times as many outputs as are wanted are then computed in full
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
        head, basis = _rounded(weight), weight[:0]
        if dim >= LONG:
            # most outputs are far from the largest, and few directions tell which; turned at random, because bytes
            # want numbers of one size
            turn = np.linalg.qr(np.random.default_rng(0).standard_normal((SHORT, SHORT)))[0]
            basis = (turn @ np.linalg.eigh(weight.T @ weight)[1].T[-SHORT:]).astype(np.float32)
        short = _rounded(weight @ basis.T)
        arrays = (*head, *_rounded(basis), *short, np.ascontiguousarray(bias))
        self._fixed = (*arrays, scale or 0.0, floor, nnz, min(MOST * nnz, outputs))
        self._outputs = outputs
        self._nnz = nnz
        self._rooms: list[_Room] = []

    def encode(self, vector: F32) -> tuple[I64, F32]:
        """The dimensions int64 (t,), rising, and the weights float32 (t,) of a query, up to a factor.

        Args:
            vector: float32 (d,), contiguous.
        """
        room = self._rooms.pop() if self._rooms else _Room(self._outputs)
        dims, weights = np.empty(self._nnz, np.int64), np.empty(self._nnz, np.float32)
        size = sparse_loops().encode(vector, *self._fixed, *room.arrays, dims, weights)
        self._rooms.append(room)
        return dims[:size], weights[:size]

    def of(self, vectors: F32) -> EncodedQueries:
        """Queries of vectors, float32 (n, d), each encoded when it is asked for."""
        return EncodedQueries(self, np.ascontiguousarray(vectors, np.float32))


def _rounded(rows: F32) -> tuple[U8, F32]:
    """Rows as codes, uint8 (n, s), 128 more than they mean and s a multiple of 64, and their steps, float32 (n,)."""
    steps = np.abs(rows).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    codes = np.full((len(rows), max(1, -(-rows.shape[1] // LINE)) * LINE), 128, np.uint8)
    scaled = np.divide(rows, steps, out=np.zeros_like(rows), where=steps > 0)
    codes[:, : rows.shape[1]] = np.rint(scaled) + 128
    return codes, steps[:, 0].copy()


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
        maxima, found, keys = (np.empty(size, np.uint32) for size in (padded, padded + LINE, padded + LINE))
        self.arrays = (np.empty(0, np.bool_), np.zeros(padded + LINE, np.float32), maxima, found, keys)
