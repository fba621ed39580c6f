from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.cost import Spread, count_dims, expected_flops, flops_floor


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


def test_spread_of_batches_by_hand():
    spread = Spread(4)
    even, uneven = torch.tensor([2, 2, 2, 2]), torch.tensor([8, 0, 0, 0])
    figures = spread.figures(even, 8)
    # one non-zero a row; two rows out of 8 share a dimension with probability 1/7 for each of them
    assert figures == pytest.approx({"non-zeros": 1.0, "R_sub": 4 * (4 * 2 * 1) / (8 * 7), "dead dimensions": 0})
    for _ in range(Spread.MEMORY - 1):
        figures = spread.figures(uneven, 8)
    assert figures == pytest.approx({"non-zeros": 1.0, "R_sub": 4.0, "dead dimensions": 0})
    again = Spread(4)
    again.load_state_dict(spread.state_dict())
    assert again.figures(uneven, 8)["dead dimensions"] == 3
