from __future__ import annotations

import pytest
import torch

from alula_exporters.splade.losses import margin_loss


def test_the_papers_formula():
    assert margin_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == pytest.approx((1 + 4) / 2)
