"""The image backbones by name, fitted to the images that they will see."""

from __future__ import annotations

import numpy as np
from torch import nn

from alula.errors import DataError, UsageError
from alula_exporters.backbones.base import ImageBackbone
from alula_exporters.backbones.cnn import small_cnn
from alula_exporters.backbones.resnet import small_resnet
from alula_exporters.choices import IMAGE_DIM, Dim
from alula_exporters.data import Inputs

_NETWORKS = {"cnn": small_cnn, "resnet": small_resnet}
_SAMPLE = 4_096
_SMALLEST = 8  # three poolings by two


def image_backbone(name: str, images: Inputs, dim: Dim = IMAGE_DIM) -> ImageBackbone:
    """An untrained network for images like these.

    Args:
        name: ``cnn`` or ``resnet``.
        images: uint8 (n, h, w, c): their size, and the mean and deviation of a sample's pixels, are built in.
        dim: Length d of the vectors, or those of two joined layers; see `JoinedLayers`.

    Raises:
        UsageError: If there is no such network.
        DataError: If these are no images, or too small.
    """
    if name not in _NETWORKS:
        raise UsageError(f"There is no image backbone {name!r}; there are {' and '.join(_NETWORKS)}.")
    if images.dtype != np.uint8 or images.ndim != 4 or min(images.shape[1:3]) < _SMALLEST:
        raise DataError(
            f"The training rows are {images.dtype} {images.shape}; the backbone {name!r} takes images, uint8 (rows, "
            f"height, width, channels) of at least {_SMALLEST} x {_SMALLEST} pixels."
        )
    height, width, channels = images.shape[1:]
    sample = images[:: 1 + len(images) // _SAMPLE].reshape(-1, channels) / 255
    deviation = np.maximum(sample.std(axis=0), 1e-3)  # of a constant channel too
    network: nn.Module = _NETWORKS[name](channels, dim)
    return ImageBackbone(network, (height, width, channels), sample.mean(axis=0).tolist(), deviation.tolist())
