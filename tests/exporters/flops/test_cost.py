from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.cost import count_dims, expected_flops, flops_floor


def test_expected_flops_is_the_mean_overlap_of_different_rows():
    used = np.random.default_rng(0).random((30, 12)) < 0.3
    overlaps = [(used[a] & used[b]).sum() for a in range(30) for b in range(30) if a != b]
    counts = torch.from_numpy(used.sum(0))
    assert expected_flops(counts, 30) == pytest.approx(np.mean(overlaps))
    p = used.mean(0)
    assert expected_flops(counts, 30) == pytest.approx(((30 * p**2 - p) / 29).sum())


def test_floor():
    assert flops_floor(4096, 32) == 0.25


def test_count_dims_ignores_padding():
    counts = count_dims(torch.tensor([[0.5, 0.0], [0.1, 0.2]]), torch.tensor([[1, 2], [1, 0]]), 4)
    assert counts.tolist() == [1, 2, 0, 0]
