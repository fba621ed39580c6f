from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from alula_exporters.data import TrainingData
from alula_exporters.losses import LABEL_LOSSES, class_vectors, label_loss, semi_hard_triplet_loss


@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_rows_of_a_label_come_together(name):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    rows = torch.randn(20, 8, generator=generator, requires_grad=True)
    labels = torch.arange(20) % 5
    given = np.eye(8, dtype=np.float32)[:5]
    loss = label_loss(name, TrainingData(given, given, "", 5, tuple("abcde"), np.arange(5)), 8)
    optimizer = torch.optim.Adam([rows, *loss.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(functional.normalize(rows, dim=1), labels).backward()
        optimizer.step()
    unit = functional.normalize(rows.detach(), dim=1)
    cosines = unit @ unit.T - 2 * torch.eye(20)
    assert (labels[cosines.argmax(1)] == labels).all()


def test_the_margin_of_triplets():
    generator = torch.Generator().manual_seed(0)
    rows = functional.normalize(torch.randn(20, 8, generator=generator), dim=1)
    labels = torch.arange(20) % 5
    nothing = np.empty((0, 8), np.float32)
    data = TrainingData(nothing, nothing, "", 0, classes=tuple("abcde"))
    for margin, expected in ((None, 0.2), (0.1, 0.1)):
        found = label_loss("triplet", data, 8, margin)(rows, labels)
        assert found == semi_hard_triplet_loss(rows, labels[:, None] == labels, expected)


def test_classes_mean_what_their_vectors_mean() -> None:
    rows = np.array([[3, 0], [1, 2], [4, 4], [0, 6]], np.float32)  # the mean of all is (2, 3)
    data = TrainingData(rows, rows, "", 4, tuple("abc"), np.array([0, 0, 1, 1]))
    assert class_vectors(data).tolist() == [[0, -2], [0, 2], [0, 0]]
    given = np.ones((3, 5), np.float32)
    assert class_vectors(replace(data, label_vectors=given)).tolist() == given.tolist()
    images = np.zeros((4, 2, 2, 1), np.uint8)
    assert class_vectors(replace(data, train=images)).tolist() == np.eye(3).tolist()
