from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.losses import ContrastiveLoss, info_nce

from .conftest import unit


def slow_contrastive(z, labels, temperature):
    """L_out of the paper, averaged over the rows that have positives."""
    z = z.astype(np.float64)
    losses = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        if positives:
            total = sum(np.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
            losses.append(-np.mean([np.log(np.exp(z[i] @ z[p] / temperature) / total) for p in positives]))
    return np.mean(losses)


def slow_info_nce(q, r, temperature):
    """-log of the share that row i has of all rows' exp(cosine / temperature), for every query i."""
    q, r = q.astype(np.float64), r.astype(np.float64)
    losses = []
    for i in range(len(q)):
        total = sum(np.exp(q[i] @ r[j] / temperature) for j in range(len(r)))
        losses.append(-np.log(np.exp(q[i] @ r[i] / temperature) / total))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_contrastive_loss_is_the_papers_formula(embeddings, temperature):
    labels = torch.tensor([*range(6), *range(6), *range(3), *range(20, 29)])  # nine rows are alone
    expected = slow_contrastive(embeddings.numpy(), labels.numpy(), temperature)
    assert float(ContrastiveLoss(temperature)(embeddings, labels)) == pytest.approx(expected, rel=1e-5)


def test_corner_cases_have_finite_gradients(corner, backward):
    embeddings, labels = corner
    loss, gradient = backward(ContrastiveLoss(), embeddings, labels)
    assert loss >= 0
    assert torch.isfinite(gradient).all()


def test_without_pairs_the_loss_is_zero(embeddings, backward):
    loss, gradient = backward(ContrastiveLoss(), embeddings, torch.arange(24))
    assert loss == 0
    assert gradient.abs().sum() == 0


def test_info_nce_is_the_papers_formula_in_both_directions(embeddings):
    rows = unit(24, seed=5)
    q, r = embeddings.numpy(), rows.numpy()
    expected = (slow_info_nce(q, r, 0.07) + slow_info_nce(r, q, 0.07)) / 2
    assert slow_info_nce(q, r, 0.07) != pytest.approx(slow_info_nce(r, q, 0.07))
    assert float(info_nce(embeddings, rows)) == pytest.approx(expected, rel=1e-5)


def test_info_nce_is_symmetric(embeddings):
    rows = unit(24, seed=5)
    torch.testing.assert_close(info_nce(embeddings, rows, 0.2), info_nce(rows, embeddings, 0.2))


@pytest.mark.parametrize("case", ["identical", "matching", "one"])
def test_info_nce_has_finite_gradients(embeddings, backward, case):
    rows = {"identical": embeddings[:1].repeat(24, 1), "matching": embeddings, "one": embeddings[:1]}[case]
    loss, gradient = backward(info_nce, rows, rows)
    assert loss == pytest.approx(np.log(24), rel=1e-5) if case == "identical" else loss >= 0
    assert torch.isfinite(gradient).all()
