"""The share of true neighbours among candidates."""

from __future__ import annotations

import numpy as np

from benchmarks.papers.datasets import found


def test_share_of_true_neighbours_found() -> None:
    candidates = np.array([[3, 1, 7, -1], [0, 2, 4, 6]])
    assert found(candidates, np.array([[1, 9], [6, 2]])) == 0.75
