"""The last layers of image networks: one, or two whose outputs are joined."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alula_exporters.choices import Dim


class JoinedLayers(nn.Module):
    """DRQ's features: (A x, B tanh(A x)), both before activation.

    Two layers side by side (Song et al., IJCAI 2019): the second alone would know little but the labels.

    Args:
        inputs: Length of x.
        first: Rows of A.
        second: Rows of B.
    """

    def __init__(self, inputs: int, first: int, second: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, first)
        self.second = nn.Linear(first, second)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (n, inputs) to float32 (n, first + second)."""
        first = self.first(x)
        return torch.cat([first, self.second(first.tanh())], dim=1)


def last_layer(inputs: int, dim: Dim) -> nn.Module:
    """One linear layer, or `JoinedLayers` for a pair of lengths."""
    return nn.Linear(inputs, dim) if isinstance(dim, int) else JoinedLayers(inputs, *dim)
