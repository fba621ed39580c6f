from __future__ import annotations

import numpy as np
import torch

from alula_exporters.drq.losses import prefix_distortions


def test_distortion_of_each_prefix_is_the_formula():
    rng = np.random.default_rng(0)
    x, parts = rng.standard_normal((10, 4)), rng.standard_normal((3, 10, 4))
    errors = [[x[i] - parts[: t + 1, i].sum(0) for i in range(10)] for t in range(3)]
    expected = [np.mean([np.linalg.norm(error) ** 2 for error in of_prefix]) for of_prefix in errors]
    np.testing.assert_allclose(prefix_distortions(torch.tensor(x), torch.tensor(parts)), expected)
