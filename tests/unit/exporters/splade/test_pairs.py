from __future__ import annotations

import json

import pytest

from alula.errors import DataError, UsageError
from alula_exporters.splade import read_pairs


def written(folder, rows, name="pairs.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plain(count):
    return [{"query": f"q{i}", "document": f"d{i}"} for i in range(count)]


def test_rows_of_one_query_are_its_documents(tmp_path):
    rows = [*plain(50), {"query": "q7", "document": "another"}, {"query": "q7", "document": "d7"}]
    pairs = read_pairs(written(tmp_path, rows))
    found = {query.text: query for query in (*pairs.train, *pairs.held_out)}
    assert len(found) == 50
    assert found["q7"].documents == found["q7"].answers == ("d7", "another")
    assert not pairs.scored
    assert pairs.total == 52


def test_a_tenth_is_held_out_by_the_seed(tmp_path):
    path = written(tmp_path, plain(80))
    first, same, other = (read_pairs(path, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.held_out)) == (72, 8)
    assert not {query.text for query in first.train} & {query.text for query in first.held_out}
    assert first == same
    assert {query.text for query in first.held_out} != {query.text for query in other.held_out}
    assert first.fingerprint == other.fingerprint != read_pairs(written(tmp_path, plain(81))).fingerprint


def test_scores_rank_the_documents_of_a_query(tmp_path):
    rows = [
        {"query": f"q{i}", "document": text, "score": score}
        for i in range(40)
        for text, score in (("worst", -3), ("best", 2.5), ("middle", 0))
    ]
    pairs = read_pairs(written(tmp_path, rows))
    assert pairs.scored
    query = pairs.train[0]
    assert query.documents == ("best", "middle", "worst")
    assert query.scores == (2.5, 0.0, -3.0)
    assert query.answers == ("best",)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([{"question": "q", "document": "d"}] * 50, UsageError, "has no column 'query'"),
        ([{"query": "q", "text": "d"}] * 50, UsageError, "document"),
        (plain(39), DataError, "39 different queries; fine-tuning needs at least 40"),
        ([*plain(50), {"query": " ", "document": "d"}], DataError, "Row 50 .* has no query"),
        ([*plain(50), {"document": "d"}], DataError, "Row 50 .* has no query"),
        ([{**row, "score": 1.0} for row in plain(50)], DataError, "which of two is better"),
        ([{**row, "score": 1.0} for row in plain(50)] + plain(1), DataError, "Row 50 .* score None"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(tmp_path, rows, error, words):
    with pytest.raises(error, match=words):
        read_pairs(written(tmp_path, rows))
