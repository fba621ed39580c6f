"""The soak can fail: its model sees what is lost, what never was, what has a wrong score, and what a search missed."""

from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks.gateway.soak_model import CLIENTS, METRIC, Asked, Model, judge, row_of, vector_of
from tests.engines import best, scores

OWNER = 1
IDS = [OWNER + CLIENTS * i for i in range(1, 60)]
ASKED = Asked(np.random.default_rng(3).standard_normal(16).astype(np.float32), 10, even=False, strong=True)


@pytest.fixture
def model():
    """59 rows in version 1 or 2."""
    model = Model()
    for version, ids in ((1, IDS), (2, IDS[::2])):
        model.begin(ids, version)
        model.acknowledged(ids, version)
    return model


def answer(model, asked=ASKED):
    """What a server without fault answers."""
    rows = {id_: version for id_, version in model.certain.items() if asked.matches(version)}
    vectors = np.array([vector_of(id_, version) for id_, version in rows.items()])
    values = scores(asked.query, vectors, METRIC)
    ids = list(rows)
    return [
        {"id": ids[i], "distance": values[i], "entity": row_of(ids[i], rows[ids[i]])}
        for i in best(values, asked.limit, METRIC)
    ]


def test_a_right_answer_is_right(model):
    for asked in (ASKED, replace(ASKED, even=True), replace(ASKED, limit=200)):
        judged = judge(asked, answer(model, asked), model, OWNER)
        assert not judged.wrong
        assert judged.recall == 1


def change(hits, position, **changes):
    hits[position] = hits[position] | changes


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda hits: change(hits, 0, distance=hits[0]["distance"] + 0.01), "its vector"),
        (lambda hits: change(hits, 2, entity=row_of(hits[2]["id"], 7)), "can have"),
        (lambda hits: change(hits, 2, entity=hits[2]["entity"] | {"text": "?"}), "text"),
        (lambda hits: change(hits, 2, id=99_993, entity=row_of(99_993, 1)), "can have"),
        (lambda hits: change(hits, 2, id=6, entity=row_of(6, 1)), "does not match"),
        (lambda hits: hits.append(hits[9]), "twice"),
        (lambda hits: hits.reverse(), "order"),
    ],
)
def test_a_wrong_answer_is_seen(model, spoil, words):
    hits = answer(model)
    spoil(hits)
    assert any(words in said for said in judge(ASKED, hits, model, OWNER).wrong)


def test_a_row_that_the_filter_excludes_is_seen(model):
    wrong = judge(replace(ASKED, even=True), answer(model), model, OWNER).wrong
    assert any("does not match" in said for said in wrong)


def test_what_a_search_missed_lowers_its_recall(model):
    hits = answer(model, replace(ASKED, limit=12))[2:]
    judged = judge(ASKED, hits, model, OWNER)
    assert not judged.wrong
    assert judged.recall == pytest.approx(0.8)


def test_a_write_in_doubt_may_be_there_or_not_and_an_answered_one_must(model):
    old, new = IDS[0], IDS[-1] + CLIENTS
    model.begin([old, new], 3)
    assert model.possible(old) == {2, 3}
    assert model.possible(new) == {None, 3}
    hits = answer(model)
    assert judge(ASKED, hits, model, OWNER).recall == 1
    assert not model.settle({old: 3})
    assert model.possible(old) == {3}
    assert model.possible(new) == {None}
    model.begin([old], None)
    assert not model.settle({})
    model.begin([IDS[1]], None)
    assert model.settle({IDS[1]: 2}) == [f"row {IDS[1]} has version 2, and can have {{1, None}}"]
    stale = next(hit for hit in hits if hit["id"] not in model.doubtful)
    model.begin([stale["id"]], None)
    model.acknowledged([stale["id"]], None)
    assert any(f"row {stale['id']} " in said for said in judge(ASKED, hits, model, OWNER).wrong)
    assert not any(
        f"row {stale['id']} " in said for said in judge(replace(ASKED, strong=False), hits, model, OWNER).wrong
    )
