from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.losses import TripletLoss


def slow_loss(x, labels, margin):
    """FaceNet's loss, triplet by triplet."""
    x = x.astype(np.float64)
    losses = []
    for a in range(len(x)):
        negatives = [((x[a] - x[n]) ** 2).sum() for n in range(len(x)) if labels[n] != labels[a]]
        for p in range(len(x)):
            if p == a or labels[p] != labels[a] or not negatives:
                continue
            positive = ((x[a] - x[p]) ** 2).sum()
            farther = [negative for negative in negatives if negative > positive]
            losses.append(max(0.0, positive - (min(farther) if farther else max(negatives)) + margin))
    return np.mean(losses)


@pytest.mark.parametrize("margin", [0.05, 0.2, 2.5])
def test_loss_is_the_papers_formula(embeddings, labels, margin):
    expected = slow_loss(embeddings.numpy(), labels.numpy(), margin)
    assert expected > 0
    assert float(TripletLoss(margin)(embeddings, labels)) == pytest.approx(expected, rel=1e-5)


def on_circle(*degrees):
    angles = np.radians(degrees)
    return torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=1), dtype=torch.float32, requires_grad=True)


def distance(degrees):
    return 2 - 2 * np.cos(np.radians(degrees))


def test_semi_hard_negative_is_the_nearest_that_is_farther_than_the_positive():
    # anchor at 0, positive at 40; negatives at -10 (nearer: too hard), -50 (semi-hard) and -60 (easier)
    rows, labels = on_circle(0, 40, -10, -50, -60), torch.tensor([0, 0, 1, 2, 3])
    loss = TripletLoss(1.0)(rows, labels)
    from_anchor = max(0, distance(40) - distance(50) + 1)
    from_positive = max(0, distance(40) - distance(50) + 1)  # 40 degrees from -10
    assert float(loss.detach()) == pytest.approx((from_anchor + from_positive) / 2, rel=1e-5)
    loss.backward()
    assert rows.grad[3].abs().sum() > 0
    assert rows.grad[4].abs().sum() == 0


def test_farthest_negative_stands_in_where_all_are_nearer_than_the_positive():
    rows, labels = on_circle(0, 90, 20, 30), torch.tensor([0, 0, 1, 2])
    expected = (distance(90) - distance(30) + distance(90) - distance(70)) / 2 + 0.2
    assert float(TripletLoss(0.2)(rows, labels).detach()) == pytest.approx(expected, rel=1e-5)


def test_negatives_outside_the_margin_cost_nothing():
    rows, labels = on_circle(0, 5, 180, 185), torch.tensor([0, 0, 1, 1])
    loss = TripletLoss(0.2)(rows, labels)
    loss.backward()
    assert float(loss.detach()) == 0
    assert rows.grad.abs().sum() == 0


def test_corner_cases_have_finite_gradients(corner, backward):
    embeddings, labels = corner
    loss, gradient = backward(TripletLoss(), embeddings, labels)
    assert loss >= 0
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("labels", [torch.zeros(6, dtype=torch.int64), torch.arange(6)])
def test_without_triplets_the_loss_is_zero(embeddings, labels, backward):
    loss, gradient = backward(TripletLoss(), embeddings[:6], labels)
    assert loss == 0
    assert gradient.abs().sum() == 0
