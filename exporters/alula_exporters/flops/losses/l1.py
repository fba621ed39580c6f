"""The L1 regulariser, the baseline of Paria et al. (ICLR 2020)."""

from __future__ import annotations

from torch import Tensor


def l1_regulariser(rows: Tensor) -> Tensor:
    """mean_i sum_j |a_ij|: makes rows sparse, but does not spread them.

    At the same number of non-zeros a few dimensions may then hold most of the rows, and search costs more.

    Args:
        rows: float32 (n, D), rows of unit length.

    Returns:
        A scalar.
    """
    return rows.abs().sum(1).mean()
