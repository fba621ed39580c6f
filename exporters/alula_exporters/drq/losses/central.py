"""The joint central loss: what is trained softly must be what is stored (Song et al., IJCAI 2019)."""

from __future__ import annotations

from torch import Tensor


def joint_central_loss(soft: Tensor, hard: Tensor) -> Tensor:
    """sum_t mean_i |soft_{i,t} - hard_{i,t}|^2: pulls soft and hard reconstructions of every prefix together.

    Args:
        soft: float32 (n, M, d).
        hard: float32 (n, M, d).

    Returns:
        A scalar.
    """
    return (soft - hard).square().sum(2).mean(0).sum()
