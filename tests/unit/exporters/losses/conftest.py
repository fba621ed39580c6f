"""Rows and labels to compare losses on, and the corner cases that each must survive."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional


def unit(rows, dim=6, seed=0):
    return functional.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def embeddings():
    return unit(24)


@pytest.fixture
def labels():
    return torch.randint(7, (24,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["one class", "all distinct", "identical rows", "opposite rows", "one row"])
def corner(request):
    rows = unit(6)
    return {
        "one class": (rows, torch.zeros(6, dtype=torch.int64)),
        "all distinct": (rows, torch.arange(6)),
        "identical rows": (rows[:1].repeat(6, 1), torch.arange(6) // 2),
        "opposite rows": (rows[:1] * torch.tensor([[1.0], [-1], [1], [-1], [1], [-1]]), torch.arange(6) // 2),
        "one row": (rows[:1], torch.zeros(1, dtype=torch.int64)),
    }[request.param]


@pytest.fixture
def backward():
    """The loss and its gradient, under the trainers' rule that every operator repeats bit for bit."""

    def run(loss, embeddings, labels):
        rows = embeddings.clone().requires_grad_()
        torch.use_deterministic_algorithms(True)
        try:
            value = loss(rows, labels)
            value.backward()
        finally:
            torch.use_deterministic_algorithms(False)
        return float(value.detach()), rows.grad

    return run
