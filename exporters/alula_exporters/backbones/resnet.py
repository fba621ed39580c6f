"""A residual network for small images (He et al., CVPR 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from alula_exporters.backbones.last import last_layer
from alula_exporters.choices import Dim


class ResidualBlock(nn.Module):
    """y = ReLU(F(x) + shortcut(x)), two 3x3 convolutions in F (He et al., figure 2).

    Args:
        inputs: Channels of x.
        outputs: Channels of y.
        stride: Of the first convolution; 2 halves height and width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """float32 (n, inputs, h, w) to float32 (n, outputs, h / stride, w / stride)."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def small_resnet(channels: int, dim: Dim, width: int = 16, blocks: int = 2) -> nn.Module:
    """The paper's network for small images (section 4.2).

    Three groups of residual blocks, then the last layer.

    Args:
        channels: Channels of the images.
        dim: Length d of the vectors, or those of two joined layers.
        width: Channels of the first group; they double from group to group.
        blocks: Residual blocks in a group; the network has 6 blocks + 2 layers.

    Returns:
        Takes float32 (n, channels, h, w), gives float32 (n, d).
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for group in range(3):
        outputs = width << group
        for block in range(blocks):
            layers.append(ResidualBlock(inputs, outputs, 2 if group and not block else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last_layer(inputs, dim))
