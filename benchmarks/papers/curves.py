"""Curves of recall by cost, compared at the same cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.papers.datasets import F64

Curve = Sequence[tuple[float, float]]  # cost (FLOPs or milliseconds), recall


def frontier(curve: Curve) -> Curve:
    """The points that find more than all cheaper ones, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, recall in sorted(curve):
        if not best or recall > best[-1][1]:
            best.append((cost, recall))
    return best


def mean_gain(ours: Curve, theirs: Curve) -> float:
    """The gain in recall of one frontier, on average over the costs that both reach.

    Between two points recall is linear in the logarithm of the cost. NaN where no cost is reached by both.
    """
    ours, theirs = frontier(ours), frontier(theirs)
    low = max(min(cost for cost, _ in curve) for curve in (ours, theirs))
    high = min(max(cost for cost, _ in curve) for curve in (ours, theirs))
    costs = [cost for cost, _ in (*ours, *theirs) if low <= cost <= high]
    return float(np.mean(_recall(ours, costs) - _recall(theirs, costs))) if costs else np.nan


def least_gain(ours: Curve, theirs: Curve) -> float:
    """The least difference of recall at the cost of each point of their frontier.

    Beyond our dearest point recall stays as it is there, and under the cheapest it is 0.
    """
    ours, theirs = frontier(ours), frontier(theirs)
    costs = [cost for cost, _ in theirs]
    reached = np.where(np.array(costs) < ours[0][0], 0, _recall(ours, costs))
    return float(np.min(reached - [recall for _, recall in theirs]))


def _recall(curve: Curve, costs: Sequence[float]) -> F64:
    known, recalls = np.array(curve).T
    return np.interp(np.log(costs), np.log(known), recalls)
