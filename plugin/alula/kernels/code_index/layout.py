"""Memory layout and result order of the scans in `loops_numba` and `loops_numpy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.kernels.topk import F32, U8, U16, U32

U64 = npt.NDArray[np.uint64]

CODE_BLOCK = 128  # rows stored together, level by level; a multiple of 64, the bytes of the widest register
LOWEST = np.uint64(0xFFFFFFFF)  # the bits of a key with the position


@dataclass(frozen=True)
class CodeRows:
    """Codes as the scans read them: in slots, `CODE_BLOCK` slots to a block.

    One register loads the same level of 64 neighbouring rows::

        codes   |<------------------- block 0 ------------------->|<- block 1 ...
                |  level 0: 128 rows  |  level 1: 128 rows  | ... |
        norms   |<------- 128 rows ------->|<- block 1 ...
        slot    = 128 * block + row within the block

    Args:
        codes: uint8 (b, M, CODE_BLOCK): a block's first levels, then its second levels and so on.
        norms: uint16 (b, CODE_BLOCK), bits of float16: norms of the searched prefix; zeros (1, CODE_BLOCK) for IP.
        positions: uint32 (n,): the position of the row in each slot; empty where they are the same.
    """

    codes: U8
    norms: U16
    positions: U32


def ordered_keys(scores: F32, positions: npt.NDArray[Any], *, larger: bool) -> U64:
    """Compute keys, uint64 (n,), larger for better rows.

    A key orders by score, then by the lower position; NaN comes last.
    """
    upward = (scores if larger else -scores) + np.float32(0)  # -0 becomes 0
    bits = upward.view(np.uint32)
    bits = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    bits[np.isnan(scores)] = 0
    keys: U64 = (bits.astype(np.uint64) << np.uint64(32)) | (LOWEST - positions.astype(np.uint64))
    return keys


def best_keys(keys: U64, wanted: int) -> U64:
    """Select the largest keys in falling order."""
    if wanted < len(keys):
        keys = np.partition(keys, len(keys) - wanted)[len(keys) - wanted :]
    ordered: U64 = np.sort(keys)[::-1]
    return ordered


def key_positions(keys: U64) -> U32:
    """Extract the positions of keys: uint32 (n,)."""
    positions: U32 = ~keys.astype(np.uint32)
    return positions


def key_scores(keys: U64, *, larger: bool) -> F32:
    """Extract the scores of keys: float32 (n,)."""
    bits = (keys >> np.uint64(32)).astype(np.uint32)
    scores: F32 = np.where(bits >> 31, bits & np.uint32((1 << 31) - 1), ~bits).view(np.float32)
    return scores if larger else -scores + np.float32(0)
