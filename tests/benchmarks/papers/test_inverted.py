"""The inverted index against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from benchmarks.papers.datasets import found
from benchmarks.papers.inverted import InvertedIndex


@pytest.fixture(scope="module")
def rows() -> sparse.csr_matrix:
    generator = np.random.default_rng(0)
    dense = np.where(generator.random((3_000, 64)) < 0.1, generator.random((3_000, 64)), 0).astype(np.float32)
    dense[:, 0] = np.maximum(dense[:, 0], 1e-3)  # no row is empty
    return sparse.csr_matrix(dense / np.linalg.norm(dense, axis=1, keepdims=True))


@pytest.mark.parametrize("count", [1, 10, 500])
def test_the_best_rows_come_first(rows: sparse.csr_matrix, count: int) -> None:
    index = InvertedIndex(rows)
    for query in rows[:20].toarray():
        dims = np.flatnonzero(query)
        scores = rows @ query
        ids = index.search(dims, query[dims], count, ordered=True)
        np.testing.assert_allclose(scores[ids], np.sort(scores)[::-1][:count], atol=1e-6)
        assert set(index.search(dims, query[dims], count)) == set(ids) or len(np.unique(scores)) < len(scores)


def test_rows_that_share_nothing_are_not_found(rows: sparse.csr_matrix) -> None:
    column = rows[:, 5].toarray().ravel()
    ids = InvertedIndex(rows).search(np.array([5]), np.array([1], np.float32), 3_000)
    assert set(ids) == set(np.flatnonzero(column))


def test_share_of_true_neighbours_found() -> None:
    candidates = np.array([[3, 1, 7, -1], [0, 2, 4, 6]])
    assert found(candidates, np.array([[1, 9], [6, 2]])) == 0.75
