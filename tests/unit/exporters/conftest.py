"""Small clustered vectors and small encoders trained on them, made once."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from alula_exporters.backbones.onnx import export_backbone
from alula_exporters.data import make_training_data
from alula_exporters.drq import DrqConfig, train_drq
from alula_exporters.flops import FlopsConfig, train_flops
from tests.tiny_text_models import save_models

from .pixels import ABOUT, Pixels, images

# small matrices: a second thread only waits, and on a busy machine it waits long
torch.set_num_threads(1)

# torch's table of a thousand operators, which every export makes anew and none changes
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))

SMALL_FLOPS = {"dim": 256, "nnz": 8, "flops": 0.3, "steps": 120, "anchors": 32, "batch": 256}
SMALL_DRQ = {"levels": 6, "sign_bits": 64, "epochs": 2, "batch": 256, "beam": 3}


def clustered(rows=3000, dim=24, seed=1):
    """Rows around 40 centres off the origin, of lengths between 1 and 5."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, dim)) + 0.5
    points = centres[rng.integers(40, size=rows)] + 0.6 * rng.standard_normal((rows, dim))
    return (points * rng.uniform(0.2, 1.0, (rows, 1))).astype(np.float32)


@pytest.fixture(scope="session")
def vectors():
    return clustered()


@pytest.fixture(scope="session")
def data(vectors):
    return make_training_data(vectors)


@pytest.fixture(scope="session", params=["COSINE", "IP", "L2"])
def metric(request):
    return request.param


@pytest.fixture(scope="session")
def trained_flops(data, metric):
    return train_flops(data, FlopsConfig(metric=metric, **SMALL_FLOPS))


@pytest.fixture(scope="session")
def trained_drq(data, metric):
    return train_drq(data, DrqConfig(metric=metric, **SMALL_DRQ))


@pytest.fixture(scope="session")
def text_models(tmp_path_factory):
    """A folder with the folders of tiny sentence-transformers models: splade, csr, dense."""
    folder = tmp_path_factory.mktemp("text_models")
    save_models(folder)
    return folder


@pytest.fixture(scope="session")
def pixels():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Pixels()
        module(torch.from_numpy(images(50)))  # the norm learns a mean that is not 0
        return module


@pytest.fixture(scope="session")
def exported_pixels(pixels):
    """The backbone, and what its export left of the module: whether it trains, and how many batches its norm saw."""
    pixels.train()
    front = export_backbone(pixels, {"images": torch.from_numpy(images(3))}, about=ABOUT)
    return front, pixels.training, pixels.norm.num_batches_tracked.item()


@pytest.fixture(scope="session")
def front(exported_pixels):
    return exported_pixels[0]
