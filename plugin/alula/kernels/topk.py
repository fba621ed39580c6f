"""The results of an in-process search, and its array types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alula.errors import DataError

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NO_MASK: Mask = np.empty(0, np.bool_)  # every row may be found


@dataclass(frozen=True)
class TopK:
    """The best rows for each query, best first.

    Args:
        positions: int64 (n, k): the rows' positions in the index; -1 behind the last where fewer than k were found.
        scores: float32 (n, k): their scores; undefined where the position is -1.
    """

    positions: I64
    scores: F32

    @classmethod
    def empty(cls, queries: int, k: int) -> TopK:
        """Results without rows, to be filled in."""
        return cls(np.full((queries, k), -1, np.int64), np.zeros((queries, k), np.float32))


def check_mask(valid: Mask, positions: int) -> None:
    """Raise a `DataError` unless a mask has one bool per position.

    Compiled code does not check array bounds.
    """
    if valid.shape != (positions,) or valid.dtype != np.bool_:
        raise DataError(
            f"The mask of valid rows is {valid.dtype} of the shape {valid.shape}, and the index has {positions} "
            "positions; give one bool for each, those of deleted rows too."
        )
