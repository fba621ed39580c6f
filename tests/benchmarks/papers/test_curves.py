"""Curves are compared at equal cost, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.papers.curves import frontier, least_gain, mean_gain

OURS = [(1.0, 0.2), (4.0, 0.6), (16.0, 0.8)]


def test_frontier_leaves_out_what_costs_more_and_finds_no_more() -> None:
    assert frontier([(4.0, 0.6), (1.0, 0.2), (8.0, 0.6), (2.0, 0.1)]) == [(1.0, 0.2), (4.0, 0.6)]


def test_mean_gain_over_the_costs_that_both_reach() -> None:
    # at 2 ours has .4 (halfway in the logarithm), at 4 theirs has .45, at 8 ours has .7; 1 and 16 theirs lacks
    theirs = [(2.0, 0.4), (8.0, 0.5)]
    assert mean_gain(OURS, theirs) == pytest.approx((0.0 + (0.6 - 0.45) + 0.2) / 3)
    assert mean_gain([*OURS, (8.0, 0.1)], [*theirs, (3.0, 0.1)]) == mean_gain(OURS, theirs)
    assert mean_gain(theirs, OURS) == pytest.approx(-mean_gain(OURS, theirs))


def test_no_common_cost() -> None:
    assert np.isnan(mean_gain(OURS, [(20.0, 0.9), (30.0, 0.9)]))


def test_least_gain_at_their_points() -> None:
    assert least_gain(OURS, [(2.0, 0.3), (100.0, 0.75)]) == pytest.approx(0.05)
    # they are faster than we can be
    assert least_gain(OURS, [(0.5, 0.1)]) == pytest.approx(-0.1)
    # a dear point that finds less than a cheap one does not pull the line between its neighbours down
    assert least_gain([*OURS, (8.0, 0.1)], [(8.0, 0.7)]) == pytest.approx(0.0)
