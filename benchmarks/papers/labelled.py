"""Fashion-MNIST split by a fixed seed, and the network of the labelled tables."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from alula.encoders import Metric
from alula_exporters import TrainingData, make_training_data
from alula_exporters.backbones import Backbone, image_backbone
from alula_exporters.choices import LabelLoss
from alula_exporters.dense import BackboneConfig, train_backbone
from alula_exporters.quality import label_quality, similarity
from benchmarks.fashion import load_fashion_mnist
from benchmarks.papers.datasets import F32, I64, SPLIT, unit
from benchmarks.report import say

DIM = 48  # 1, 2, 3 and 4 divide it: product quantisers cut vectors into so many parts
_TRAINED_ON = 5_000
_QUERIES = 1_000
_QUICK_ROWS = 10_000
_CHUNK = 250  # queries ranked at once, to bound memory


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures uint8 (n, 28, 28, 1) and their classes int64 (n,).

    Args:
        training: Training pictures with their classes.
        queries: Held out.
        rows: Searched pictures: neither queries nor training pictures, in random order.
    """

    training: tuple[npt.NDArray[np.uint8], I64]
    queries: tuple[npt.NDArray[np.uint8], I64]
    rows: tuple[npt.NDArray[np.uint8], I64]

    def data(self, seed: int) -> TrainingData:
        """The training pictures, a tenth of them held out."""
        return make_training_data(*self.training, seed=seed)


@cache
def load_pictures(quick: bool) -> Pictures:
    """5,000 training pictures, 1,000 queries, all others as rows (quick: 10,000)."""
    images, labels = load_fashion_mnist()
    order = np.random.default_rng(SPLIT).permutation(len(images))
    queries, training, rows = np.split(order, [_QUERIES, _QUERIES + _TRAINED_ON])
    if quick:
        rows = rows[:_QUICK_ROWS]
    return Pictures(*((images[part], labels[part]) for part in (training, queries, rows)))


@cache
def _network(quick: bool, seed: int, loss: LabelLoss) -> tuple[Backbone, float]:
    data = load_pictures(quick).data(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = image_backbone("cnn", data.train, dim=DIM)
    started = time.perf_counter()
    train_backbone(network, data, BackboneConfig(loss=loss, epochs=6 if quick else 16, batch=256, seed=seed))
    seconds = time.perf_counter() - started
    say(f"  the network, {loss}, seed {seed}: trained in {seconds:.0f} s")
    return network, seconds


def dense_network(quick: bool, seed: int, loss: LabelLoss = "contrastive") -> Backbone:
    """A copy of the network of a seed, trained once with labels and without any head."""
    return copy.deepcopy(_network(quick, seed, loss)[0])


def unit_vectors(network: Backbone, pictures: npt.NDArray[np.uint8]) -> F32:
    """The network's unit vectors of pictures, float32 (n, 48)."""
    return unit(network.embed(pictures))


def judge(pictures: Pictures, queries: F32, rows: F32, metric: Metric = "L2") -> tuple[float, float]:
    """Recall@1 and mean average precision over all rows, by equality of class.

    Args:
        pictures: For the classes.
        queries: float32 (q, d): vectors, reconstructions or sparse rows written out.
        rows: float32 (n, d).
        metric: The metric of the ranking.
    """
    row_labels, searched = torch.from_numpy(pictures.rows[1]), torch.from_numpy(rows)
    figures = []
    for start in range(0, len(queries), _CHUNK):
        part = slice(start, start + _CHUNK)
        scores = similarity(torch.from_numpy(queries[part]), searched, metric)
        found = label_quality(scores, torch.from_numpy(pictures.queries[1][part]), row_labels)
        figures.append((found["recall@1 by label"], found["mAP by label"]))
    first, average = np.mean(figures, axis=0)
    return float(first), float(average)
