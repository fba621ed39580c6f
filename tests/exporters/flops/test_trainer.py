from __future__ import annotations

import numpy as np
import pytest
import torch

from alula.errors import DataError, UsageError
from alula_exporters.data import make_training_data
from alula_exporters.flops import FlopsConfig, train_flops
from alula_exporters.flops.losses import expected_flops

from ..conftest import SMALL_FLOPS


def test_reaches_the_budget_on_rows_it_has_not_seen(trained_flops):
    training = trained_flops.training
    assert training["flops_achieved"] == pytest.approx(SMALL_FLOPS["flops"], rel=0.15)
    with torch.no_grad():
        weights, dims = trained_flops.model(torch.from_numpy(trained_flops.held_out))
    used = trained_flops.model.dense(weights, dims) > 0
    assert expected_flops(used.sum(0), len(used)) == pytest.approx(SMALL_FLOPS["flops"], rel=0.2)


def test_finds_neighbours_better_than_chance(trained_flops):
    quality = trained_flops.training["quality"]
    assert quality["recall@10 in top 100"] > 0.6  # by chance: 100 of 2,700 rows
    assert quality["recall@10 in top 500"] > quality["recall@10 in top 100"]


def test_summary_says_what_was_done(trained_flops, data):
    training = trained_flops.training
    assert training["fingerprint"] == data.fingerprint
    assert training["rows"] == len(data.train)
    assert training["recipe"]["dim"] == SMALL_FLOPS["dim"]
    assert training["r_sub"] == pytest.approx(
        training["flops_achieved"] * SMALL_FLOPS["dim"] / training["nnz_mean"] ** 2
    )
    assert np.isfinite(training["loss"])


def test_same_seed_same_weights(data):
    config = FlopsConfig(**{**SMALL_FLOPS, "steps": 10})
    first, again = (train_flops(data, config) for _ in range(2))
    assert torch.equal(first.model.weight, again.model.weight)
    assert torch.equal(first.model.bias, again.model.bias)
    assert first.training == again.training


def test_more_dimensions_than_rows(vectors):
    config = FlopsConfig(dim=1024, nnz=8, steps=5, anchors=8, batch=64)
    trained = train_flops(make_training_data(vectors[:400]), config)
    assert torch.isfinite(trained.model.weight).all()


def test_zero_rows_in_the_data_are_survived(vectors, metric):
    holed = vectors[:1000].copy()
    holed[::10] = 0
    trained = train_flops(make_training_data(holed), FlopsConfig(metric=metric, **{**SMALL_FLOPS, "steps": 20}))
    assert torch.isfinite(trained.model.weight).all()


def test_constant_data_is_refused():
    with pytest.raises(DataError, match="Only 1 of"):
        train_flops(make_training_data(np.ones((1000, 4))), FlopsConfig(**SMALL_FLOPS))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flops": 0.2}, r"32\^2 / 4096 = 0.25.*Ask for 0.28 or more"),
        ({"flops": 40.0}, "more than rows of 32 non-zeros can cost"),
        ({"nnz": 64, "dim": 32}, "cannot have 64 non-zeros in 32 dimensions"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_budgets_and_sizes_that_do_not_fit(options, words):
    with pytest.raises(UsageError, match=words):
        FlopsConfig(**options)


def test_default_budget_is_a_little_above_the_floor():
    assert FlopsConfig().budget == pytest.approx(0.28)
