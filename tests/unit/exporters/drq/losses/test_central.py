from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq.losses import joint_central_loss


def test_joint_central_loss_is_the_formula():
    rng = np.random.default_rng(0)
    soft, hard = rng.standard_normal((2, 10, 4))
    expected = np.mean([((soft[i] - hard[i]) ** 2).sum() for i in range(10)])
    assert float(joint_central_loss(torch.tensor(soft), torch.tensor(hard))) == pytest.approx(expected)
