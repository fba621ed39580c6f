"""Distillation of the exact similarities, for training without labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / temperature) || softmax(student)), averaged over anchors.

    Args:
        student: float32 (m, n), similarities of sparse rows times the learned scale.
        teacher: float32 (m, n), similarities in the user's metric.
        temperature: Smaller looks at nearer neighbours only.

    Returns:
        A scalar, in nats.
    """
    target = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(functional.log_softmax(student, dim=1), target, reduction="batchmean", log_target=True)
