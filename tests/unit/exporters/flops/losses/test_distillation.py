from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.losses import distillation_loss


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
