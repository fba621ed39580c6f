"""The inverted index against brute force over the same rows, and numba against numpy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from alula.errors import DataError
from alula.kernels import InvertedIndex, exact_scores, vectors
from alula.kernels.inverted_index import index as inverted
from alula.kernels.inverted_index import loops_numpy as sparse_numpy
from alula.kernels.jit import HAS_NUMBA

METRICS = ["COSINE", "IP", "L2"]
DIM = 48
LOOPS = ["numba", "numpy"] if HAS_NUMBA else ["numpy"]


@pytest.fixture(params=LOOPS)
def loops(request, monkeypatch):
    """Both kinds of loops."""
    if request.param == "numpy":
        use_numpy(monkeypatch)
    return request.param


def use_numpy(monkeypatch):
    monkeypatch.setattr(inverted, "sparse_loops", lambda: sparse_numpy)
    monkeypatch.setattr(vectors, "sparse_loops", lambda: sparse_numpy)


def sparse_rows(n, seed=0, dim=DIM, density=0.2, power=1.0):
    """Non-negative rows whose weights vary; some dimensions are much more frequent than others."""
    rng = np.random.default_rng(seed)
    kept = rng.random((n, dim)) < density * np.linspace(0.1, 2, dim)
    return sp.csr_array(np.where(kept, rng.gamma(2, 1, (n, dim)) ** power, 0).astype(np.float32))


def float_rows(n, dim=20, seed=0, offset=0.5, spread=1.0):
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal((n, dim)) + offset) * rng.uniform(1, spread, (n, 1))).astype(np.float32)


def best_by(scores, metric, k):
    """Positions of the best scores, of equal ones those that come first."""
    return np.argsort(scores if metric == "L2" else -scores, kind="stable")[:k]


def filled(rows, x, metric="COSINE", parts=1):
    index = InvertedIndex(rows.shape[1], metric, None if x is None else x.shape[1])
    for part in np.array_split(np.arange(rows.shape[0]), parts):
        if len(part):
            index.add(rows[part], None if x is None else x[part])
    return index


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("parts", [1, 7])
def test_with_enough_candidates_the_results_are_exact(loops, metric, parts):
    rows, x = sparse_rows(700), float_rows(700, spread=3)
    queries, q = sparse_rows(20, seed=1), float_rows(20, seed=1)
    found = filled(rows, x, metric, parts).search(queries, 10, vectors=q, candidates=700, cut=0)
    shared = (rows @ queries.T).toarray() > 0
    for i in range(20):
        scores = exact_scores(q[i], x, metric)
        scores[~shared[:, i]] = np.inf if metric == "L2" else -np.inf
        expected = best_by(scores, metric, 10)
        np.testing.assert_allclose(found.scores[i], scores[expected], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(exact_scores(q[i], x[found.positions[i]], metric), found.scores[i], rtol=1e-5)
        assert set(found.positions[i]) <= set(np.flatnonzero(shared[:, i]))


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("terms", [None, 3])
def test_without_vectors_the_scores_are_inner_products(loops, parts, terms):
    rows, queries = sparse_rows(500), sparse_rows(20, seed=1)
    found = filled(rows, None, parts=parts).search(queries, 15, terms=terms)
    for i, query in enumerate(queries.toarray()):
        if terms:
            query[np.argsort(-query, kind="stable")[terms:]] = 0
        products = rows @ query.astype(np.float64)
        expected = np.sort(products)[::-1][:15]
        expected = expected[expected > 0]
        assert (found.positions[i] >= 0).sum() == len(expected)
        np.testing.assert_allclose(found.scores[i][: len(expected)], expected, rtol=1e-5)
        np.testing.assert_allclose(products[found.positions[i][: len(expected)]], expected, rtol=1e-5)


def test_the_best_inner_products_are_among_the_candidates(loops):
    """Impacts stand for weights, so the border of the candidates is blurred, and only that."""
    rows, queries = sparse_rows(4000, density=0.3), sparse_rows(20, seed=1, density=0.3)
    index = filled(rows, float_rows(4000))
    products = (rows @ queries.T).toarray()
    for cut in (0, 0.05):
        # all candidates come out
        found = index.search(queries, 200, vectors=float_rows(20, seed=1), candidates=200, cut=cut).positions
        shares = [np.isin(best_by(products[:, i], "IP", 20), found[i]).mean() for i in range(20)]
        assert np.mean(shares) > 0.95


@pytest.mark.parametrize("rerank", [None, 0, 5])
def test_deleted_and_invalid_rows_are_not_found(loops, rerank):
    rows, x = sparse_rows(600), float_rows(600)
    index = filled(rows, x, parts=3)
    queries, q = sparse_rows(5, seed=1), float_rows(5, seed=1)
    deleted = np.arange(0, 600, 3)
    index.delete(deleted)
    index.delete(deleted[:3])
    valid = np.arange(600) % 2 == 0
    found = index.search(queries, 400, vectors=q, candidates=600, valid=valid, rerank=rerank, cut=0).positions
    allowed = np.flatnonzero(valid & (np.arange(600) % 3 != 0))
    assert np.isin(found[found >= 0], allowed).all()
    if rerank is None:
        shared = (rows @ queries.T).toarray()[allowed] > 0
        assert ((found >= 0).sum(axis=1) == shared.sum(axis=0)).all()
    index.delete(np.arange(600))
    assert (index.search(queries, 10, vectors=q, rerank=rerank).positions == -1).all()
    assert not index.alive.any()


def test_fewer_rows_than_wanted(loops):
    index = filled(sparse_rows(3, density=0.9), float_rows(3))
    found = index.search(sparse_rows(1, seed=1, density=0.9), 10, vectors=float_rows(1, seed=1))
    assert sorted(found.positions[0][:3]) == [0, 1, 2]
    assert (found.positions[0][3:] == -1).all()


def test_an_empty_index_and_empty_rows(loops):
    index = InvertedIndex(DIM, "IP", 20)
    query, q = sparse_rows(1, seed=1), float_rows(1)
    assert (index.search(query, 3, vectors=q).positions == -1).all()
    index.add(sp.csr_array((0, DIM), dtype=np.float32), np.empty((0, 20), np.float32))
    index.add(sp.csr_array((4, DIM), dtype=np.float32), float_rows(4))
    assert len(index) == 4
    for rerank in (None, 0):
        assert (index.search(query, 3, vectors=q, rerank=rerank).positions == -1).all()
        assert (index.search(sp.csr_array((1, DIM), dtype=np.float32), 3, vectors=q).positions == -1).all()
    index.add(sparse_rows(5, density=0.9), float_rows(5, seed=2))
    assert set(index.search(query, 9, vectors=q).positions[0]) == {4, 5, 6, 7, 8, -1}


def test_the_first_and_the_last_dimension(loops):
    dim = 32768
    rows = sp.csr_array(([1.0, 2.0, 3.0], ([0, 1, 1], [0, 0, dim - 1])), shape=(2, dim), dtype=np.float32)
    index = filled(rows, None)
    query = sp.csr_array(([1.0, 1.0], ([0, 1], [0, dim - 1])), shape=(2, dim), dtype=np.float32)
    found = index.search(query, 2)
    assert found.positions.tolist() == [[1, 0], [1, -1]]
    assert found.scores[0].tolist() == [2, 1]
    assert found.scores[1, 0] == 3


def test_more_rows_than_16_bits_number(loops):
    n = 140_000
    rng = np.random.default_rng(0)
    dims = rng.integers(0, DIM, n)
    rows = sp.csr_array((rng.uniform(0.1, 1, n).astype(np.float32), (np.arange(n), dims)), shape=(n, DIM))
    x = float_rows(n, dim=4)
    index = filled(rows, x, "L2")
    query = sp.csr_array(np.eye(1, DIM, 7, dtype=np.float32))
    found = index.search(query, 5, vectors=x[:1], candidates=n)
    of_dim = np.flatnonzero(dims == 7)
    expected = of_dim[best_by(exact_scores(x[0], x[of_dim], "L2"), "L2", 5)]
    assert found.positions[0].tolist() == expected.tolist()
    best = index.search(query, 5, rerank=0)
    assert best.positions[0].tolist() == best_by(rows[:, [7]].toarray().ravel(), "IP", 5).tolist()


@pytest.mark.parametrize("power", [1e-3, 1, 12, 30])
def test_sums_of_16_bits_never_overflow(loops, power):
    """Weights of any spread, and a row that has the largest weight in every dimension: it stays the best."""
    rows = sparse_rows(300, power=power).toarray()
    rows[123] = rows.max(axis=0) + 1
    index = filled(sp.csr_array(rows), float_rows(300))
    query = sp.csr_array(np.ones((1, DIM), np.float32))
    assert index.search(query, 1, vectors=np.zeros((1, 20)), candidates=1, cut=0).positions[0, 0] == 123


def test_many_terms_and_the_worst_sum(loops):
    """A row in the first level of every list gets the largest sum there can be."""
    dim = 32768
    rows = sp.csr_array(np.vstack([np.full((1, dim), 2.0), np.ones((1, dim))]).astype(np.float32))
    index = filled(rows, float_rows(2))
    query = sp.csr_array(np.ones((1, dim), np.float32))
    assert index.search(query, 1, vectors=np.zeros((1, 20)), candidates=1).positions[0, 0] == 0


def test_rows_that_come_one_by_one_are_in_few_segments(loops):
    rows, x = sparse_rows(300), float_rows(300)
    index = filled(rows, x, "IP", parts=300)
    assert index.segments <= 1 + np.log2(300)
    assert len(index) == 300
    queries, q = sparse_rows(5, seed=1), float_rows(5, seed=1)
    together = filled(rows, x, "IP")
    for rerank in (None, 0):
        one, other = (
            each.search(queries, 10, vectors=q, candidates=300, rerank=rerank, cut=0) for each in (index, together)
        )
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)


def test_merging_drops_the_postings_of_deleted_rows():
    rows = sparse_rows(100, density=0.5)
    index = InvertedIndex(DIM, "IP")
    index.add(rows[:50])
    index.delete(np.arange(50))
    before = index.nbytes["postings"]
    index.add(rows[50:])
    assert index.segments == 1
    assert before > 0
    assert index.nbytes["postings"] == 2 * rows[50:].nnz
    assert index.search(rows[[60]], 1).positions[0, 0] >= 50


@pytest.mark.parametrize("metric", METRICS)
def test_a_saved_index_is_opened_without_copying(loops, metric, tmp_path):
    rows, x = sparse_rows(500), float_rows(500, spread=3)
    index = filled(rows, x, metric, parts=5)
    index.delete(np.arange(0, 500, 7))
    index.save(tmp_path / "index")
    opened = InvertedIndex.load(tmp_path / "index")
    queries, q = sparse_rows(10, seed=1), float_rows(10, seed=1)
    for rerank in (None, 0):
        one, other = (each.search(queries, 10, vectors=q, candidates=50, rerank=rerank) for each in (index, opened))
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.scores, other.scores)
    mapped = [opened.vectors.array, opened.vectors.codes, *(segment.ids for segment in opened._segments)]
    assert all(isinstance(array.base, np.memmap) for array in mapped)
    for each in (index, opened):
        each.add(sparse_rows(30, seed=3), float_rows(30, seed=3))
    one, other = (each.search(queries, 10, vectors=q, candidates=50) for each in (index, opened))
    np.testing.assert_array_equal(one.positions, other.positions)
    assert len(InvertedIndex.load(tmp_path / "index")) == 500


def test_an_empty_index_is_saved(tmp_path):
    InvertedIndex(DIM, "L2", 20).save(tmp_path / "index")
    opened = InvertedIndex.load(tmp_path / "index")
    assert len(opened) == 0
    opened.add(sparse_rows(5), float_rows(5))
    assert opened.search(sparse_rows(1), 1, vectors=float_rows(1)).positions[0, 0] >= 0


def test_what_is_no_index_is_refused(tmp_path):
    (tmp_path / "about.json").write_text("{}")
    with pytest.raises(DataError, match="holds no inverted index"):
        InvertedIndex.load(tmp_path)


def test_vectors_that_are_refused_change_nothing(loops):
    rows, x = sparse_rows(30), float_rows(30)
    index = filled(rows, x)
    before = index.search(rows[:3], 30, vectors=x[:3])
    for wrong in (float_rows(5, dim=19), float_rows(5, dim=1), float_rows(4), None):
        with pytest.raises(DataError, match="index holds"):
            index.add(rows[:5], wrong)
    assert (len(index), index.segments, len(index.vectors)) == (30, 1, 30)
    np.testing.assert_array_equal(index.search(rows[:3], 30, vectors=x[:3]).positions, before.positions)
    with pytest.raises(DataError, match="20 dimensions"):
        InvertedIndex(DIM, "L2", 20).add(rows[:5], float_rows(5, dim=19))


@pytest.mark.parametrize("deleted", [False, True])
def test_a_mask_of_another_length_is_refused(loops, deleted):
    rows, x = sparse_rows(30), float_rows(30)
    index = filled(rows, x)
    if deleted:
        index.delete(np.array([3]))
    for rerank in (None, 0):
        for wrong in (np.ones(29, bool), np.ones(31, bool), np.ones(1, bool), np.empty(0, bool), np.ones(30, np.uint8)):
            with pytest.raises(DataError, match="30 positions"):
                index.search(rows[:2], 5, vectors=x[:2], valid=wrong, rerank=rerank)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_no_weights_are_refused(weight):
    index = InvertedIndex(2, "IP")
    bad = sp.csr_array(np.array([[1.0, weight]], np.float32))
    with pytest.raises(DataError, match="negative or not finite"):
        index.add(bad)
    if weight < 0:
        with pytest.raises(DataError, match="negative or not a number"):
            index.search(bad, 1)
    with pytest.raises(DataError, match="3 sparse dimensions"):
        index.add(sp.csr_array((1, 3), dtype=np.float32))
    with pytest.raises(DataError, match="3 sparse dimensions"):
        index.search(sp.csr_array((1, 3), dtype=np.float32), 1)


def test_duplicates_and_zeros_of_a_csr_array(loops):
    rows = sp.csr_array((np.array([1, 2, 0, 5], np.float32), np.array([3, 3, 1, 2]), np.array([0, 3, 4])), shape=(2, 8))
    index = filled(rows, None)
    assert index.search(sp.csr_array(np.eye(1, 8, 3, dtype=np.float32)), 2).positions.tolist() == [[0, -1]]
    assert index.search(sp.csr_array(np.eye(1, 8, 3, dtype=np.float32)), 1).scores[0, 0] == 3


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (1000, 1), (0, 1e4), (0, 1e-12)])
def test_re_ranking_reads_every_row_that_may_be_best(loops, metric, offset, spread):
    """Far from the origin, of lengths that differ 10,000-fold, or tiny: codes of 8 bits lose no row."""
    x = float_rows(2000, offset=offset, spread=spread) if spread >= 1 else float_rows(2000) * np.float32(spread)
    index = InvertedIndex(1, metric, 20)
    index.add(sp.csr_array(np.ones((2000, 1), np.float32)), x)
    for i in range(10):
        query = x[i] + np.float32(0.1) * float_rows(1, seed=i + 1)[0] * np.abs(x[i]).max()
        found = index.search(sp.csr_array(np.ones((1, 1), np.float32)), 10, vectors=query[None], candidates=2000)
        scores = exact_scores(query.astype(np.float64), x.astype(np.float64), metric)
        best = scores[best_by(scores, metric, 10)]
        np.testing.assert_allclose(scores[found.positions[0]], best, rtol=1e-4, atol=1e-5 * abs(best).max())


def test_zero_vectors_have_scores(loops):
    x = np.zeros((20, 20), np.float32)
    x[7] = 1
    for metric, expected in (("COSINE", 7), ("IP", 7), ("L2", 7)):
        index = InvertedIndex(1, metric, 20)
        index.add(sp.csr_array(np.ones((20, 1), np.float32)), x)
        one = sp.csr_array(np.ones((1, 1), np.float32))
        found = index.search(one, 2, vectors=x[[7]])
        assert found.positions[0].tolist() == [expected, 0]
        np.testing.assert_allclose(found.scores[0], exact_scores(x[7], x[found.positions[0]], metric), rtol=1e-6)
        assert index.search(one, 2, vectors=x[[0]]).scores[0].tolist() == [0, 0]


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed: pip install 'alula[fast]'")
@pytest.mark.parametrize("seed", range(12))
def test_numba_and_numpy_find_the_same(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n, dim, k = int(rng.integers(1, 3000)), int(rng.integers(1, 90)), int(rng.integers(1, 40))
    rows = sparse_rows(n, seed, dim=60, power=rng.choice([0.5, 1, 5]))
    queries = sparse_rows(6, seed + 100, dim=60)
    x, q = (float_rows(m, dim, seed + at, spread=rng.choice([1, 50])) for at, m in ((0, n), (1, 6)))
    metric, parts = METRICS[seed % 3], int(rng.integers(1, 6))
    options = {
        "candidates": int(rng.integers(1, 600)),
        "terms": rng.choice([None, 4]),
        "rerank": rng.choice([None, 0, 20]),
        "cut": float(rng.choice([0, 0.05, 0.3])),
        "valid": rng.random(n) < 0.7 if seed % 2 else None,
    }
    deleted = rng.integers(0, n, n // 5)
    results = []
    for _ in range(2):
        index = filled(rows, x, metric, parts)
        index.delete(deleted)
        results.append(index.search(queries, k, vectors=q, **options))
        use_numpy(monkeypatch)
    np.testing.assert_array_equal(results[0].positions, results[1].positions)
    np.testing.assert_array_equal(results[0].scores, results[1].scores)


def test_threads_find_the_same():
    rows, x = sparse_rows(900), float_rows(900)
    queries, q = sparse_rows(31, seed=1), float_rows(31, seed=1)
    index = filled(rows, x, parts=2)
    one, several = (index.search(queries, 10, vectors=q, candidates=100, threads=threads) for threads in (1, 4))
    np.testing.assert_array_equal(one.positions, several.positions)
    np.testing.assert_array_equal(one.scores, several.scores)


PRINT_RESULTS = """
import sys
import numpy as np
from tests.unit.kernels.inverted_index.test_index import filled, float_rows, sparse_rows

found = filled(sparse_rows(2000), float_rows(2000, 50), "COSINE").search(
    sparse_rows(20, seed=1), 10, vectors=float_rows(20, 50, seed=1), candidates=100
)
print(found.positions.tolist(), found.scores.view(np.uint32).tolist())
"""


def results_of_a_process(before="", **environment):
    import os

    done = subprocess.run(
        [sys.executable, "-c", before + PRINT_RESULTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed: pip install 'alula[fast]'")
def test_other_processors_and_no_numba_find_the_same(takes_long):
    import platform

    as_here = results_of_a_process()
    assert as_here.count("[") > 20
    if platform.machine() == "x86_64":
        older = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,-avx512f"}
        # numba's cache separates processors: only the first run on a machine compiles
        assert results_of_a_process(**older) == as_here
    without = "import sys\nsys.modules['numba'] = sys.modules['llvmlite'] = None\n"
    assert results_of_a_process(without) == as_here
