from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.losses import flops_regulariser


def test_regulariser_is_the_formula():
    rows = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    expected = sum(np.mean([abs(rows[i, j]) for i in range(20)]) ** 2 for j in range(7))
    assert float(flops_regulariser(torch.from_numpy(rows))) == pytest.approx(expected, rel=1e-5)
