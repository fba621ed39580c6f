"""Dense networks that codes and sparse rows start from, with their seconds."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace

from alula_exporters import TrainingData
from alula_exporters.backbones import Backbone
from alula_exporters.dense import BackboneConfig, train_backbone

DENSE, AS_LONG, DENSE_PAPER = "dense", "dense, as long", "dense, adaptive margin"


@dataclass(frozen=True)
class Network:
    """A trained network, and the seconds that it took."""

    backbone: Backbone
    seconds: float


def dense_networks(
    untrained: Backbone,
    data: TrainingData,
    first: BackboneConfig,
    more: BackboneConfig,
    *,
    paper: Backbone | None = None,
) -> dict[str, Network]:
    """The network that all start from, the same trained on, and the DRQ paper's.

    Args:
        untrained: Their initial weights.
        data: Rows with labels and label vectors.
        first: Of the training from nothing.
        more: Of the training that goes on, for as long as others learn codes or sparse rows.
        paper: The DRQ paper's, with its initial weights; None without it.
    """
    nothing = Network(untrained, 0.0)
    start = train_network(nothing, data, first)
    networks = {DENSE: start, AS_LONG: train_network(start, data, more)}
    if paper is not None:
        networks[DENSE_PAPER] = train_network(Network(paper, 0.0), data, replace(first, loss="adaptive-margin"))
    return networks


def train_network(start: Network, data: TrainingData, config: BackboneConfig) -> Network:
    """A copy of a network that goes on training."""
    backbone = copy.deepcopy(start.backbone)
    started = time.perf_counter()
    train_backbone(backbone, data, config)
    return Network(backbone, start.seconds + time.perf_counter() - started)
