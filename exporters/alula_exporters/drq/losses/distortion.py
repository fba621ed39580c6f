"""The distortion of every prefix, which makes every prefix a good code."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def prefix_distortions(prepared: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """Mean squared error of each prefix, E_t = mean_i |x_i - x_hat_{i,t}|^2.

    With their sum over t as the loss (as in Song et al., IJCAI 2019) each level is trained for all code lengths that it
    takes part in.

    Args:
        prepared: float32 (n, d).
        parts: M tensors, float32 (n, d), hard or soft: level t adds the t-th to x_hat_t.

    Returns:
        float32 (M,).
    """
    residual, distortions = prepared, []
    for part in parts:
        residual = residual - part
        distortions.append(residual.flatten().dot(residual.flatten()) / len(residual))
    return torch.stack(distortions)
