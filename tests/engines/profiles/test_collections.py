"""Collections are created, loaded and searched as each version of Milvus wants it."""

from __future__ import annotations

import numpy as np
import pytest

import alula
from alula.catalog.create import native_indexes
from tests.small_collections import DIM, best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.versions.indexes import FieldMemory, WarmedFields
from tools.servers.versions.limits import SchemaMismatch
from tools.servers.versions.schemas import MAX_DESCRIPTION

ROWS = 200
VECTORS = random_vectors(ROWS, DIM, seed=1)
QUERIES = random_vectors(3, DIM, seed=2)
TYPES = {
    "hamming": ("DRQ", lambda path: write_drq(path, input_dim=DIM), {"layout": "hamming"}),
    "adc": ("DRQ", lambda path: write_drq(path, input_dim=DIM), {"layout": "adc"}),
    "flops": ("FLOPS_SPARSE", lambda path: write_flops(path, input_dim=DIM), {}),
}


@pytest.fixture(scope="module", params=TYPES)
def filled(request, lite, tmp_path_factory):
    index_type, write, options = TYPES[request.param]
    encoder = write(tmp_path_factory.mktemp("encoders") / "encoder.onnx")
    name = f"filled_{request.param}"
    made = alula.Collection.create(
        lite, name, encoder=encoder.path, index_type=index_type, consistency_level="Strong", options=options
    )
    made.insert(VECTORS, {"id": list(range(ROWS))})
    yield made
    made.drop()


def test_a_search_finds_what_a_brute_force_finds(filled):
    metric = filled.lowering.field.metric
    found = filled.search(QUERIES, limit=10, candidates=ROWS)
    for query, hits in zip(QUERIES, found, strict=True):
        expected = scores(query, VECTORS, metric)
        ids = [hit.id for hit in hits]
        if filled.index_type.name == "DRQ":  # a sparse index finds rows that share a dimension with the query
            assert ids == best(expected, 10, metric).tolist()
        assert ids
        np.testing.assert_allclose([hit.score for hit in hits], expected[ids], rtol=1e-5, atol=1e-6)


def test_kept_vectors_are_not_in_memory(filled, on_lite):
    assert filled.lowering.field.name not in on_lite.rule(FieldMemory).resident[filled.name]


def test_the_same_index_may_be_created_again(filled, lite):
    again = lite.client.prepare_index_params()
    for native in native_indexes(filled.lowering):
        again.add_index(
            native.field, index_type=native.index_type, metric_type=native.metric, params=dict(native.params)
        )
    lite.client.create_index(filled.name, again)


def test_sign_bits_are_in_memory_before_the_first_search(filled, on_lite):
    searched = filled.lowering.index.field
    if not searched.endswith("drq_sign"):
        pytest.skip("an index that is built is warmed up by default")
    assert searched in on_lite.rule(FieldMemory).resident[filled.name]
    if on_lite.has(WarmedFields):
        assert searched not in on_lite.rule(WarmedFields).cold[filled.name]


def test_a_long_description_is_kept_and_the_index_has_the_settings(lite, drq, collection_name):
    words = "x" * (MAX_DESCRIPTION - 100)
    made = alula.Collection.create(lite, collection_name, encoder=drq.path, index_type="DRQ", description=words)
    assert lite.client.describe_collection(collection_name)["description"] == words
    assert alula.Collection.open(lite, collection_name, encoder=drq.path).lowering.settings == made.lowering.settings
    made.drop()


def test_a_write_waits_for_the_schema_that_the_server_is_about_to_have(filled, on_lite):
    if not on_lite.has(SchemaMismatch):
        pytest.skip("this version has no such answer")
    on_lite.rule(SchemaMismatch).left = 2
    filled.insert(VECTORS[:1], {"id": [0]})
    assert on_lite.rule(SchemaMismatch).left == 0
