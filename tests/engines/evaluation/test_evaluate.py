"""Measured recall against brute force in both engines, Milvus's own index types, and what is left behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alula.catalog.schema import ScalarField
from alula.encoders import load_encoder
from alula.errors import DataError, LoadInterrupted, ServerError, UsageError
from alula.evaluation.evaluate import Budget, IndexComparison, evaluate_collection, samples
from alula.evaluation.native import PREFIX
from alula.evaluation.native_types import FACTORY, FAISS, NATIVE
from alula.evaluation.queries import QueryOptions, make_queries
from alula.evaluation.row_source import collection_rows, file_rows
from alula.evaluation.truth_file import TruthFingerprint
from tests.engines.evaluation.filled import filled
from tests.small_collections import AWKWARD_IDS, ROWS, Rows, best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops

K = 10


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {"DRQ": write_drq(folder / "drq.onnx"), "FLOPS_SPARSE": write_flops(folder / "flops.onnx")}


@pytest.fixture(scope="module")
def rows():
    return Rows()


def questions_about(collection, sample=40):
    options = QueryOptions(sample=sample, k=K)
    encoder = collection.lowering.encoder
    return make_queries(collection_rows(collection), options, encoder=encoder, metric="COSINE").queries


def test_a_truth_file_is_rejected_after_the_vectors_changed(lite, rows, encoders, collection_name, tmp_path, caplog):
    collection = filled(lite, collection_name, encoders["DRQ"], "DRQ")
    np.save(tmp_path / "queries.npy", random_vectors(9, seed=3))
    options = QueryOptions(tmp_path / "queries.npy", k=K, truth=tmp_path / "truth.npz")

    def ground_truth():
        encoder = collection.lowering.encoder
        made = make_queries(collection_rows(collection), options, encoder=encoder, metric="COSINE", key_type=str)
        return made.queries.ground_truth

    written = ground_truth()
    assert ground_truth() == written
    ordinary = slice(len(AWKWARD_IDS), None)  # Milvus Lite replaces no row whose id has a quote
    changed = {name: values[ordinary] for name, values in rows.columns.items()}
    collection.insert(random_vectors(ROWS, 8, seed=99)[ordinary], changed)
    with pytest.raises(DataError, match=r"truth\.npz contains the true neighbours in other rows"):
        ground_truth()
    (tmp_path / "truth.npz").unlink()
    assert ground_truth() != written

    # a file of an older version names no rows
    with np.load(tmp_path / "truth.npz") as stored:
        old = {name: stored[name] for name in ("keys", "scores", "counts", "k")}
    fingerprint = TruthFingerprint(np.load(tmp_path / "queries.npy"), "COSINE", "").digest
    np.savez(tmp_path / "truth.npz", **old, fingerprint=fingerprint)
    assert len(ground_truth()) == 9
    assert "truth.npz does not record the rows" in caplog.text
    collection.drop()


def temporary(server):
    return [name for name in server.client.list_collections() if name.startswith(PREFIX)]


INDEXED = 1200  # Milvus 2.3 builds no index for fewer than 1,024 rows


@pytest.fixture
def bench(engine, tmp_path):
    vectors = random_vectors(INDEXED, seed=1)
    np.save(tmp_path / "rows.npy", vectors)
    source = file_rows(str(tmp_path / "rows.npy"), None, None)
    yield IndexComparison(
        engine, source, ScalarField("alula_row", "INT64"), "COSINE", 8, INDEXED, Budget(0.05, 2, build_timeout=60)
    )
    assert temporary(engine) == []


@pytest.fixture
def queries(bench):
    options = QueryOptions(sample=30, k=K)
    return make_queries(bench.rows, options, encoder=None, metric="COSINE").queries


def test_recall_is_that_of_brute_force(engine, rows, encoders, collection_name):
    collection = filled(engine, collection_name, encoders["DRQ"], "DRQ")
    queries = questions_about(collection)
    sweep = {"candidates": [12, 40, 200], "rerank": [None, 0]}
    outcome = evaluate_collection(collection, queries, Budget(0.05, 1, sweep), ROWS)
    assert [point.settings for point in outcome.subject.points] == [
        {"candidates": 12},
        {"candidates": 12, "rerank": 0},
        {"candidates": 40},
        {"candidates": 40, "rerank": 0},
        {"candidates": 200},
        {"candidates": 200, "rerank": 0},
    ]
    ids, vectors = np.array(rows.ids, object), rows.vectors
    tiny = encoders["DRQ"]
    bits = np.unpackbits(tiny.row_signs(vectors), axis=1)
    for point in outcome.subject.points[::2]:  # exact re-ranking of the candidates by Hamming distance
        shares = []
        for own, query in zip(queries.own, queries.vectors, strict=True):
            true = [i for i in best(scores(query, vectors, "COSINE"), K + 1, "COSINE") if ids[i] != own][:K]
            distances = (bits != np.unpackbits(tiny.query_signs(query[None]), axis=1)).sum(1)
            # ties at the last distance may be broken either way
            order = np.sort(distances)[point.settings["candidates"] - 1]
            sure, maybe = np.flatnonzero(distances < order), np.flatnonzero(distances <= order)
            shares.append([len(set(true) & set(some.tolist())) / K for some in (sure, maybe)])
        low, high = np.mean(shares, axis=0)
        assert low - 1e-9 <= point.recall.value <= high + 1e-9
        assert 0 < point.p50 <= point.p95 <= point.p99
        assert point.qps > 0
    assert outcome.subject.points[-2].recall.value > outcome.subject.points[0].recall.value
    collection.drop()


def test_bytes_are_those_of_the_fields(engine, encoders, collection_name):
    collection = filled(engine, collection_name, encoders["DRQ"], "DRQ", options={"code_bits": 16})
    subject = evaluate_collection(collection, questions_about(collection, 4), Budget(sweep={"candidates": [20]}), ROWS)
    sizes = subject.subject.sizes
    assert {**sizes.memory, "kept vectors": 0} == {"drq sign": 4, "drq code": 8, "drq norm": 8, "kept vectors": 0}
    collection.drop()


def test_the_defaults_of_a_collection_do_not_hold_for_other_settings(lite, encoders, collection_name):
    collection = filled(lite, collection_name, encoders["DRQ"], "DRQ", options={"code_bits": 16})
    queries = questions_about(collection, 10)
    sweep = Budget(sweep={"candidates": [100]})
    before = evaluate_collection(collection, queries, sweep, ROWS).found
    collection.set_defaults(candidates=11, bits=8, rerank=0)
    assert evaluate_collection(collection, queries, sweep, ROWS).found == before
    points = evaluate_collection(collection, queries, Budget(0.05, 1), ROWS).subject.points
    assert {"candidates": 11, "bits": 8, "rerank": 0} in [point.settings for point in points]
    with pytest.raises(UsageError, match="nprobes"):
        evaluate_collection(collection, queries, Budget(sweep={"nprobes": [1]}), ROWS)
    collection.drop()


def test_exact_search_of_milvus_finds_everything(bench, queries):
    outcome = bench.native("FLAT", {}, queries)
    (point,) = outcome.subject.points
    assert point.recall.value == 1.0
    assert point.qps_clients > 0
    assert outcome.subject.sizes.memory == {"vectors": 32}


@pytest.mark.parametrize("name", sorted(set(NATIVE) - {"FLAT"}))
def test_index_types_of_milvus_are_measured_or_refused_in_words(bench, queries, name):
    params = {FACTORY: "IVF16,PQ4x4fs"} if name == FAISS else {}
    if bench.server.embedded and name != "IVF_FLAT":
        with pytest.raises(ServerError, match="local mode only support"):
            bench.native(name, params, queries)
        return
    if name == "DISKANN":  # which this server takes, and does not build
        hasty = replace(bench, budget=replace(bench.budget, build_timeout=2))
        with pytest.raises(ServerError, match="not built the index in 2 seconds"):
            hasty.native(name, params, queries)
        return
    if name in ("IVF_RABITQ", FAISS) or name.startswith("HNSW_"):  # later versions have them
        with pytest.raises(ServerError, match="invalid index type"):
            bench.native(name, params, queries)
        return
    outcome = bench.native(name, params, queries)
    values = [point.recall.value for point in outcome.subject.points]
    assert values[-1] >= values[0]
    assert values[-1] > 0.5
    assert sum(outcome.subject.sizes.memory.values()) > 0
    ignored = [note for note in outcome.subject.notes if "seems not to use" in note]
    assert bool(ignored) == bench.server.embedded


def test_index_types_of_alula_are_loaded_and_dropped(bench, queries, encoders):
    encoder = load_encoder(encoders["DRQ"].path)
    outcome = bench.learned(encoder, {"layout": "hamming"}, queries)
    values = {point.settings["candidates"]: point.recall.value for point in outcome.subject.points[:3]}
    assert values[max(values)] > values[min(values)]
    assert outcome.subject.load_seconds > 0
    shown = samples(queries, [outcome], bench.rows.columns)
    assert len(shown) == 5
    assert all([n.key for n in sample.true] in [list(keys) for keys in queries.ground_truth] for sample in shown)
    for sample in shown:
        found, true = {n.key for n in sample.found}, {n.key for n in sample.true}
        assert all(n.hit == (n.key in found) for n in sample.true)
        assert all(n.hit == (n.key in true) for n in sample.found)


def test_a_collection_is_dropped_when_something_breaks(bench, queries):
    with pytest.raises(KeyboardInterrupt):
        interrupted(bench, queries)
    assert temporary(bench.server) == []


@pytest.mark.parametrize("written", [0, 1])
def test_a_load_that_is_stopped_tells_nobody_to_go_on_with_it(bench, queries, encoders, written):
    def stop(what, done, total):
        if what.startswith("loading") and done >= written:
            raise KeyboardInterrupt

    with pytest.raises(LoadInterrupted, match=r"^Stopped while loading DRQ; the temporary collection was dropped.$"):
        replace(bench, progress=stop).learned(load_encoder(encoders["DRQ"].path), {}, queries)
    assert temporary(bench.server) == []


def interrupted(bench, queries):
    def stop(what, done, total):
        if what.startswith("FLAT"):
            raise KeyboardInterrupt

    IndexComparison(bench.server, bench.rows, bench.key, "COSINE", 8, INDEXED, bench.budget, stop).native(
        "FLAT", {}, queries
    )
