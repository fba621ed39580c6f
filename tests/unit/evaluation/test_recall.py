"""Exact neighbours of rows seen block by block, and how sure a recall is."""

from __future__ import annotations

import numpy as np
import pytest

from alula.evaluation import NearestSoFar, estimate_recall
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@pytest.mark.parametrize("block", [3, 64, 1000])
def test_neighbours_seen_in_blocks_are_those_of_all_rows(metric, block):
    rows, queries = random_vectors(300, seed=1), random_vectors(7, seed=2)
    nearest = NearestSoFar(queries, 10, metric)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        nearest.see([f"row {start + i}" for i in range(len(part))], part)
    for query, keys in zip(queries, nearest.keys, strict=True):
        assert keys == [f"row {i}" for i in best(scores(query, rows, metric), 10, metric)]


def test_equally_near_rows_are_as_good_as_each_other():
    rows = np.repeat(random_vectors(100, 64, seed=1), 3, axis=0)
    queries = random_vectors(5, 64, seed=2)
    nearest = NearestSoFar(queries, 4, "L2")
    for start in range(0, 300, 7):
        nearest.see(list(range(start, min(start + 7, 300))), rows[start : start + 7])
    assert [len(keys) for keys in nearest.keys] == [4] * 5
    assert [len(keys) for keys in nearest.ties] == [2] * 5
    found = [[*keys[:3], ties[-1]] for keys, ties in zip(nearest.keys, nearest.ties, strict=True)]
    assert estimate_recall(found, nearest.keys).value == 0.75
    assert estimate_recall(found, nearest.keys, nearest.ties).value == 1.0
    wrong = [[*ties, 1001, 1002] for ties in nearest.ties]
    assert estimate_recall(wrong, nearest.keys, nearest.ties).value == 0.5
    every = [[*keys, *ties] for keys, ties in zip(nearest.keys, nearest.ties, strict=True)]
    assert estimate_recall(every, nearest.keys, nearest.ties).value == 1.0


def test_fewer_rows_than_neighbours():
    rows = random_vectors(4)
    nearest = NearestSoFar(rows[:2], 10, "L2")
    nearest.see([1, 2, 3, 4], rows)
    assert [sorted(keys) for keys in nearest.keys] == [[1, 2, 3, 4]] * 2
    assert [keys[0] for keys in nearest.keys] == [1, 2]


def wilson_ends(estimate, trials):
    # the ends of Wilson's interval are where |p - mean| = z sqrt(p (1 - p) / n)
    for end in (estimate.low, estimate.high):
        assert abs(end - estimate.value) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / trials))


def test_a_recall_comes_with_wilsons_interval():
    truth = [list(range(10))] * 50
    found = [list(range(9))] * 50  # nine of ten each time: each neighbour is a trial
    estimate = estimate_recall(found, truth)
    assert (estimate.value, estimate.queries) == (0.9, 50)
    wilson_ends(estimate, 500)
    found = [list(range(10))] * 45 + [[]] * 5  # all or nothing: each query is one
    estimate = estimate_recall(found, truth)
    assert estimate.value == 0.9
    wilson_ends(estimate, 50)
    perfect = estimate_recall(truth, truth)
    assert perfect.value == perfect.high == 1.0
    assert 0.99 < perfect.low < 1.0


def test_the_interval_holds_the_true_recall_of_queries_that_differ():
    rng = np.random.default_rng(0)
    truth = [list(range(10))] * 100
    held = 0
    for _ in range(300):
        # each query has a recall of its own, 0.8 on average
        found = [list(range(rng.binomial(10, rng.beta(4, 1)))) for _ in truth]
        estimate = estimate_recall(found, truth)
        held += estimate.low <= 0.8 <= estimate.high
    assert held / 300 > 0.92
