"""A small convolutional network for images; trains in a minute on two cores."""

from __future__ import annotations

from torch import nn

from alula_exporters.backbones.last import last_layer
from alula_exporters.choices import Dim


def small_cnn(channels: int, dim: Dim, width: int = 16) -> nn.Module:
    """Three blocks of convolution, batch norm, ReLU and pooling, then the last layer.

    The last layer takes the mean over positions.

    Args:
        channels: Channels of the images.
        dim: Length d of the vectors, or those of two joined layers.
        width: Channels of the first block; they double from block to block.

    Returns:
        Takes float32 (n, channels, h, w), h and w at least 8; gives float32 (n, d).
    """
    layers: list[nn.Module] = []
    for block in range(3):
        outputs = width << block
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last_layer(channels, dim))
