"""The encodings of bfloat16 and sparse vectors in Milvus's protocol."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
SPARSE_PAIR = np.dtype([("dim", "<u4"), ("weight", "<f4")])  # one non-zero of a sparse vector


def from_bfloat16(halves: npt.NDArray[np.uint16]) -> F32:
    """Convert bfloat16 to float32: its bits are the upper half of a float32's."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: F32) -> npt.NDArray[np.uint16]:
    """Round finite float32 to bfloat16, ties to even; the bits as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


_HALF = np.finfo(np.float16)
TOO_LARGE = f"a number beyond {float(_HALF.max):,.0f}, the largest of a FLOAT16_VECTOR"
TOO_SMALL = f"no number as large as {float(_HALF.tiny):.8f}, below which a FLOAT16_VECTOR loses bits"


def unfit_for_half(vectors: F32) -> dict[int, str]:
    """Find vectors that float16 cannot hold to its relative precision of 1 / 2,048.

    A small number beside larger ones is rounded by little of the vector's length. A vector of small numbers alone is
    not: float16 keeps fewer bits of numbers below .00006, and none below .00000003.

    Args:
        vectors: float32 (n, d), finite.

    Returns:
        Reasons by row: what such a vector has. Zero vectors are exact.
    """
    if not vectors.size:
        return {}
    largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
    small = (largest > 0) & (largest < _HALF.tiny)
    return {
        int(row): TOO_LARGE if largest[row] > _HALF.max else TOO_SMALL
        for row in np.flatnonzero(small | (largest > _HALF.max))
    }


def sparse_rows(rows: Any) -> Iterator[bytes]:
    """Encode each row of a CSR matrix as `SPARSE_PAIR`s, in their order."""
    pairs = np.empty(rows.nnz, SPARSE_PAIR)
    pairs["dim"], pairs["weight"] = rows.indices, rows.data
    flat = pairs.tobytes()
    bounds = (SPARSE_PAIR.itemsize * rows.indptr).tolist()
    return (flat[a:b] for a, b in itertools.pairwise(bounds))


def sparse_row(weights: Mapping[int, float]) -> bytes:
    """Encode weights by dimension as `SPARSE_PAIR`s, in their order."""
    pairs = np.empty(len(weights), SPARSE_PAIR)
    pairs["dim"] = np.fromiter(weights.keys(), np.uint32, len(weights))
    pairs["weight"] = np.fromiter(weights.values(), np.float32, len(weights))
    return pairs.tobytes()
