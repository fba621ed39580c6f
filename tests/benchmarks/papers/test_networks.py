"""Each network starts where it should, and seconds add up."""

from __future__ import annotations

import numpy as np
import torch

from alula_exporters.backbones import VectorBackbone
from alula_exporters.data import make_training_data
from alula_exporters.dense import BackboneConfig
from benchmarks.papers.networks import AS_LONG, DENSE, DENSE_PAPER, dense_networks


def test_the_start_goes_on_and_stays() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    rows = (generator.normal(size=(40, 8))[labels] + generator.normal(size=(400, 8))).astype(np.float32)
    untrained = VectorBackbone(torch.nn.Linear(8, 8), 8)
    before = untrained.network.weight.clone()
    data = make_training_data(rows, labels, label_vectors=np.eye(40), seed=0)
    first, none = BackboneConfig(epochs=2), BackboneConfig(epochs=1, learning_rate=1e-12)
    found = dense_networks(untrained, data, first, none, paper=untrained)
    assert list(found) == [DENSE, AS_LONG, DENSE_PAPER]
    weights = {name: network.backbone.network.weight for name, network in found.items()}
    assert torch.equal(untrained.network.weight, before)
    # with a rate of nothing the second is the first, from where it went on
    torch.testing.assert_close(weights[AS_LONG], weights[DENSE], rtol=0, atol=1e-6)
    assert not torch.allclose(weights[DENSE], before)
    assert not torch.allclose(weights[DENSE_PAPER], weights[DENSE])
    assert found[AS_LONG].seconds > found[DENSE].seconds
    assert list(dense_networks(untrained, data, none, none)) == [DENSE, AS_LONG]
