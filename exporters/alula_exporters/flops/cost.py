"""What a search costs: FLOPs of a pair of rows, counted on data, and the least they can be."""

from __future__ import annotations

import torch
from torch import Tensor


def expected_flops(counts: Tensor, rows: int) -> float:
    """F = sum_j p_j^2: multiplications that a pair of rows costs (Paria et al., ICLR 2020).

    p_j is the probability that dimension j is not zero. The plain estimate is too high by about nnz / n; this one,
    sum_j (n p_j^2 - p_j) / (n - 1), is unbiased: it is the mean over all pairs of *different* rows.

    Args:
        counts: (D,): in how many rows each dimension is not zero.
        rows: How many rows were counted, n >= 2.
    """
    counts = counts.double()
    return float((counts * (counts - 1)).sum() / (rows * (rows - 1)))


def flops_floor(dim: int, nnz: int) -> float:
    """The least F of an encoder that always keeps ``nnz`` of ``dim`` dimensions: nnz^2 / dim, all used alike."""
    return nnz * nnz / dim


def count_dims(weights: Tensor, dims: Tensor, dim: int) -> Tensor:
    """In how many rows each dimension is not zero, int64 (D,).

    Args:
        weights: float32 (n, k).
        dims: int64 (n, k).
        dim: Number of sparse dimensions D.
    """
    return torch.bincount(dims[weights > 0], minlength=dim)
