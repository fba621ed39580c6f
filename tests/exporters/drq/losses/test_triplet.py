from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq.losses import multi_label_triplet_loss


def slow_loss(x, held, margin):
    """Triplet by triplet: alike are rows that share a label, and their lengths do not matter."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    losses = []
    for a in range(len(x)):
        negatives = [((x[a] - x[n]) ** 2).sum() for n in range(len(x)) if n != a and not (held[a] * held[n]).any()]
        for p in range(len(x)):
            if p == a or not (held[a] * held[p]).any() or not negatives:
                continue
            positive = ((x[a] - x[p]) ** 2).sum()
            farther = [negative for negative in negatives if negative > positive]
            losses.append(max(0, positive - (min(farther) if farther else max(negatives)) + margin))
    return np.mean(losses)


@pytest.mark.parametrize("margin", [0.3, 2.5])
def test_loss_with_several_labels_is_the_formula(margin):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 5))
    held = (rng.random((20, 6)) < 0.25).astype(np.float64)
    held[2], held[3] = 0, 1  # one row has no label, one has all
    loss = multi_label_triplet_loss(torch.tensor(x), torch.tensor(held), margin)
    assert float(loss) == pytest.approx(slow_loss(x, held, margin))


def test_class_numbers_are_single_labels():
    rng = np.random.default_rng(1)
    x, labels = torch.tensor(rng.standard_normal((20, 5))), torch.tensor(rng.integers(0, 4, 20))
    torch.testing.assert_close(
        multi_label_triplet_loss(x, labels), multi_label_triplet_loss(x, torch.eye(4, dtype=torch.int64)[labels])
    )


def test_rows_without_labels_give_zero_with_a_gradient():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = multi_label_triplet_loss(x, torch.zeros(5, 4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert x.grad.abs().sum() == 0
