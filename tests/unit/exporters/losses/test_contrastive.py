from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.losses import ContrastiveLoss


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


def slow_info_nce(z, temperature):
    """-log of the share that row i's partner has of all other rows' exp(cosine / temperature); pairs are neighbours."""
    z = z.astype(np.float64)
    losses = []
    for i in range(len(z)):
        exponentials = np.exp(z @ z[i] / temperature)
        losses.append(-np.log(exponentials[i ^ 1] / (exponentials.sum() - exponentials[i])))
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


def test_pairs_get_info_nce(embeddings):
    labels = torch.arange(24) // 2
    loss = ContrastiveLoss(temperature=0.2)(embeddings, labels)
    assert float(loss) == pytest.approx(slow_info_nce(embeddings.numpy(), 0.2), rel=1e-5)
