"""Codes rank as what they stand for does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters import DrqConfig
from alula_exporters.backbones import VectorBackbone
from benchmarks.papers.datasets import unit
from benchmarks.papers.networks import Network
from benchmarks.papers.quantisers import QUANTISERS, train_codes
from benchmarks.papers.unseen import Classes


@pytest.mark.parametrize("name", ["PQ", "OPQ"])
@pytest.mark.parametrize("level", [2, 3])
def test_as_many_codewords_as_rows_rank_by_l2(name: str, level: int) -> None:
    generator = np.random.default_rng(0)
    rows, queries = (generator.normal(size=(n, 8)).astype(np.float32) for n in (256, 20))
    code, numbers = QUANTISERS[name](rows, level)
    given, stored = code(queries, rows)
    distances = np.square(queries[:, None] - rows).sum(2)
    scores = given @ stored.T
    np.testing.assert_allclose(
        scores, 0.5 * (np.square(queries).sum(1, keepdims=True) - distances), rtol=1e-3, atol=1e-3
    )
    filled = -(-8 // level) * level
    assert numbers == {"PQ": 256 * 8, "OPQ": 256 * filled + 8 * filled}[name]


def test_signs_are_weighed_by_the_query() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 16)).astype(np.float32)
    code, _ = QUANTISERS["ITQ signs"](rows, 2)
    # the rows as queries: the components whose signs are stored, of a rotation of the directions from the mean
    components, signs = code(rows, rows)
    assert (signs == np.where(components > 0, 1, -1)).all()
    directions = unit(rows - rows.mean(0))
    np.testing.assert_allclose(components @ components.T, directions @ directions.T, atol=1e-4)


def test_one_training_gives_all_lengths_and_leaves_the_start_alone() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    rows = (generator.normal(size=(40, 8))[labels] + 0.1 * generator.normal(size=(400, 8))).astype(np.float32)
    classes = Classes((rows, labels), (rows[::10], labels[::10]), (rows, labels))
    backbone = VectorBackbone(torch.nn.Linear(8, 8), 8)
    before = backbone.network.weight.clone()
    config = DrqConfig(loss="contrastive", epochs=2, sign_bits=8, seed=0)
    start = Network(backbone, 100.0)
    once = train_codes(classes, classes.data(0), start, ((1, 2),), config)
    each = train_codes(classes, classes.data(0), start, ((1,), (2,)), config)
    assert torch.equal(backbone.network.weight, before)
    assert (once.networks, each.networks) == (1, 2)
    assert list(once.found) == list(each.found) == [1, 2]
    assert once.found[2] == each.found[2]  # the same training
    assert once.found[2][1] > 0.9  # the queries are rows too
    assert each.numbers > once.numbers
    assert min(once.seconds, each.seconds) > 100  # the start counts
