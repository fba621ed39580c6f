"""The distortion of every prefix, which makes every prefix a good code."""

from __future__ import annotations

from torch import Tensor


def prefix_distortions(prepared: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean squared error of each prefix, E_t = mean_i |x_i - x_hat_{i,t}|^2.

    With their sum over t as the loss (as in Song et al., IJCAI 2019) each level is trained for all code lengths that it
    takes part in.

    Args:
        prepared: float32 (n, d).
        reconstructions: float32 (n, M, d), hard or soft.

    Returns:
        float32 (M,).
    """
    return (prepared[:, None, :] - reconstructions).square().sum(2).mean(0)
