"""Queries and their true neighbours: against brute force, without their own rows, in files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.errors import DataError, UsageError
from alula.evaluation.ground_truth import find_ground_truth
from alula.evaluation.queries import QueryOptions, make_queries
from alula.evaluation.row_source import file_rows, sample_rows
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors

VECTORS = random_vectors(500, seed=1)
QUERIES = random_vectors(23, seed=2)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "rows.npy", VECTORS)
    return tmp_path / "rows.npy"


def ask(file, **given):
    call = {
        "encoder": None,
        "metric": "COSINE",
        **{name: given.pop(name) for name in ("metric", "key_type") if name in given},
    }
    rows = file_rows(str(file), None, None) if file else None
    return make_queries(rows, QueryOptions(**{"sample": 20, "seed": 3, "k": 5, **given}), **call)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_true_neighbours_are_those_of_brute_force(file, metric):
    truth = find_ground_truth(file_rows(str(file), None, None), QUERIES, 7, metric)
    assert [one.keys for one in truth] == [
        best(scores(query, VECTORS, metric), 7, metric).tolist() for query in QUERIES
    ]


def test_rows_drawn_as_queries_are_not_their_own_neighbours(file):
    queries = ask(file).queries
    assert len(set(queries.own)) == 20
    for own, vector, truth in zip(queries.own, queries.vectors, queries.ground_truth, strict=True):
        assert np.array_equal(vector, VECTORS[own])
        ranked = best(scores(vector, VECTORS, "COSINE"), 6, "COSINE").tolist()
        assert truth == [key for key in ranked if key != own][:5]
    found = [[own, 1001, 1002, 1003, 1004, 1005] for own in queries.own]
    assert queries.without_own(0, found) == [[1001, 1002, 1003, 1004, 1005]] * 20


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_rows_as_near_as_the_last_neighbour_are_ties(tmp_path, metric):
    file = tmp_path / "rows.npy"
    np.save(file, np.repeat(VECTORS[:60], 4, axis=0))  # 4 i to 4 i + 3 are equal
    for k in (10, 6):  # the fewer are read out of the file of the more
        queries = ask(file, k=k, metric=metric).queries
        for own, true, ties in zip(queries.own, queries.ground_truth, queries.ties, strict=True):
            last = true[-1] // 4
            assert set(ties) == set(range(4 * last, 4 * last + 4)) - {own, *true}
            assert len(true) == k
    assert len(list(tmp_path.glob("*.truth.npz"))) == 1
    part = queries.part(2, 4)
    assert (part.ties, part.relevant(1)) == (queries.ties[2:4], queries.relevant(3))


def test_every_row_is_as_likely_to_be_drawn(file):
    rows = file_rows(str(file), None, None)
    drawn = np.concatenate([sample_rows(rows, 50, seed)[0] for seed in range(40)])
    assert sample_rows(rows, 50, 1)[0] == sample_rows(rows, 50, 1)[0]
    # 2,000 draws of 500 rows in ten equal parts: 200 in each, give or take four standard deviations
    assert np.abs(np.histogram(drawn, 10, (0, 500))[0] - 200).max() < 4 * np.sqrt(200)


def test_true_neighbours_are_found_once(file, monkeypatch):
    first = ask(file).queries.ground_truth
    (kept,) = file.parent.glob("*.truth.npz")
    monkeypatch.setattr("alula.evaluation.queries.find_ground_truth", lambda *_, **__: pytest.fail("found again"))
    assert ask(file).queries.ground_truth == first
    assert ask(file, k=3).queries.ground_truth == [keys[:3] for keys in first]
    monkeypatch.undo()
    np.save(file, VECTORS[::-1])  # other rows: what was kept does not hold any more
    assert ask(file).queries.ground_truth != first
    kept.write_bytes(b"no archive")
    np.save(file, VECTORS)
    assert ask(file).queries.ground_truth == first


def test_true_neighbours_of_the_user(file, tmp_path):
    np.save(tmp_path / "q.npy", QUERIES)
    given = np.arange(23 * 6).reshape(23, 6)
    np.save(tmp_path / "truth.npy", given)
    asked = ask(None, queries=tmp_path / "q.npy", truth=tmp_path / "truth.npy")
    assert asked.queries.ground_truth == given[:, :5].tolist()
    made = ask(file, queries=tmp_path / "q.npy", truth=tmp_path / "made.npz").queries.ground_truth
    assert (tmp_path / "made.npz").exists()
    assert ask(None, queries=tmp_path / "q.npy", truth=tmp_path / "made.npz").queries.ground_truth == made


def test_truth_that_cannot_be_used(file, tmp_path):
    np.save(tmp_path / "q.npy", QUERIES)
    np.save(tmp_path / "floats.npy", np.ones((23, 6)))
    np.save(tmp_path / "few.npy", np.ones((22, 6), int))
    np.save(tmp_path / "short.npy", np.ones((23, 4), int))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("floats", "few", "short", "text"):
        with pytest.raises(DataError, match=f"{name}.npy"):
            ask(file, queries=tmp_path / "q.npy", truth=tmp_path / f"{name}.npy")
    np.save(tmp_path / "numbers.npy", np.ones((23, 6), int))
    np.save(tmp_path / "strings.npy", np.full((23, 6), "7"))
    for name, key_type, says in (("numbers", str, "contains integers"), ("strings", int, "contains strings")):
        with pytest.raises(DataError, match=f"{name}.npy {says}"):
            ask(None, queries=tmp_path / "q.npy", truth=tmp_path / f"{name}.npy", key_type=key_type)
    ask(file, truth=tmp_path / "mine.npz")
    with pytest.raises(DataError, match=r"mine.npz is of other queries"):
        ask(file, seed=4, truth=tmp_path / "mine.npz")


def test_too_few_rows(tmp_path):
    np.save(tmp_path / "five.npy", VECTORS[:5])
    with pytest.raises(UsageError, match="no 5 neighbours"):
        ask(tmp_path / "five.npy", sample=2)
    with pytest.raises(UsageError, match="smaller sample="):
        ask(tmp_path / "five.npy", sample=6)
    np.save(tmp_path / "q.npy", random_vectors(4, 7))
    with pytest.raises(DataError, match="7 dimensions"):
        ask(tmp_path / "five.npy", queries=tmp_path / "q.npy", k=2)


def test_columns_of_rows_by_their_number(tmp_path):
    table = pa.table({"word": [f"w{i}" for i in range(500)], "vector": list(VECTORS)})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = file_rows(str(tmp_path / "rows.parquet"), None, None)
    assert rows.columns([7, 450]) == {7: {"word": "w7"}, 450: {"word": "w450"}}
