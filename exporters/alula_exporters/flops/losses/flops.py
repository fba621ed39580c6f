"""The FLOPs regulariser: spreads sparse rows (Paria et al., ICLR 2020)."""

from __future__ import annotations

from torch import Tensor


def flops_regulariser(rows: Tensor) -> Tensor:
    """sum_j (mean_i |a_ij|)^2, a smooth proxy of the expected FLOPs (ICLR 2020).

    Args:
        rows: float32 (n, D), rows of unit length.

    Returns:
        A scalar.
    """
    return rows.abs().mean(0).square().sum()
