"""The two losses of a sparse encoder (distillation, FLOPs) and the FLOPs that are promised to the user."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def flops_regulariser(rows: Tensor) -> Tensor:
    """sum_j (mean_i |a_ij|)^2, the smooth stand-in for the expected FLOPs (Paria et al., ICLR 2020, equation 5).

    Args:
        rows: float32 (n, D), rows of unit length.

    Returns:
        A scalar.
    """
    return rows.abs().mean(0).square().sum()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / temperature) || softmax(student)), averaged over anchors; no labels are needed.

    Args:
        student: float32 (m, n), similarities of sparse rows times the learned scale.
        teacher: float32 (m, n), similarities in the user's metric.
        temperature: Smaller looks at nearer neighbours only.

    Returns:
        A scalar, in nats.
    """
    target = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(functional.log_softmax(student, dim=1), target, reduction="batchmean", log_target=True)


def expected_flops(counts: Tensor, rows: int) -> float:
    """F = sum_j p_j^2: multiplications that a pair of rows costs (Paria et al., ICLR 2020, section 3).

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


class FlopsController:
    """Sets the regulariser's weight so that F ends at what was asked for (a closed loop on log lambda).

    The target moves geometrically from the first F that was seen to the budget over the first half of training.
    A proportional and an integral term act on the log ratio of a running mean of F to that target.

    Args:
        budget: The F to end at.
        steps: Steps of the whole run.
        start: lambda at the first step.
    """

    PROPORTIONAL = 0.5
    INTEGRAL = 64.0  # divided by the number of steps, so that a short run reaches as far as a long one
    MEMORY = 0.9
    LIMIT = 12.0  # |log lambda|: keeps the integral from winding up while the budget is out of reach

    def __init__(self, budget: float, steps: int, start: float = 1.0) -> None:
        self._budget = budget
        self._ramp = max(1, steps // 2)
        self._gain = self.INTEGRAL / steps
        self._integral = math.log(start)
        self._first: float | None = None
        self.mean = math.nan
        self._step = 0

    def weight(self, flops: float) -> float:
        """Take F of the current batch, return lambda for it.

        Args:
            flops: The unbiased F of this step's rows.
        """
        flops = max(flops, 1e-9)
        if self._first is None:
            self._first = self.mean = flops
        self.mean = self.MEMORY * self.mean + (1 - self.MEMORY) * flops
        progress = min(1.0, self._step / self._ramp)
        target = math.exp((1 - progress) * math.log(self._first) + progress * math.log(self._budget))
        self._step += 1
        error = math.log(self.mean / target)
        self._integral = min(self.LIMIT, max(-self.LIMIT, self._integral + self._gain * error))
        return math.exp(min(self.LIMIT, max(-self.LIMIT, self._integral + self.PROPORTIONAL * error)))


def count_dims(weights: Tensor, dims: Tensor, dim: int) -> Tensor:
    """In how many rows each dimension is not zero, int64 (D,).

    Args:
        weights: float32 (n, k).
        dims: int64 (n, k).
        dim: Number of sparse dimensions D.
    """
    return torch.bincount(dims[weights > 0], minlength=dim)
