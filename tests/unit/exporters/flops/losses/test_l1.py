from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.losses import l1_regulariser


def test_regulariser_is_the_formula():
    rows = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    expected = np.mean([sum(abs(rows[i, j]) for j in range(7)) for i in range(20)])
    assert float(l1_regulariser(torch.from_numpy(rows))) == pytest.approx(expected, rel=1e-5)
