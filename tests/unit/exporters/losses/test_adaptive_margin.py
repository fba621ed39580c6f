from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from alula_exporters.losses import adaptive_margin_loss


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def slow_loss(z, held, v):
    """The formula, hinge by hinge, over C times the number of labels that rows have."""
    total = count = 0
    for n in range(len(z)):
        for j in np.flatnonzero(held[n]):
            for k in range(len(v)):
                margin = 1 - cosine(v[j], v[k])
                total += max(0, margin - cosine(z[n], v[j]) + cosine(z[n], v[k]))
                count += 1
    return total / count


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    z, v = rng.standard_normal((12, 5)).astype(np.float32), rng.standard_normal((7, 5)).astype(np.float32)
    return z, rng.integers(0, 7, 12), v


def test_loss_with_class_numbers_is_the_formula(case):
    z, labels, v = case
    expected = slow_loss(z, np.eye(7)[labels], v)
    loss = adaptive_margin_loss(torch.tensor(z), torch.tensor(labels), torch.tensor(v))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_loss_with_several_labels_is_the_formula(case):
    z, _, v = case
    held = (np.random.default_rng(1).random((12, 7)) < 0.4).astype(np.float32)
    held[3] = 0
    loss = adaptive_margin_loss(torch.tensor(z), torch.tensor(held), torch.tensor(v))
    assert float(loss) == pytest.approx(slow_loss(z, held, v), rel=1e-5)


def test_a_feature_on_its_labels_vector_costs_nothing(case):
    _, labels, v = case
    v = torch.tensor(v)
    assert float(adaptive_margin_loss(3 * v[labels], torch.tensor(labels), v)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("held", ["one class", "all distinct", "none"])
@pytest.mark.parametrize("alike", [False, True])
def test_corner_cases_have_finite_gradients(held, alike):
    generator = torch.Generator().manual_seed(2)
    v = functional.normalize(torch.randn(6, 5, generator=generator), dim=1)
    z = (v[:1].repeat(6, 1) if alike else torch.randn(6, 5, generator=generator)).requires_grad_()
    labels = {"one class": torch.zeros(6, dtype=torch.int64), "all distinct": torch.eye(6), "none": torch.zeros(6, 6)}
    torch.use_deterministic_algorithms(True)
    try:
        loss = adaptive_margin_loss(z, labels[held], v)
        loss.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    assert held != "none" or float(loss.detach()) == 0
