from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.losses import (
    FlopsController,
    count_dims,
    distillation_loss,
    expected_flops,
    flops_floor,
    flops_regulariser,
)


def test_regulariser_is_the_formula():
    rows = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    expected = sum(np.mean([abs(rows[i, j]) for i in range(20)]) ** 2 for j in range(7))
    assert float(flops_regulariser(torch.from_numpy(rows))) == pytest.approx(expected, rel=1e-5)


def test_expected_flops_is_the_mean_overlap_of_different_rows():
    used = np.random.default_rng(0).random((30, 12)) < 0.3
    overlaps = [(used[a] & used[b]).sum() for a in range(30) for b in range(30) if a != b]
    counts = torch.from_numpy(used.sum(0))
    assert expected_flops(counts, 30) == pytest.approx(np.mean(overlaps))
    p = used.mean(0)
    assert expected_flops(counts, 30) == pytest.approx(((30 * p**2 - p) / 29).sum())


def test_floor():
    assert flops_floor(4096, 32) == 0.25


def test_count_dims_ignores_padding():
    counts = count_dims(torch.tensor([[0.5, 0.0], [0.1, 0.2]]), torch.tensor([[1, 2], [1, 0]]), 4)
    assert counts.tolist() == [1, 2, 0, 0]


def test_distillation_is_the_divergence():
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, 4, 9))
    p = np.exp(teacher / 0.5) / np.exp(teacher / 0.5).sum(1, keepdims=True)
    q = np.exp(student) / np.exp(student).sum(1, keepdims=True)
    expected = (p * np.log(p / q)).sum(1).mean()
    assert float(distillation_loss(torch.tensor(student), torch.tensor(teacher), 0.5)) == pytest.approx(expected)
    assert float(distillation_loss(torch.tensor(teacher / 0.5), torch.tensor(teacher), 0.5)) == pytest.approx(
        0, abs=1e-9
    )


def test_controller_raises_lambda_while_too_expensive_and_lowers_it_when_too_cheap():
    dear, cheap = FlopsController(1.0, 100), FlopsController(1.0, 100)
    dear_weights = [dear.weight(1.2) for _ in range(100)]
    cheap_weights = [cheap.weight(0.8) for _ in range(100)]
    assert dear_weights[-1] > dear_weights[50] > dear_weights[0]
    assert cheap_weights[-1] < cheap_weights[50] < cheap_weights[0]


def test_controller_brings_a_simple_system_to_its_budget():
    controller, flops = FlopsController(0.5, 400), 3.0
    for _ in range(400):
        flops += 0.05 * (3.0 / (1 + controller.weight(flops)) - flops)
    assert flops == pytest.approx(0.5, rel=0.1)
