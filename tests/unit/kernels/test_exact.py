"""Exact scores as Milvus reports them, and the best of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alula.kernels import exact_scores, top_k

values = st.floats(-100, 100, width=32)


def plain_score(query, vector, metric):
    query, vector = [float(a) for a in query], [float(b) for b in vector]
    if metric == "L2":
        return sum((a - b) ** 2 for a, b in zip(query, vector, strict=True))
    product = sum(a * b for a, b in zip(query, vector, strict=True))
    if metric == "IP":
        return product
    norms = math.sqrt(sum(a * a for a in query)) * math.sqrt(sum(b * b for b in vector))
    return product / norms if norms else 0.0


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@settings(deadline=None)
@given(vectors=hnp.arrays(np.float32, st.tuples(st.integers(1, 10), st.integers(1, 12)), elements=values))
def test_exact_scores_equal_plain_loops(metric, vectors):
    query, rest = vectors[0], vectors[1:]
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    found = exact_scores(query, rest, metric)
    assert found.dtype == np.float32
    for score, vector, norm in zip(found, rest, norms[1:], strict=True):
        if metric == "COSINE" and (0 < norms[0] < 1e-10 or 0 < norm < 1e-10):
            continue  # squares of such numbers are no float32
        # the rounding of a sum grows with its terms, not with the sum
        size = 1.0 if metric == "COSINE" else (norms[0] + norm) ** 2
        assert score == pytest.approx(plain_score(query, vector, metric), abs=1e-5 * size + 1e-6)


@pytest.mark.parametrize(("metric", "expected"), [("COSINE", [0.0, 1.0]), ("IP", [0.0, 25.0]), ("L2", [25.0, 0.0])])
def test_a_zero_vector_has_a_score(metric, expected):
    vectors = np.array([[0, 0], [3, 4]], np.float32)
    np.testing.assert_allclose(exact_scores(vectors[1], vectors, metric), expected, rtol=1e-6)


@pytest.mark.parametrize(("metric", "expected"), [("COSINE", [0.0, 0.0]), ("IP", [0.0, 0.0]), ("L2", [0.0, 25.0])])
def test_a_zero_query_has_scores(metric, expected):
    vectors = np.array([[0, 0], [3, 4]], np.float32)
    np.testing.assert_allclose(exact_scores(vectors[0], vectors, metric), expected)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_no_vectors_have_no_scores(metric):
    assert exact_scores(np.ones(3, np.float32), np.empty((0, 3), np.float32), metric).shape == (0,)


few_values = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])  # so that ties are common


@given(
    scores=hnp.arrays(np.float32, st.integers(0, 40), elements=few_values), k=st.integers(1, 60), larger=st.booleans()
)
def test_top_k_is_the_head_of_a_full_stable_sort(scores, k, larger):
    expected = sorted(range(len(scores)), key=lambda i: -scores[i] if larger else scores[i])[:k]
    assert top_k(scores, k, larger=larger).tolist() == expected


@given(scores=hnp.arrays(np.float32, st.integers(1, 300), elements=values), k=st.integers(1, 300))
def test_top_k_of_any_scores(scores, k):
    expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
    assert top_k(scores, k).tolist() == expected


@pytest.mark.parametrize("k", [0, 1])
def test_top_k_of_nothing(k):
    assert top_k(np.empty(0, np.float32), k).tolist() == []


def test_top_0_is_nothing():
    assert top_k(np.array([1.0, 2.0, 3.0]), 0).tolist() == []
