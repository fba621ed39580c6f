"""The fastest setting that reaches a recall, against a sweep of all settings."""

from __future__ import annotations

import numpy as np
import pytest

from alula.errors import UsageError
from alula.evaluation.queries import QueryOptions, make_queries
from alula.evaluation.row_source import collection_rows
from alula.evaluation.settings import candidates_ladder, scored
from alula.evaluation.tune import check_target, queries_needed, tune
from tests.engines.evaluation.filled import filled
from tests.small_collections import ROWS, Rows, best, scores
from tests.tiny_encoders import write_drq, write_flops

TARGET = 0.9
TIES = 0.02  # the server breaks ties of Hamming distances as it likes


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {"DRQ": write_drq(folder / "drq.onnx", sign_bits=64), "FLOPS_SPARSE": write_flops(folder / "flops.onnx")}


def halves(collection):
    options = QueryOptions(sample=120, k=10)
    rows = collection_rows(collection)
    queries = make_queries(rows, options, encoder=collection.lowering.encoder, metric="COSINE").queries
    return queries.part(0, 60), queries.part(60, 120)


def own_recall(collection, queries, settings):
    """The mean share of the true neighbours, both found by the test itself."""
    rows = Rows()
    position = {id_: i for i, id_ in enumerate(rows.ids)}
    shares = []
    for query, own in zip(queries.vectors, queries.own, strict=True):
        ranked = [i for i in best(scores(query, rows.vectors, "COSINE"), 11, "COSINE") if i != position[own]][:10]
        (hits,) = collection.search(query, limit=11, **settings)
        found = [position[hit.id] for hit in hits if hit.id != own][:10]
        shares.append(len(set(found) & set(ranked)) / 10)
    return float(np.mean(shares))


def test_the_choice_holds_and_nothing_smaller_does(engine, encoders, collection_name):
    collection = filled(engine, collection_name, encoders["DRQ"], "DRQ")
    tuning, held_out = halves(collection)
    result = tune(collection, tuning, held_out, TARGET, rows=ROWS, seconds=60)
    chosen = result.chosen
    assert chosen is not None
    assert result.complete
    assert result.held == (result.held_out.value >= TARGET)
    assert own_recall(collection, tuning, chosen.settings) == pytest.approx(chosen.recall.value, abs=TIES)
    assert own_recall(collection, held_out, chosen.settings) == pytest.approx(result.held_out.value, abs=TIES)
    assert chosen.recall.low >= TARGET
    # of what reaches the target it is the fastest, as timed side by side
    times = [milliseconds for _, milliseconds in result.finalists]
    assert times == sorted(times)
    assert all(point.recall.low >= TARGET for point, _ in result.finalists)
    # one rung down the ladder misses it
    ladder = candidates_ladder(tuning.limit, ROWS)
    for point, _ in result.finalists:
        below = ladder[: ladder.index(point.settings["candidates"])]
        below = [count for count in below if count > scored(point.settings, tuning.limit)]
        if below:
            tried = next(p for p in result.tried if p.settings == {**point.settings, "candidates": below[-1]})
            assert tried.recall.low < TARGET
    assert collection.defaults == {}
    collection.drop()


def test_an_inverted_index_is_tuned_too(lite, encoders, collection_name):
    collection = filled(lite, collection_name, encoders["FLOPS_SPARSE"], "FLOPS_SPARSE")
    tuning, held_out = halves(collection)
    result = tune(collection, tuning, held_out, 0.6, rows=ROWS, seconds=60)
    assert result.chosen is not None
    assert own_recall(collection, tuning, result.chosen.settings) == pytest.approx(result.chosen.recall.value)
    assert {point.settings.get("terms") for point in result.tried} == {None, 2, 1}
    collection.drop()


def test_a_recall_out_of_reach(lite, encoders, collection_name):
    collection = filled(lite, collection_name, encoders["DRQ"], "DRQ", keep_vectors=False)
    kept = filled(lite, f"{collection_name}_kept", encoders["DRQ"], "DRQ")
    tuning, held_out = halves(kept)
    result = tune(collection, tuning, held_out, 0.99, rows=ROWS, seconds=60)
    assert result.chosen is None
    assert not result.held
    assert result.held_out is None
    assert own_recall(collection, tuning, result.best.settings) == pytest.approx(result.best.recall.value)
    assert result.best.recall.value == max(point.recall.value for point in result.tried)
    collection.drop()
    kept.drop()


def test_so_many_queries_are_needed():
    # perfect answers to so many queries show it, and to one less do not (Wilson)
    n = queries_needed(0.99, 1)
    assert n / (n + 1.96**2) >= 0.99 > (n - 1) / (n - 1 + 1.96**2)
    check_target(0.99, n, 1)
    with pytest.raises(UsageError, match="sample="):
        check_target(0.99, n - 1, 1)
    with pytest.raises(UsageError, match="sample="):
        check_target(0.5, 20, 10)
