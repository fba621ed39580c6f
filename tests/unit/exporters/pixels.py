"""A small image backbone, and images for it."""

from __future__ import annotations

import numpy as np
import torch

from alula_exporters.backbones import Backbone

DIM = 24
ABOUT = {"input": "images", "image_shape": (6, 6, 1)}


class Pixels(Backbone):
    """Images to vectors: a convolution, a layer and a norm."""

    contract = ABOUT

    def collate(self, inputs):
        return (torch.from_numpy(inputs),)

    def _example(self):
        return {"images": torch.from_numpy(images(3))}

    def __init__(self):
        super().__init__()
        self.conv, self.layer = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(64, DIM)
        self.norm = torch.nn.BatchNorm1d(DIM)

    def forward(self, images):
        pixels = images.permute(0, 3, 1, 2).float() / 255
        return self.norm(self.layer(self.conv(pixels).relu().flatten(1)))


def images(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 6, 6, 1), dtype=np.uint8)


@torch.no_grad()
def embedded(module, rows):
    return module.eval()(torch.from_numpy(rows)).numpy()
