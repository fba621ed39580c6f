"""ArcFace: softmax with a margin on the angle (Deng et al., CVPR 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEAST_SINE_SQUARED = 1e-7  # the root's gradient must stay finite where a row lies on its class's direction


class ArcFaceLoss(nn.Module):
    """mean_i -log softmax_y(s cos(theta_ij + m [j = y_i]))[y_i].

    theta_ij is the angle of row i and class weight j.

    The paper's equation 3. cos(theta + m) is cos theta cos m - sin theta sin m, so no arc cosine is taken. It would
    rise again for theta > pi - m; there cos theta - 1 + cos m stands in, which goes on falling without a jump.

    Args:
        classes: Number of classes C.
        dim: Length D of an embedding.
        scale: s; the default is the paper's.
        margin: m, in radians; the default is the paper's.

    Attributes:
        weight: float32 (C, D): a direction for each class; lengths do not matter.
    """

    def __init__(self, classes: int, dim: int, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.randn(classes, dim))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float32 (n, D), rows of unit length.
            labels: int64 (n,), from 0 to C - 1.
        """
        cosines = embeddings @ functional.normalize(self.weight, dim=1).T
        own = cosines.gather(1, labels[:, None])
        sines = (1 - own.square()).clamp_min(_LEAST_SINE_SQUARED).sqrt()
        cos_margin, sin_margin = math.cos(self.margin), math.sin(self.margin)
        moved = torch.where(own > -cos_margin, own * cos_margin - sines * sin_margin, own - 1 + cos_margin)
        return functional.cross_entropy(self.scale * cosines.scatter(1, labels[:, None], moved), labels)
