"""Searches leave the server's cache of filters alone, its norms exact, and no empty defaults."""

from __future__ import annotations

import numpy as np
import pytest

import alula
import alula.search.searcher
from alula.catalog.settings import DEFAULTS_PREFIX
from tests.small_collections import DIM
from tests.tiny_encoders import prepare, random_vectors
from tools.servers.versions.searching import ExpressionCache

ROWS = 60
VECTORS = random_vectors(ROWS, DIM, seed=1)
QUERIES = random_vectors(6, DIM, seed=2)


def filled(server, name, drq, layout):
    options = {"layout": layout}
    made = alula.Collection.create(
        server, name, encoder=drq.path, index_type="DRQ", consistency_level="Strong", options=options
    )
    made.insert(VECTORS, {"id": list(range(ROWS))})
    return made


def test_ids_make_no_new_filters(on_standalone, standalone, drq, collection_name):
    if not on_standalone.has(ExpressionCache):
        pytest.skip("this version keeps no filters")
    collection = filled(standalone, collection_name, drq, "hamming")
    cache = on_standalone.rule(ExpressionCache)
    collection.search(QUERIES[0], candidates=20, rerank=10, output_fields=["id"])
    before = cache.misses
    for query in QUERIES[1:]:
        assert len(collection.search(query, candidates=20, rerank=10, output_fields=["id"])[0]) == 10
    assert cache.misses == before
    collection.drop()


def test_default_options_that_were_removed_leave_no_properties(standalone, drq, collection_name):
    collection = filled(standalone, collection_name, drq, "hamming")
    stored = [{"candidates": 20, "oversample": 5}, {"candidates": 30}, {}, {"oversample": 7}]
    for options in stored:
        collection.set_defaults(**options)
        properties = standalone.client.describe_collection(collection_name)["properties"]
        named = {key: value for key, value in properties.items() if key.startswith(DEFAULTS_PREFIX)}
        assert named == {DEFAULTS_PREFIX + name: str(value) for name, value in options.items()}
    collection.drop()


def test_norms_are_as_exact_as_they_were_written(lite, drq, collection_name):
    """Milvus 3.0 rounds them to half precision in an index that does not ask for more."""
    collection = filled(lite, collection_name, drq, "adc")
    x_hat = drq.reconstructions(drq.codes(VECTORS))[-1]
    for query, unit in zip(QUERIES, prepare(drq.info, QUERIES), strict=True):
        expected = x_hat @ unit + 0.3 * (1 - np.square(x_hat).sum(1))
        hits = collection.search(query, limit=ROWS, rerank=0)[0]
        np.testing.assert_allclose([hit.score for hit in hits], expected[[hit.id for hit in hits]], atol=2e-5)
    collection.drop()
