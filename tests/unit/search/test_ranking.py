"""A ranking in stages: every page of it is a slice of one list, whatever the sizes of the pages."""

from __future__ import annotations

import numpy as np
import pytest

from alula.index_types import MAX_RESULTS
from alula.search.ranking import RankedIds, best_first, rank_in_stages, stage_depths

ROWS = 400


def approximate_index(rng):
    """Ranks candidates that are not nested: which rows tie at its last score depends on how many it is asked for."""
    estimates, scores = rng.integers(0, 12, ROWS), rng.integers(0, 30, ROWS).astype(np.float32)

    def search(numbers, depth):
        shuffled = np.random.default_rng(depth).permutation(ROWS)
        candidates = shuffled[np.argsort(estimates[shuffled], kind="stable")][:depth]
        found = best_first(candidates.tolist(), scores[candidates], depth, larger=True, exact=True)
        return [found for _ in numbers]

    return search, scores


@pytest.mark.parametrize("seed", range(20))
def test_pages_of_any_size_are_slices_of_one_ranking(seed):
    rng = np.random.default_rng(seed)
    search, scores = approximate_index(rng)
    first = int(rng.integers(1, 50))

    def rank(wanted):
        def enough(_, ranked):
            return len(ranked.ids) >= wanted

        (ranked,) = rank_in_stages(search, 1, stage_depths(first, wanted), enough)
        return ranked

    whole = rank(ROWS)
    assert sorted(whole.ids) == list(range(ROWS))
    np.testing.assert_array_equal(whole.scores, scores[np.array(whole.ids)])
    for _ in range(20):
        start, size = int(rng.integers(0, ROWS)), int(rng.integers(1, 100))
        assert rank(start + size).page(start, size).ids == whole.page(start, size).ids


def test_stages_double_up_to_what_milvus_returns():
    assert stage_depths(1000, 10) == stage_depths(1000, 1000) == [1000]
    assert stage_depths(30, 300) == [30, 60, 120, 240, 480]
    assert stage_depths(1000, MAX_RESULTS)[-2:] == [16000, MAX_RESULTS]
    assert stage_depths(20_000, 1) == [MAX_RESULTS]


def test_only_queries_that_need_more_rows_get_a_further_stage():
    seen = []

    def search(numbers, depth):
        seen.append((list(numbers), depth))
        counts = [2 if number == 0 else depth for number in numbers]  # of the first query there are two rows
        return [RankedIds(list(range(count)), np.zeros(count, np.float32), exact=False) for count in counts]

    ranked = rank_in_stages(search, 3, [4, 8, 16], lambda number, one: number == 1 or len(one.ids) >= 8)
    assert seen == [([0, 1, 2], 4), ([2], 8)]
    assert [len(one.ids) for one in ranked] == [2, 4, 8]


@pytest.mark.parametrize("ids", [[5, 3, 9, 1, 7], ["e", "c", "i", "a", "g"]])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_equal_scores_are_ordered_by_id(ids, count):
    scores = np.array([1, 2, 1, 1, 2], np.float32)
    ranked = best_first(ids, scores, count, larger=True, exact=True)
    wanted = sorted(zip(-scores, ids, strict=True))[:count]
    assert list(zip(-ranked.scores, ranked.ids, strict=True)) == wanted
    nearest = best_first(ids, scores, count, larger=False, exact=True)
    assert list(zip(nearest.scores, nearest.ids, strict=True)) == sorted(zip(scores, ids, strict=True))[:count]


def test_scoring_again_moves_only_rows_that_changed_and_only_within_their_stage():
    vectors = np.array([[0.9, 0], [0.5, 0], [0.7, 0], [0.1, 0]], np.float32)
    query = np.array([1, 0], np.float32)
    ranked = RankedIds(["a", "b", "c", "d"], vectors[:, 0].copy(), True, np.array([0, 0, 1, 1]))
    assert ranked.rescored(query, vectors * np.float32(1 + 1e-6), "IP") is ranked
    vectors[0] = 0.2
    moved = ranked.rescored(query, vectors, "IP")
    assert moved.ids == ["b", "a", "c", "d"]
    np.testing.assert_allclose(moved.scores, [0.5, 0.2, 0.7, 0.1])
