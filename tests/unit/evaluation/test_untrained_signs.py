"""Recall by untrained sign bits, on data whose neighbours are known."""

from __future__ import annotations

import numpy as np
import pytest

from alula.evaluation.ground_truth import Queries
from alula.evaluation.untrained_signs import sign_recall
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors

ROWS, K = 2000, 10


def asked(rows, vectors, metric):
    return Queries(vectors, [best(scores(v, rows, metric), K, metric).tolist() for v in vectors])


@pytest.fixture(scope="module")
def rows():
    return random_vectors(ROWS, 24, seed=1)


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
def test_more_candidates_and_more_bits_find_more(rows, metric):
    queries = asked(rows, random_vectors(40, 24, seed=2), metric)
    counts = [10, 50, 200, ROWS]
    values = {b: [r.value for r in sign_recall(rows, queries, counts, bits=b, metric=metric)] for b in (8, 64, 512)}
    for found in values.values():
        assert found == sorted(found)
        assert found[-1] == 1.0
    assert values[8][1] < values[64][1] < values[512][1]
    assert values[8][1] > 2 * 50 / ROWS  # far more than drawing rows at random
    assert values[512][1] > 0.8


def test_signs_are_those_of_the_centred_vectors():
    # two bits of one axis: rows of equal signs are the neighbours, wherever the origin is
    rng = np.random.default_rng(0)
    sides = np.sign(rng.standard_normal(400))[:, None]
    rows = (np.array([[100.0, 3.0]]) + sides * np.array([[0.0, 1.0]])).astype(np.float32)
    vectors = rows[:20]
    alike = [np.flatnonzero(sides[:, 0] == side)[:K].tolist() for side in sides[:20, 0]]
    ties = [np.flatnonzero(sides[:, 0] == side)[K:].tolist() for side in sides[:20, 0]]
    (found,) = sign_recall(rows, Queries(vectors, alike, ties=ties), [K], bits=16, metric="L2")
    assert found.value == 1.0


def test_the_same_seed_gives_the_same_estimate(rows):
    queries = asked(rows, random_vectors(10, 24, seed=2), "COSINE")
    given = {"bits": 32, "metric": "COSINE"}
    once, again = (sign_recall(rows, queries, [50], seed=3, **given) for _ in range(2))
    assert once == again
