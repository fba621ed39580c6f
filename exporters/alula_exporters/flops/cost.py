"""Search cost: FLOPs of a pair of rows, counted on data, and their lower bound."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def expected_flops(counts: Tensor, rows: int) -> float:
    """F = sum_j p_j^2: multiplications per pair of rows (Paria et al., ICLR 2020).

    p_j is the probability that dimension j is not zero. The plain estimate is too high by about nnz / n; this one,
    sum_j (n p_j^2 - p_j) / (n - 1), is unbiased: it is the mean over all pairs of *different* rows.

    Args:
        counts: (D,): in how many rows each dimension is not zero.
        rows: Number of counted rows, n >= 2.
    """
    counts = counts.double()
    return float((counts * (counts - 1)).sum() / (rows * (rows - 1)))


def flops_floor(dim: int, nnz: int) -> float:
    """The least F with ``nnz`` of ``dim`` dimensions per row: nnz^2 / dim."""
    return nnz * nnz / dim


def count_dims(weights: Tensor, dims: Tensor, dim: int) -> Tensor:
    """In how many rows each dimension is not zero, int64 (D,).

    Args:
        weights: float32 (n, k).
        dims: int64 (n, k).
        dim: Number of sparse dimensions D.
    """
    return torch.bincount(dims[weights > 0], minlength=dim)


class Spread:
    """Distribution of a training run's non-zeros over the dimensions.

    Args:
        dim: Number of sparse dimensions D.
    """

    MEMORY = 50  # batches without use, after which a dimension counts as dead

    def __init__(self, dim: int) -> None:
        self._used = torch.zeros(dim, dtype=torch.int64)  # the last batch that used each dimension
        self._batches = 0

    def figures(self, counts: Tensor, rows: int) -> dict[str, float]:
        """Mean non-zeros, R_sub = F D / nnz^2 (1: all used alike), dead dimensions.

        Args:
            counts: int64 (D,): in how many rows of the batch each dimension is not zero.
            rows: Rows of the batch.
        """
        self._batches += 1
        self._used[counts > 0] = self._batches
        nnz = float(counts.sum()) / rows
        return {
            "non-zeros": nnz,
            "R_sub": expected_flops(counts, rows) * len(counts) / nnz**2,
            "dead dimensions": float((self._used <= self._batches - self.MEMORY).sum()),
        }

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"used": self._used, "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """For a checkpoint."""
        self._used, self._batches = state["used"], state["batches"]
