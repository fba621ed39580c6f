"""A sample of rows: queries are other rows, and their neighbours those of brute force in the sample."""

from __future__ import annotations

import numpy as np
import pytest

from alula.errors import DataError, UsageError
from alula.evaluation.queries import QueryOptions
from alula.evaluation.row_sample import draw_sample
from alula.evaluation.row_source import file_rows
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors

VECTORS = random_vectors(1000, seed=1)


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "rows.npy", VECTORS)
    return file_rows(str(tmp_path / "rows.npy"), None, None)


def draw(rows, most=300, target=0.95, **options):
    given = {"k": 5, "seed": 3, **options}
    return draw_sample(rows, QueryOptions(**given), most=most, target=target, metric="COSINE")


def positions(vectors):
    return [int(np.flatnonzero((v == VECTORS).all(axis=1))[0]) for v in vectors]


def test_rows_and_queries_are_different_rows(rows):
    sample = draw(rows)
    assert (sample.total, len(sample.vectors)) == (1000, 300)
    queries = sample.query_set.queries
    drawn = positions(sample.vectors) + positions(queries.vectors)
    assert len(queries) == 100  # a tenth of the rows, where that is enough for the target
    assert len(set(drawn)) == 400
    for vector, truth in zip(queries.vectors, queries.ground_truth, strict=True):
        assert truth == best(scores(vector, sample.vectors, "COSINE"), 5, "COSINE").tolist()
    ((keys, vectors),) = sample.source.blocks()
    assert keys == list(range(300))
    assert np.array_equal(vectors, sample.vectors)
    assert np.array_equal(draw(rows).vectors, sample.vectors)
    assert not np.array_equal(draw(rows, seed=4).vectors, sample.vectors)


def test_all_rows_but_the_queries_of_a_small_file(rows):
    sample = draw(rows, most=20_000)
    assert sorted(positions(sample.vectors) + positions(sample.query_set.queries.vectors)) == list(range(1000))


def test_queries_of_a_file_leave_all_rows_to_the_sample(rows, tmp_path):
    queries = random_vectors(40, seed=2)
    np.save(tmp_path / "asked.npy", queries)
    sample = draw(rows, most=20_000, queries=tmp_path / "asked.npy")
    assert sorted(positions(sample.vectors)) == list(range(1000))
    assert np.array_equal(sample.query_set.queries.vectors, queries)
    for vector, truth in zip(queries, sample.query_set.queries.ground_truth, strict=True):
        assert truth == best(scores(vector, sample.vectors, "COSINE"), 5, "COSINE").tolist()


def test_too_few_rows_or_queries(rows, tmp_path):
    np.save(tmp_path / "few.npy", VECTORS[:34])
    few = file_rows(str(tmp_path / "few.npy"), None, None)
    with pytest.raises(UsageError, match=r"34 rows, too few for 5 neighbours beside 30 rows as queries"):
        draw(few)
    with pytest.raises(UsageError, match=r"too few for 500 neighbours"):
        draw(few, k=500)
    with pytest.raises(UsageError, match=r"no 40 neighbours; lower k="):
        draw(rows, most=30, k=40)
    np.save(tmp_path / "asked.npy", VECTORS[:29])
    with pytest.raises(UsageError, match=r"asked.npy has 29 queries, too few to show a recall@5 of 0.95 .* takes 30"):
        draw(rows, queries=tmp_path / "asked.npy")
    np.save(tmp_path / "narrow.npy", VECTORS[:40, :7])
    with pytest.raises(DataError, match="7"):
        draw(rows, queries=tmp_path / "narrow.npy")
