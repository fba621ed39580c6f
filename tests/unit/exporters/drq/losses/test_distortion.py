from __future__ import annotations

import numpy as np
import torch

from alula_exporters.drq.losses import prefix_distortions


def test_distortion_of_each_prefix_is_the_formula():
    rng = np.random.default_rng(0)
    x, x_hat = rng.standard_normal((10, 4)), rng.standard_normal((10, 3, 4))
    expected = [np.mean([np.linalg.norm(x[i] - x_hat[i, t]) ** 2 for i in range(10)]) for t in range(3)]
    np.testing.assert_allclose(prefix_distortions(torch.tensor(x), torch.tensor(x_hat)), expected)
