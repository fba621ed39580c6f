"""The joint central loss of soft and hard codes (Song et al., IJCAI 2019)."""

from __future__ import annotations

from torch import Tensor


def joint_central_loss(soft: Tensor, hard: Tensor) -> Tensor:
    """mean_i |soft_i - hard_i|^2: pulls soft and hard reconstructions together.

    Args:
        soft: float32 (n, d).
        hard: float32 (n, d).

    Returns:
        A scalar.
    """
    return (soft - hard).square().sum(1).mean()
