from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from alula.errors import DataError
from alula_exporters.data import make_training_data
from alula_exporters.flops import FlopsConfig, train_flops
from alula_exporters.flops.cost import expected_flops

from ..conftest import SMALL_FLOPS

VARIANT = {"dim": 256, "steps": 80, "anchors": 32, "batch": 256}


@pytest.fixture(scope="module")
def variant(data):
    """``variant(**options)``: the encoder trained with them, once for all tests."""

    @functools.cache
    def train(**options):
        return train_flops(data, FlopsConfig(**VARIANT, **options))

    return train


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


@pytest.mark.parametrize("activation", ["relu", "soft-threshold"])
@pytest.mark.parametrize(("unit", "value"), [("flops", 0.4), ("nnz", 8)])
def test_variants_reach_their_budget_within_the_row_limit(variant, activation, unit, value):
    trained = variant(metric="COSINE", activation=activation, **{unit: value})
    training, used = trained.training, _used(trained)
    achieved = training["flops_achieved" if unit == "flops" else "nnz_mean"]
    assert achieved == pytest.approx(value, rel=0.05)
    assert training[f"{unit}_requested"] == value
    assert used.shape[1] == (512 if activation == "soft-threshold" else 256)
    lengths = used.sum(1)
    assert 1 <= lengths.min() < lengths.max() <= trained.model.nnz == training["recipe"]["most_nnz"]
    assert training["quality"]["recall@10 in top 100"] > 0.5


@pytest.mark.parametrize("activation", ["relu", "soft-threshold"])
def test_variants_find_short_rows_and_long_ones(variant, metric, activation):
    trained = variant(metric=metric, activation=activation, flops=0.4)
    assert trained.training["quality"]["recall@10 in top 500"] > 0.9


def test_l1_is_sparse_too_but_less_even(variant):
    even = variant(metric="COSINE", activation="relu", nnz=8).training
    uneven = variant(activation="relu", regulariser="l1", nnz=8).training
    assert uneven["nnz_mean"] == pytest.approx(8, rel=0.05)
    assert uneven["r_sub"] > even["r_sub"]


def test_a_given_weight_sets_the_cost(variant):
    light, heavy = (variant(activation="relu", weight=weight).training for weight in (0.1, 30.0))
    assert light["regulariser_weight"] == 0.1
    assert heavy["flops_achieved"] < light["flops_achieved"]
    assert "flops_requested" not in light
    assert heavy["recipe"]["ramp"] == VARIANT["steps"] // 2


def test_no_regulariser(variant):
    training = variant(nnz=8, regulariser="none").training
    assert training["regulariser_weight"] == 0
    assert training["flops_achieved"] > 8 * 8 / 256
    assert training["recipe"]["regulariser"] == "none"


def _used(trained):
    with torch.no_grad():
        weights, dims = trained.model(torch.from_numpy(trained.held_out))
    return (trained.model.dense(weights, dims) > 0).numpy()
