"""Distillation of a teacher's margins (MarginMSE; Hofstaetter et al., 2010.02666)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def margin_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of margins: a better document's score less a worse one's.

    Args:
        student: float32 (m,), margins of the model in training.
        teacher: float32 (m,), margins of the teacher on the same documents, in the same unit.

    Returns:
        A scalar.
    """
    return functional.mse_loss(student, teacher)
