"""The index of codes: both scans against every row's score, computed one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.errors import DataError
from alula.kernels import CodeIndex, InvertedIndex
from alula.kernels.code_index import index as code_index
from alula.kernels.code_index import loops_numpy as codes_numpy
from alula.kernels.code_index.layout import CODE_BLOCK
from alula.kernels.jit import HAS_NUMBA
from alula.kernels.loops import code_loops

METRICS = ["COSINE", "IP", "L2"]
LOOPS = {"numpy": codes_numpy} | ({"numba": code_loops()} if HAS_NUMBA else {})


@pytest.fixture(params=LOOPS)
def scan(request, monkeypatch):
    """Each of the scans in turn."""
    monkeypatch.setattr(code_index, "code_loops", lambda: LOOPS[request.param])


def by_each(index, *arguments, **options):
    """What each of the scans finds."""
    results = []
    for loops in LOOPS.values():
        index._loops = loops
        results.append(index.search(*arguments, **options))
    return results


def made(rows, levels, seed=0, words=256, dim=6):
    """Codes, prefix norms, look-up tables of 5 queries, their norms, all from real codebooks, and the vectors."""
    rng = np.random.default_rng(seed)
    books = rng.standard_normal((levels, 256, dim)) * 0.8 ** np.arange(levels)[:, None, None]
    codes = rng.integers(0, words, (rows, levels), np.uint8)
    sums = np.cumsum([books[level][codes[:, level]] for level in range(levels)], axis=0)
    queries = rng.standard_normal((5, dim)).astype(np.float32)
    lut = np.einsum("qd,lwd->qlw", queries, books).astype(np.float32)
    norms = np.linalg.norm(sums, axis=2).T.astype(np.float32)
    vectors = (sums[-1] + 0.1 * rng.standard_normal((rows, dim))).astype(np.float32)
    return codes, norms, lut, np.linalg.norm(queries, axis=1).astype(np.float32), vectors, queries


def every_score(codes, norms, lut, query_norm, metric, scale):
    """The asymmetric score of each row, by the formulas: float64 (n,)."""
    products = sum(lut[level].astype(np.float64)[codes[:, level]] for level in range(codes.shape[1]))
    norm = norms[:, codes.shape[1] - 1].astype(np.float16).astype(np.float64)
    if metric == "IP":
        return products * scale**2
    if metric == "L2":
        return (float(query_norm) ** 2 - 2 * products + norm**2) * scale**2
    return np.divide(products, norm, out=np.zeros_like(products), where=norm > 0)


def assert_best(found, scores, may, metric, tolerance):
    """The rows found are the best of those that may be found, up to how exact float32 is."""
    best = np.sort(scores[may])[:: 1 if metric == "L2" else -1]
    got = found[0][found[0] >= 0]
    k = len(found[0])
    assert len(got) == min(k, len(best))
    assert len(set(got.tolist())) == len(got)
    assert may[got].all()
    assert (found[0][len(got) :] == -1).all()
    np.testing.assert_allclose(found[1][: len(got)], scores[got], atol=tolerance)
    np.testing.assert_allclose(scores[got], best[: len(got)], atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("rows", "levels"), [(1, 1), (CODE_BLOCK, 3), (1_000, 11), (140_000, 5)]
)  # the last is sampled
def test_finds_the_best_rows_by_every_prefix(scan, metric, rows, levels):
    codes, norms, lut, query_norms, _, _ = made(rows, levels)
    index = CodeIndex(levels, metric, scale=3.0)
    index.add(codes, norms)
    for length in {1, levels // 2 + 1, levels}:
        for k in (1, 10, 700):
            found = index.search(lut[:2], query_norms[:2], k, levels=length)
            for i in range(2):
                scores = every_score(codes[:, :length], norms, lut[i], query_norms[i], metric, 3.0)
                assert_best((found.positions[i], found.scores[i]), scores, np.ones(rows, bool), metric, 3e-4)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    rows=st.integers(0, 600),
    levels=st.integers(1, 9),
    words=st.sampled_from([1, 2, 256]),  # few codewords: many rows have the same code
    k=st.integers(1, 40),
    metric=st.sampled_from(METRICS),
    probes=st.sampled_from([None, 1, 3, 256]),
)
def test_both_scans_give_the_same_rows_and_bits(seed, rows, levels, words, k, metric, probes):
    codes, norms, lut, query_norms, vectors, queries = made(rows, levels, seed, words)
    rng = np.random.default_rng(seed)
    index = CodeIndex(levels, metric, 0.5, vectors.shape[1] if seed % 2 else None)
    for part in np.array_split(np.arange(rows), 3):
        index.add(codes[part], norms[part], vectors[part])
    index.delete(rng.choice(rows, rows // 4, replace=False) if rows else np.empty(0, np.int64))
    valid = rng.random(rows) < 0.5 if seed % 3 else None
    length = 1 + seed % levels
    options = {"levels": length, "vectors": queries, "candidates": 50, "valid": valid, "probes": probes}
    results = by_each(index, lut, query_norms, k, **options)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].positions, other.positions)
        np.testing.assert_array_equal(results[0].scores, other.scores)
    may = index.alive if valid is None else index.alive & valid
    assert may[results[0].positions[results[0].positions >= 0]].all()
    if index.vectors is None and probes in (None, 256):
        for i in range(len(lut)):
            scores = every_score(codes[:, :length], norms, lut[i], query_norms[i], metric, 0.5)
            assert_best((results[0].positions[i], results[0].scores[i]), scores, may, metric, 1e-4)


def test_equal_rows_are_found_in_the_order_of_their_positions(scan):
    codes, norms, lut, query_norms, _, _ = made(140_000, 2, words=1)
    index = CodeIndex(2, "COSINE")
    index.add(codes, norms)
    index.delete(np.arange(0, 20, 2))
    for probes in (None, 1):
        found = index.search(lut[:1], query_norms[:1], 12, probes=probes)
        assert found.positions[0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 20, 21]


def test_exact_scores_rank_the_candidates(scan):
    codes, norms, lut, query_norms, vectors, queries = made(2_000, 4)
    index = CodeIndex(4, "L2", vector_dim=vectors.shape[1])
    index.add(codes, norms, vectors)
    every = index.search(lut, query_norms, 10, vectors=queries, candidates=2_000)
    some = index.search(lut, query_norms, 10, vectors=queries, candidates=2_000, rerank=100)
    by_code = index.search(lut, query_norms, 100, vectors=queries, rerank=0)
    for i in range(len(lut)):
        true = np.square(vectors - queries[i]).sum(1)
        np.testing.assert_array_equal(every.positions[i], np.argsort(true, kind="stable")[:10])
        np.testing.assert_allclose(every.scores[i], np.sort(true)[:10], rtol=1e-4)
        depth = by_code.positions[i]
        np.testing.assert_array_equal(some.positions[i], depth[np.argsort(true[depth], kind="stable")][:10])


@pytest.mark.parametrize("metric", METRICS)
def test_probes_visit_the_rows_of_the_nearest_first_codewords_and_new_ones(scan, metric):
    codes, norms, lut, query_norms, _, _ = made(5_000, 3)
    index = CodeIndex(3, metric)
    index.add(codes[:4_500], norms[:4_500])
    index.search(lut[:1], query_norms[:1], 1, probes=1)  # orders the rows there are
    index.add(codes[4_500:], norms[4_500:])
    index.delete(np.arange(0, 5_000, 7))
    word_norms = np.zeros(256)
    word_norms[codes[:, 0]] = norms[:, 0]
    for i in range(len(lut)):
        near = lut[i, 0] if metric == "IP" else 2 * lut[i, 0] - word_norms**2
        visited = np.isin(codes[:, 0], np.argsort(-near, kind="stable")[:5]) | (np.arange(5_000) >= 4_500)
        found = index.search(lut[i : i + 1], query_norms[i : i + 1], 30, probes=5)
        scores = every_score(codes, norms, lut[i], query_norms[i], metric, 1.0)
        assert_best((found.positions[0], found.scores[0]), scores, index.alive & visited, metric, 1e-4)


def test_more_probes_than_codewords_visit_every_row(scan):
    codes, norms, lut, query_norms, _, _ = made(3_000, 3)
    index = CodeIndex(3, "COSINE")
    index.add(codes, norms)
    every, probed = (index.search(lut, query_norms, 20, probes=probes) for probes in (None, 1_000))
    np.testing.assert_array_equal(every.positions, probed.positions)


def test_a_saved_index_opens_by_memory_map_and_goes_on(scan, tmp_path):
    codes, norms, lut, query_norms, vectors, queries = made(3_000, 4)
    index = CodeIndex(4, "COSINE", vector_dim=vectors.shape[1])
    index.add(codes[:2_000], norms[:2_000], vectors[:2_000])
    index.delete(np.arange(100))
    index.search(lut, query_norms, 10, probes=4)
    index.save(tmp_path / "index")
    opened = CodeIndex.load(tmp_path / "index")
    assert isinstance(opened._slots.codes.base, np.memmap) or isinstance(opened._slots.codes, np.memmap)
    for each in (index, opened):
        each.add(codes[2_000:], norms[2_000:], vectors[2_000:])
        each.delete(np.array([2_500]))
    assert len(opened) == 3_000
    for options in ({}, {"probes": 4}, {"vectors": queries}):
        first, second = (each.search(lut, query_norms, 10, **options) for each in (index, opened))
        np.testing.assert_array_equal(first.positions, second.positions)
        np.testing.assert_array_equal(first.scores, second.scores)


def test_a_folder_that_holds_no_index_is_refused(tmp_path):
    with pytest.raises(DataError):
        CodeIndex.load(tmp_path)
    codes, norms, _, _, vectors, _ = made(50, 2)
    index = CodeIndex(2, "L2", vector_dim=vectors.shape[1])
    index.add(codes, norms, vectors)
    index.save(tmp_path / "whole")
    files = list((tmp_path / "whole").glob("*.npy"))
    for path in files:
        if path.stem != "vectors":  # without these it is an index that holds none
            held = path.read_bytes()
            path.unlink()
            with pytest.raises(DataError, match=f"'{path.stem}' is missing"):
                CodeIndex.load(tmp_path / "whole")
            path.write_bytes(held)
    InvertedIndex(4, "L2").save(tmp_path / "inverted")
    with pytest.raises(DataError, match="holds no index of codes"):
        CodeIndex.load(tmp_path / "inverted")


def test_rows_that_are_refused_change_nothing(scan):
    codes, norms, lut, query_norms, vectors, queries = made(50, 2)
    index = CodeIndex(2, "L2", vector_dim=vectors.shape[1])
    index.add(codes, norms, vectors)
    before = index.search(lut, query_norms, 50, vectors=queries)
    for wrong in (
        (codes[:5], norms[:5], vectors[:5, :-1]),
        (codes[:5], norms[:5], vectors[:4]),
        (codes[:5], norms[:5], None),
        (codes[:5], 2 * norms[:4], vectors[:5]),
        (codes[:5, :1], 2 * norms[:5], vectors[:5]),
    ):
        with pytest.raises(DataError, match=r"index (takes|holds)"):
            index.add(*wrong)
    assert (len(index), len(index.vectors)) == (50, 50)
    for probes in (None, 256):
        after = index.search(lut, query_norms, 50, vectors=queries, probes=probes)
        np.testing.assert_array_equal(after.positions, before.positions)


@pytest.mark.parametrize("probes", [None, 3])
def test_a_mask_of_another_length_is_refused(scan, probes):
    codes, norms, lut, query_norms, _, _ = made(50, 2)
    index = CodeIndex(2, "COSINE")
    index.add(codes, norms)
    for deleted in ([], [3]):
        index.delete(np.array(deleted, int))
        for wrong in (np.ones(49, bool), np.ones(51, bool), np.ones(1, bool), np.empty(0, bool)):
            with pytest.raises(DataError, match="50 positions"):
                index.search(lut, query_norms, 5, valid=wrong, probes=probes)


def test_no_results_are_found_where_none_are_wanted(scan):
    codes, norms, lut, query_norms, vectors, queries = made(50, 2)
    index = CodeIndex(2, "COSINE", vector_dim=vectors.shape[1])
    index.add(codes, norms, vectors)
    for some in (None, queries):
        assert index.search(lut, query_norms, 0, vectors=some).positions.shape == (5, 0)


@pytest.mark.parametrize("probes", [None, 3])
def test_nothing_is_found_where_nothing_is_left(scan, probes, tmp_path):
    codes, norms, lut, query_norms, _, _ = made(300, 2)
    index = CodeIndex(2, "COSINE")
    index.save(tmp_path / "empty")
    for empty in (index, CodeIndex.load(tmp_path / "empty")):
        assert (empty.search(lut, query_norms, 3, probes=probes).positions == -1).all()
    index.add(codes, norms)
    assert (index.search(lut, query_norms, 3, valid=np.zeros(300, bool), probes=probes).positions == -1).all()
    index.delete(np.arange(300))
    index.delete(np.arange(10))
    assert (index.search(lut, query_norms, 3, probes=probes).positions == -1).all()
    index.add(codes[:2], norms[:2])
    assert sorted(index.search(lut[:1], query_norms[:1], 3, probes=probes).positions[0]) == [-1, 300, 301]


def test_only_lengths_of_which_all_norms_came_can_be_searched():
    codes, norms, _, _, _, _ = made(10, 4)
    index = CodeIndex(4, "L2")
    assert index.lengths == (1, 2, 3, 4)
    norms[:, 1] = np.nan
    index.add(codes, norms)
    assert index.lengths == (1, 3, 4)
    norms[3, 2] = np.nan
    index.add(codes, norms)
    assert index.lengths == (1, 4)
    some = CodeIndex(4, "L2", lengths=[4, 3])
    assert some.lengths == (3, 4)
    some.add(*made(10, 4)[:2])
    assert some.lengths == (3, 4)
    without = CodeIndex(4, "IP")
    without.add(codes, norms)
    assert without.lengths == (1, 2, 3, 4)
    assert without.nbytes["norms"] == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [0.0, 1e-42, 1e-20, 1e19, 1e38, np.inf, np.nan])
def test_numbers_at_the_ends_of_float32(metric, factor):
    codes, norms, lut, query_norms, _, _ = made(900, 3)
    norms[:5] = 0
    with np.errstate(all="ignore"):
        lut = (lut * np.float32(factor)).astype(np.float32)
        norms = (norms * np.float32(min(factor, 1e30) if np.isfinite(factor) else 1)).astype(np.float32)
    index = CodeIndex(3, metric)
    index.add(codes, norms)
    results = by_each(index, lut, query_norms, 20)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].positions, other.positions)
        np.testing.assert_array_equal(results[0].scores, other.scores)
    assert (results[0].positions >= 0).all()


def test_searches_go_on_while_rows_come_and_go():
    codes, norms, lut, query_norms, _, _ = made(20_000, 3)
    index = CodeIndex(3, "COSINE")
    index.add(codes[:2_000], norms[:2_000])
    index.delete(np.arange(500))
    found = []

    def search():
        while len(index) < len(codes):
            found.extend(index.search(lut, query_norms, 50, probes=probes).positions for probes in (None, 20, 256))

    with ThreadPoolExecutor(2) as pool:
        searches = [pool.submit(search) for _ in range(2)]
        for part in np.array_split(np.arange(2_000, 20_000), 60):
            index.add(codes[part], norms[part])
            index.search(lut[:1], query_norms[:1], 1, probes=1)
    for each in searches:
        each.result()
    assert min(positions.min() for positions in found) >= 500
    fresh = CodeIndex(3, "COSINE")
    fresh.add(codes, norms)
    fresh.delete(np.arange(500))
    np.testing.assert_array_equal(
        index.search(lut, query_norms, 50).positions, fresh.search(lut, query_norms, 50).positions
    )
