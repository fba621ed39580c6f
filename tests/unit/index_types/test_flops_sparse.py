"""FLOPS_SPARSE as plain data: what is stored, and what is asked."""

from __future__ import annotations

import numpy as np
import pytest

from alula.encoders import load_encoder
from alula.errors import UnsupportedError, UsageError
from alula.index_types import Candidates, Capabilities, VectorField, check_options, index_type
from tests.tiny_encoders import random_vectors, write_flops


@pytest.fixture(scope="module", params=["COSINE", "IP", "L2"])
def flops(request, tmp_path_factory):
    return write_flops(tmp_path_factory.mktemp("flops") / "e.onnx", dim=64, max_nnz=9, metric=request.param)


@pytest.fixture(scope="module")
def lowering(flops):
    field = VectorField("embedding", 8, flops.info.metric, "field")
    return index_type("FLOPS_SPARSE").lowering(field, load_encoder(flops.path), {})


DEFAULTS = check_options(index_type("FLOPS_SPARSE").create_options, {}, "FLOPS_SPARSE")


def plan(lowering, queries, limit=10, **options):
    checked = check_options(index_type("FLOPS_SPARSE").search_options, options, "FLOPS_SPARSE")
    return lowering.plan_search(queries, checked, limit)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("binary", [frozenset(), frozenset({"BIN_FLAT"})])
@pytest.mark.parametrize("several", [True, False])
def test_choose_needs_a_sparse_index_and_nothing_else(sparse, binary, several):
    supported = {"sparse_index": sparse, "several_vector_fields": several}
    names = binary | {name for name, works in supported.items() if works}
    server = Capabilities("Milvus 2.3", names, {"sparse_index": "no such type"})
    kind = index_type("FLOPS_SPARSE")
    if sparse:
        assert kind.choose(server, DEFAULTS) == {"inverted_index_algo": "TAAT_NAIVE"}
    else:
        with pytest.raises(
            UnsupportedError, match=r"Milvus 2\.3 cannot index sparse vectors \(no such type\).*; use .*"
        ):
            kind.choose(server, DEFAULTS)


@pytest.mark.parametrize(
    ("settings", "algorithm"), [({}, "TAAT_NAIVE"), ({"inverted_index_algo": "DAAT_WAND"}, "DAAT_WAND")]
)
def test_the_algorithm_of_the_index(flops, settings, algorithm):
    """Collections of earlier versions have no such setting."""
    field = VectorField("embedding", 8, "COSINE", "field")
    params = index_type("FLOPS_SPARSE").lowering(field, flops, settings).index.params
    assert params == {"inverted_index_algo": algorithm}
    with pytest.raises(UsageError, match="TAAT_NAIVE, DAAT_WAND, DAAT_MAXSCORE"):
        check_options(index_type("FLOPS_SPARSE").create_options, {"inverted_index_algo": "BLOCK_MAX"}, "FLOPS_SPARSE")


def test_sindi_is_asked_for_by_name_and_taken_where_it_was_built():
    kind = index_type("FLOPS_SPARSE")
    assert kind.option_probes(DEFAULTS) == ()
    wanted = {"inverted_index_algo": "SINDI"}
    (probe,) = kind.option_probes(wanted)
    assert probe.index.params == wanted
    assert set(probe.row) == {field.name for field in probe.fields}
    built = Capabilities("Milvus 3.0.1", frozenset({"sparse_index", probe.name}))
    assert kind.choose(built, wanted) == wanted
    for reasons in ({probe.name: "version 8"}, {}):
        accepted = Capabilities("Milvus 3.0.1", frozenset({"sparse_index"}), reasons)
        with pytest.raises(UnsupportedError, match=rf"SINDI \({reasons.get(probe.name, 'it was not tried')}\); leave "):
            kind.choose(accepted, wanted)
        assert kind.choose(accepted, DEFAULTS) == DEFAULTS


def test_one_sparse_companion_with_an_inner_product_index(lowering):
    (field,) = lowering.fields
    assert (field.name, field.data_type, field.bytes_per_row) == ("embedding__flops", "SPARSE_FLOAT_VECTOR", 72)
    index = lowering.index
    assert (index.field, index.index_type, index.metric) == (field.name, "SPARSE_INVERTED_INDEX", "IP")


def test_the_companion_holds_the_encoders_rows(flops, lowering):
    vectors = random_vectors(25)
    (rows,) = lowering.encode_rows(vectors).values()
    np.testing.assert_allclose(rows.toarray(), flops.dense(vectors), atol=1e-6)


def test_a_query_holds_all_terms_of_the_encoder(flops, lowering):
    queries = random_vectors(6, seed=4)
    found = plan(lowering, queries)
    assert (found.field, found.metric, found.estimate_metric, found.columns) == ("embedding__flops", "IP", "IP", ())
    for query, expected in zip(found.queries, flops.dense(queries), strict=True):
        dense = np.zeros(64)
        dense[list(query)] = list(query.values())
        np.testing.assert_allclose(dense, expected, atol=1e-6)
        assert all(type(dim) is int and type(weight) is float and weight > 0 for dim, weight in query.items())


@pytest.mark.parametrize("terms", [1, 3, 8, 9, 1000])
def test_the_cut_keeps_the_heaviest_terms(flops, lowering, terms):
    queries = random_vectors(12, seed=5)
    for query, whole in zip(plan(lowering, queries, terms=terms).queries, flops.dense(queries), strict=True):
        present = np.flatnonzero(whole)
        heaviest = sorted(present, key=lambda dim: -whole[dim])[:terms]
        assert sorted(query) == sorted(heaviest)
        assert list(query) == sorted(query), "Milvus takes terms in the order of their dimensions"
        np.testing.assert_allclose([query[dim] for dim in heaviest], whole[heaviest], atol=1e-6)


@pytest.mark.parametrize(
    ("limit", "options", "asked"),
    [
        (10, {}, (500, None)),
        (1, {}, (500, None)),
        (100, {}, (5000, None)),
        (800, {}, (16384, None)),
        (10, {"oversample": 3}, (30, None)),
        (10, {"candidates": 20}, (20, None)),
        (30, {"candidates": 20}, (20, None)),
        (10, {"candidates": 200, "oversample": 3}, (200, 30)),
    ],
)
def test_candidates_and_how_many_of_them_are_scored(lowering, limit, options, asked):
    found = plan(lowering, random_vectors(1), limit, **options)
    assert (found.candidates, found.rerank) == asked


def test_no_queries_make_an_empty_plan(lowering):
    assert list(plan(lowering, np.empty((0, 8), np.float32)).queries) == []


def test_the_estimate_is_the_native_score(lowering):
    scores = np.array([3.0, 1.0], np.float32)
    assert lowering.estimate(plan(lowering, random_vectors(1)), 0, Candidates(scores, {})).tolist() == [3.0, 1.0]
