"""Milvus's Go SDK finds through the gateway what `alula.Collection.search` finds, and a brute force."""

from __future__ import annotations

import numpy as np
import pytest

import alula
from alula import encoder_store
from tests.small_collections import DIM, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.go_client import HAS_PROGRAM, GoClient
from tools.servers.lite import connected

ROWS, LIMIT = 500, 10
VECTORS = random_vectors(ROWS, DIM, seed=11)
YEARS = np.arange(ROWS) % 100 + 1900
QUERIES = random_vectors(7, DIM, seed=12)
KINDS = {
    "lite DRQ": lambda path: write_drq(path, input_dim=DIM),
    "lite FLOPS_SPARSE": lambda path: write_flops(path, input_dim=DIM, dim=32, max_nnz=16),
    "standalone DRQ": lambda path: write_drq(path, input_dim=DIM),
}

pytestmark = pytest.mark.skipif(not HAS_PROGRAM, reason="a k6 with Milvus's Go SDK, which is for Linux on x86-64")


@pytest.fixture(scope="module", params=KINDS)
def filled(request, tmp_path_factory):
    """A collection, and the Go client at the gateway in front of its server."""
    server, index_type = request.param.split()
    name = f"go_{index_type.lower()}"
    encoder = KINDS[request.param](tmp_path_factory.mktemp("encoders") / f"{name}.onnx")
    upstream = request.getfixturevalue("lite_server" if server == "lite" else "milvus_server").uri
    client = GoClient(request.getfixturevalue(f"gateway_to_{server}").uri)
    with connected(upstream) as direct:
        encoder_store.push(direct, encoder.path, replace=True)
        collection = alula.Collection.create(
            direct,
            name,
            encoder=encoder.path,
            index_type=index_type,
            columns=["year:INT64"],
            consistency_level="Strong",
        )
        collection.insert(VECTORS, {"id": range(ROWS), "year": YEARS.tolist()})
        yield collection, client
        direct.client.drop_collection(name)


@pytest.mark.parametrize("filter", ["", "year < 1950"])
def test_it_finds_what_a_collection_finds(filled, filter):
    collection, client = filled
    ids, found = client.search(collection.name, QUERIES, field="embedding", limit=LIMIT, filter=filter)
    expected = collection.search(QUERIES, limit=LIMIT, filter=filter)
    assert ids == [[hit.id for hit in hits] for hits in expected]
    np.testing.assert_allclose(found, [[hit.score for hit in hits] for hits in expected], rtol=1e-5)
    for query, page, one in zip(QUERIES, ids, found, strict=True):
        exact = scores(query, VECTORS, "COSINE")
        np.testing.assert_allclose(one, exact[page], rtol=1e-5)
        assert all(YEARS[page] < 1950) or not filter
