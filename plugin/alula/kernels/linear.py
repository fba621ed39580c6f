"""Encode sparse queries with a linear encoder whose weights are rounded to bytes.

Onnxruntime takes longer for the encoding than an in-process search takes for the rest.
"""

from __future__ import annotations

import numpy as np

from alula.kernels.constants import CACHE_LINE
from alula.kernels.loops import sparse_loops
from alula.kernels.topk import F32, I64, U8

REDUCE_FROM = 256  # dimensions from which vectors are projected first ...
REDUCED_DIM = 128  # ... to this many dimensions ...
REFINE_FACTOR = 3  # ... and this multiple of the wanted outputs is then computed in full
PADDING = 256  # outputs that the loops read at once


class LinearQueries:
    """Compute max(top-k(W x' + b), 0), where x' is x / |x| or x / scale.

    W and x' are rounded to bytes, each row of W in steps of its own: of dimensions with nearly equal outputs another
    one may be kept than by floats, and weights differ by about 1 %. The recall is the same; scores for users must not
    be computed from such weights.

    Args:
        weight: float32 (D, d): W.
        bias: float32 (D,): b.
        nnz: k.
        floor: The weight of the largest output where none is larger.
        scale: Divisor of vectors; None for their own length.
    """

    def __init__(self, weight: F32, bias: F32, *, nnz: int, floor: float, scale: float | None) -> None:
        outputs, dim = weight.shape
        head, basis = _rounded(weight), weight[:0]
        if dim >= REDUCE_FROM:
            # most outputs are far from the largest, and few directions decide which; rotated at random, because
            # bytes suit entries of similar size
            turn = np.linalg.qr(np.random.default_rng(0).standard_normal((REDUCED_DIM, REDUCED_DIM)))[0]
            basis = (turn @ np.linalg.eigh(weight.T @ weight)[1].T[-REDUCED_DIM:]).astype(np.float32)
        short = _rounded(weight @ basis.T)
        arrays = (*head, *_rounded(basis), *short, np.ascontiguousarray(bias))
        self._fixed = (*arrays, scale or 0.0, floor, nnz, min(REFINE_FACTOR * nnz, outputs))
        self._outputs = outputs
        self._nnz = nnz
        self._workspaces: list[_EncodeWorkspace] = []

    def encode(self, vector: F32) -> tuple[I64, F32]:
        """Encode a query, up to a factor common to all weights.

        Returns:
            Dimensions int64 (t,), rising, and weights float32 (t,).

        Args:
            vector: float32 (d,), contiguous.
        """
        workspace = self._workspaces.pop() if self._workspaces else _EncodeWorkspace(self._outputs)
        dims, weights = np.empty(self._nnz, np.int64), np.empty(self._nnz, np.float32)
        size = sparse_loops().encode(vector, *self._fixed, *workspace.arrays, dims, weights)
        self._workspaces.append(workspace)
        return dims[:size], weights[:size]

    def of(self, vectors: F32) -> EncodedQueries:
        """Queries of vectors, float32 (n, d), each encoded on access."""
        return EncodedQueries(self, np.ascontiguousarray(vectors, np.float32))


def _rounded(rows: F32) -> tuple[U8, F32]:
    """Round rows to codes, uint8 (n, s) plus 128, and their steps, float32 (n,).

    The stride s is a multiple of 64.
    """
    steps = np.abs(rows).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    codes = np.full((len(rows), max(1, -(-rows.shape[1] // CACHE_LINE)) * CACHE_LINE), 128, np.uint8)
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


class _EncodeWorkspace:
    def __init__(self, outputs: int) -> None:
        padded = -(-outputs // PADDING) * PADDING
        maxima, found, keys = (np.empty(size, np.uint32) for size in (padded, padded + CACHE_LINE, padded + CACHE_LINE))
        self.arrays = (np.empty(0, np.bool_), np.zeros(padded + CACHE_LINE, np.float32), maxima, found, keys)
