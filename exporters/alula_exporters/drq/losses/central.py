"""The joint central loss: what is trained softly must be what is stored (Song et al., IJCAI 2019)."""

from __future__ import annotations

from torch import Tensor


def joint_central_loss(soft: Tensor, hard: Tensor) -> Tensor:
    """mean_i |soft_i - hard_i|^2: pulls the soft and the hard reconstruction of a code together.

    Args:
        soft: float32 (n, d).
        hard: float32 (n, d).

    Returns:
        A scalar.
    """
    return (soft - hard).square().sum(1).mean()
