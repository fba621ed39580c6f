"""The soak can fail: its model sees what is lost, what never was, what has a wrong score, and what a search missed."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gateway.soak_model import CLIENTS, METRIC, Asked, Model, judge, row_of, vector_of
from benchmarks.gateway.soak_straight import Straight
from benchmarks.gateway.soak_worker import make
from tests.small_collections import best, scores

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
        assert not [*judged.wrong, *judged.unlike]
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
    judged = judge(ASKED, hits, model, OWNER)
    assert any(words in said for said in (*judged.wrong, *judged.unlike))


def test_a_row_that_the_filter_excludes_is_seen(model):
    wrong = judge(replace(ASKED, even=True), answer(model), model, OWNER).wrong
    assert any("does not match" in said for said in wrong)


def test_what_a_search_missed_lowers_its_recall(model):
    hits = answer(model, replace(ASKED, limit=12))[2:]
    judged = judge(ASKED, hits, model, OWNER)
    assert not [*judged.wrong, *judged.unlike]
    assert judged.recall == pytest.approx(0.8)


def test_a_write_in_doubt_may_be_there_or_not_and_an_answered_one_must(model):
    old, new = IDS[0], IDS[-1] + CLIENTS
    model.begin([old, new], 3)
    assert model.possible(old) == {2, 3}
    assert model.possible(new) == {None, 3}
    hits = answer(model)
    assert judge(ASKED, hits, model, OWNER).recall == 1
    model.settle({old: (3,)})
    assert model.possible(old) == {3}
    assert model.possible(new) == {None}
    stale = next(hit for hit in hits if hit["id"] not in (old, new))
    model.begin([stale["id"]], None)
    model.acknowledged([stale["id"]], None)
    assert any(f"row {stale['id']} " in said for said in judge(ASKED, hits, model, OWNER).unlike)
    assert not any(
        f"row {stale['id']} " in said for said in judge(replace(ASKED, strong=False), hits, model, OWNER).unlike
    )


def test_rows_that_are_not_as_they_can_be_are_told_with_what_they_are(model):
    states = {id_: (version,) for id_, version in model.certain.items()}
    assert not model.unlike(states)
    lost, stale, doubled, doubtful, deleted = IDS[:5]
    model.begin([doubtful], 5)
    model.begin([deleted], None)
    model.acknowledged([deleted], None)
    states |= {stale: (7,), doubled: (1, 2), 99_993: (1,)}
    del states[lost]
    unlike = {lost: (), stale: (7,), doubled: (1, 2), deleted: states[deleted], 99_993: (1,)}
    assert model.unlike(states) == unlike
    assert model.unlike(states | {doubtful: (5,)}) == unlike
    assert model.unlike(states | {doubtful: (6,)}) == unlike | {doubtful: (6,)}
    model.forget(unlike)
    assert not model.unlike({id_: there for id_, there in states.items() if id_ not in unlike})


def test_what_the_server_has_shown_is_known(model):
    states = {id_: (version,) for id_, version in model.certain.items()}
    assert model.unshown == set(IDS)
    assert not model.shown(IDS[:3], states | {IDS[0]: (9,)})
    assert model.unshown == {IDS[0], *IDS[3:]}
    assert model.shown(IDS, states)
    assert not model.unshown
    model.begin(IDS[:1], None)
    assert not model.unshown
    model.acknowledged(IDS[:1], None)
    assert not model.shown(IDS[:1], states)
    assert model.shown(IDS[:1], {})


def test_what_the_server_had_shown_is_told_from_what_it_never_did(milvus_server, monkeypatch):
    monkeypatch.setattr("benchmarks.gateway.soak_straight.PATIENCE", 0)
    name, straight, model = "soak_straight", Straight(milvus_server.uri, OWNER), Model()
    client = milvus_server.client()
    make(client, name, "FLAT")
    try:
        rows = [row_of(id_, 1) for id_ in IDS]
        model.begin(IDS, 1)
        client.insert(name, rows)
        model.acknowledged(IDS, 1)
        straight.confirm(name, model)
        assert straight.agrees(name, model)
        assert not model.unshown
        model.begin([9001, 9005], 2)
        model.acknowledged([9001, 9005], 2)  # a write that never was
        model.begin([IDS[5]], None)
        client.delete(name, ids=[IDS[5]])
        model.acknowledged([IDS[5]], None)
        straight.confirm(name, model)
        assert len(straight.findings.nobodys) == 2
        assert "never seen as acknowledged, and is lost" in straight.findings.nobodys[0]
        client.delete(name, ids=IDS[:2])  # behind the model's back, as a server that loses rows
        model.begin([9001], 3)
        model.acknowledged([9001], 3)
        straight.confirm(name, model)
        assert straight.findings.servers == {f"{name}: is lost": 3}
        assert len(straight.findings.nobodys) == 2
        assert straight.agrees(name, model)
        client.insert(name, [row_of(IDS[5], 1)])
        straight.reconcile(name, model)
        assert straight.findings.servers[f"{name}: is there again"] == 1
        assert straight.agrees(name, model)
    finally:
        straight.close()
        client.drop_collection(name)
