from __future__ import annotations

import pytest

from alula.errors import UsageError
from alula_exporters.flops import FlopsConfig


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flops": 0.2}, r"32\^2 / 4096 = 0.25.*Ask for 0.28 or more"),
        ({"flops": 40.0}, "more than rows of 32 non-zeros can cost"),
        ({"nnz": 64, "dim": 32}, "cannot have 64 non-zeros in 32 dimensions"),
        ({"steps": 0}, "steps is 0"),
        ({"nnz": 0}, "nnz is 0"),
        ({"flops": float("nan")}, "out of reach"),
        ({"activation": "gelu"}, "one of top-k, relu, soft-threshold"),
        ({"regulariser": "l2"}, "one of flops, l1, none"),
        ({"most_nnz": 9}, "most_nnz does nothing; give nnz"),
        ({"activation": "relu", "flops": 1e-4}, "1 / 4096 = 0.000244"),
        ({"activation": "soft-threshold", "flops": 1e-4}, "one of 8192 dimensions costs 1 / 8192 = 0.000122"),
        ({"activation": "relu", "nnz": 40, "most_nnz": 32}, "Mean non-zeros of 40 are more than rows of 32"),
        ({"activation": "relu", "nnz": 32, "flops": 0.3}, "flops and nnz were given"),
        ({"activation": "relu", "nnz": 32, "weight": 1.0}, "nnz and weight were given"),
        ({"activation": "relu", "most_nnz": 5000}, "cannot have 5000 non-zeros in 4096 dimensions; lower most_nnz"),
        ({"weight": 1.0, "flops": 0.3}, "flops and weight were given"),
        ({"weight": -1.0}, "must be a positive number"),
        ({"weight": float("nan")}, "must be a positive number"),
        ({"ramp": 10}, "give weight too"),
        ({"weight": 1.0, "ramp": 900}, "does not end in 800 steps"),
        ({"regulariser": "none", "flops": 0.3}, "nothing can bring training to flops"),
        ({"regulariser": "none", "weight": 1.0}, "nothing can bring training to weight"),
        ({"regulariser": "none", "ramp": 5}, "nothing can bring training to ramp"),
        ({"regulariser": "none", "activation": "relu", "nnz": 8}, "nothing can bring training to nnz"),
        ({"margin": 0.1}, "A margin belongs to the loss triplet, and the loss is distillation"),
        ({"loss": "arcface", "margin": 0.1}, "and the loss is arcface"),
        ({"loss": "triplet", "margin": 0.0}, "margin is 0; it must be a positive number"),
        ({"loss": "triplet", "margin": float("nan")}, "margin is nan"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(UsageError, match=words):
        FlopsConfig(**options)


def test_default_budget_is_a_little_above_the_floor():
    assert FlopsConfig().budget == pytest.approx(0.28)
    assert FlopsConfig().row_limit == 32
    # the other activations cost the same unless asked otherwise, so that they can be compared
    assert FlopsConfig(activation="relu").budget == pytest.approx(0.28)
    assert FlopsConfig(activation="relu", nnz=20).budget == 20


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"nnz": 10}, 40),
        ({"nnz": 10, "most_nnz": 16}, 16),
        ({"flops": 1.0}, 4 * 64),  # F = 1 in 4,096 dimensions: at most 64 non-zeros on average
        ({"weight": 1.0}, 128),
        ({"regulariser": "none"}, 128),
        ({"nnz": 10, "dim": 16}, 16),
    ],
)
def test_most_non_zeros_of_a_row(options, limit):
    assert FlopsConfig(activation="relu", **options).row_limit == limit


def test_recipe_names_the_variant_and_what_took_effect():
    recipe = FlopsConfig().recipe()
    assert (recipe["activation"], recipe["regulariser"], recipe["nnz"]) == ("top-k", "flops", 32)
    assert recipe["flops"] == pytest.approx(0.28)
    assert not {"weight", "ramp"} & recipe.keys()
    ramped = FlopsConfig(activation="soft-threshold", regulariser="l1", weight=2.0).recipe()
    assert (ramped["activation"], ramped["regulariser"]) == ("soft-threshold", "l1")
    assert (ramped["weight"], ramped["ramp"], ramped["most_nnz"]) == (2.0, 400, 128)
    assert not {"flops", "nnz"} & ramped.keys()
