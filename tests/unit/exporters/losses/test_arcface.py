from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from alula_exporters.losses import ArcFaceLoss


def make(classes, dim, **options):
    torch.manual_seed(3)
    return ArcFaceLoss(classes, dim, **options)


def slow_loss(x, labels, weight, scale, margin):
    """The paper's equation 3, row by row and class by class, with the arc cosine."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    losses = []
    for row, label in zip(x, labels, strict=True):
        logits = []
        for j, direction in enumerate(weight):
            cosine = row @ direction / np.linalg.norm(direction)
            angle = np.arccos(cosine)
            if j == label:
                cosine = np.cos(angle + margin) if angle + margin < np.pi else cosine - 1 + np.cos(margin)
            logits.append(scale * cosine)
        losses.append(np.log(np.exp(logits).sum()) - logits[label])
    return np.mean(losses)


@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.5), (8.0, 1.2)])
def test_loss_is_the_papers_formula(embeddings, labels, scale, margin):
    loss = make(7, 6, scale=scale, margin=margin)
    own = (embeddings * functional.normalize(loss.weight.detach(), dim=1)[labels]).sum(1)
    assert (own < -np.cos(1.2)).any()  # the safeguard is used by the larger margin
    assert (own > -np.cos(0.5)).any()
    expected = slow_loss(embeddings.numpy(), labels.numpy(), loss.weight.detach().numpy(), scale, margin)
    assert float(loss(embeddings, labels).detach()) == pytest.approx(expected, rel=1e-4)


def test_without_margin_it_is_softmax_cross_entropy(embeddings, labels):
    loss = make(7, 6, scale=10.0, margin=0.0)
    logits = 10 * embeddings @ functional.normalize(loss.weight, dim=1).T
    torch.testing.assert_close(loss(embeddings, labels), functional.cross_entropy(logits, labels))


def test_own_logit_falls_without_a_jump_over_all_angles():
    loss = make(2, 2, scale=1.0, margin=0.5)
    loss.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # the other class's logit is always 0
    angles = torch.linspace(0.01, np.pi - 0.01, 2000)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    with torch.no_grad():
        losses = torch.stack([loss(row[None], torch.tensor([0])) for row in rows])
    steps = losses.diff()
    assert steps.min() > 0
    assert steps.max() < 0.002


def test_corner_cases_have_finite_gradients(corner, backward):
    embeddings, labels = corner
    loss = make(6, 6)
    loss.weight.data[:3] = embeddings[0]  # on the row's own direction, and for opposite rows on the other side
    value, gradient = backward(loss, embeddings, labels)
    assert value >= 0
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(loss.weight.grad).all()


def test_rows_come_to_their_classes_directions(embeddings, labels):
    loss, rows = make(7, 6), embeddings.clone().requires_grad_()
    optimizer = torch.optim.Adam([rows, *loss.parameters()], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(functional.normalize(rows, dim=1), labels).backward()
        optimizer.step()
    cosines = functional.normalize(rows.detach(), dim=1) @ functional.normalize(loss.weight.detach(), dim=1).T
    assert (cosines.argmax(1) == labels).all()
