"""Hybrid searches through the gateway find what Milvus's own find in an ordinary collection of the same rows.

With every row a candidate, a search through an index type ranks by the exact vectors, as a FLAT index does.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from pymilvus import (
    AnnSearchRequest,
    DataType,
    Function,
    FunctionType,
    MilvusClient,
    MilvusException,
    RRFRanker,
    WeightedRanker,
)

from alula import encoder_store
from tests.engines.gateway.running import RunningGateway
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.lite import connected

ROWS, TAKEN = 150, 30
METRICS = {"embedding": "COSINE", "other": "L2", "sparse": "IP"}
# half of all weights are not 0: every row shares one with a query, and so is a candidate
KINDS = {"DRQ": write_drq, "FLOPS_SPARSE": partial(write_flops, dim=64, max_nnz=64)}
EVERY = {"params": {"candidates": ROWS}}
ANY = {"embedding": EVERY, "other": {}, "sparse": {}}


def rows():
    rng = np.random.default_rng(3)
    vectors, others = random_vectors(ROWS, seed=4).tolist(), random_vectors(ROWS, seed=5).tolist()
    sparse = [{int(dim): float(rng.random() + 0.1) for dim in rng.choice(30, 6, replace=False)} for _ in range(ROWS)]
    columns = zip(vectors, others, sparse, strict=True)
    return [
        {"id": f"row {i}", "year": 1900 + i, "embedding": vector, "other": other, "sparse": weights}
        for i, (vector, other, weights) in enumerate(columns)
    ]


QUERIES = {
    "embedding": random_vectors(2, seed=6).tolist(),
    "other": random_vectors(2, seed=7).tolist(),
    "sparse": [{1: 0.5, 7: 1.5, 20: 0.2}, {3: 1.0, 4: 1.0, 25: 2.0}],
}


def create(client, name, *, index="FLAT", properties=None):
    schema = client.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=50)
    schema.add_field("year", DataType.INT64)
    for field in ("embedding", "other"):
        schema.add_field(field, DataType.FLOAT_VECTOR, dim=8)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    params = client.prepare_index_params()
    for field, kind in {"embedding": index, "other": "FLAT", "sparse": "SPARSE_INVERTED_INDEX"}.items():
        params.add_index(field, index_type=kind, metric_type=METRICS[field])
    client.create_collection(
        name, schema=schema, index_params=params, properties=properties, consistency_level="Strong"
    )
    client.insert(name, rows())


@pytest.fixture(scope="module")
def gateway(lite_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    with connected(lite_server.uri) as server:
        for kind, write in KINDS.items():
            encoder_store.push(server, write(folder / f"{kind}.onnx").path)
    with RunningGateway(lite_server.uri) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    """A client of the gateway, with a collection of each index type and an ordinary one."""
    found = MilvusClient(gateway.uri)
    create(found, "ordinary")
    for kind in KINDS:
        properties = {"alula.index_type": kind, "alula.encoder": kind, "alula.field": "embedding"}
        create(found, kind, index=kind, properties=properties)
    return found


def hybrid(client, name, fields, ranker, *, queries=slice(1), limit=10, taken=TAKEN, expr="", **arguments):
    """A hybrid search over some fields."""
    searches = [
        AnnSearchRequest(QUERIES[field][queries], field, dict(ANY[field] if name != "ordinary" else {}), taken, expr)
        for field in fields
    ]
    return client.hybrid_search(name, searches, ranker, limit, **arguments)


def same(found, expected):
    """The same rows with the same scores; rows of one score may change places."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        scores, true = [hit["distance"] for hit in ours], [hit["distance"] for hit in theirs]
        np.testing.assert_allclose(scores, true, rtol=1e-5, atol=1e-6)
        above = [hit["id"] for hit in theirs if hit["distance"] > true[-1] + 1e-6]
        assert set(above) <= {hit["id"] for hit in ours}


RANKERS = {"rrf": (RRFRanker(), RRFRanker()), "weighted": (WeightedRanker(0.3, 0.8), WeightedRanker(0.3, 0.8, 0.6))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [("embedding", "other"), ("sparse", "embedding"), ("other", "embedding", "sparse")])
@pytest.mark.parametrize("ranker", RANKERS)
def test_finds_what_milvus_finds(client, kind, fields, ranker):
    ranker = RANKERS[ranker][len(fields) - 2]
    for asked in ({"limit": 10}, {"limit": 6, "offset": 5}, {"expr": "year >= 2000"}):
        same(hybrid(client, kind, fields, ranker, **asked), hybrid(client, "ordinary", fields, ranker, **asked))
    # Milvus Lite counts the ranks of a second query on from those of the first, so it is asked one by one
    both = [hybrid(client, "ordinary", fields, ranker, queries=slice(i, i + 1))[0] for i in range(2)]
    same(hybrid(client, kind, fields, ranker, queries=slice(2)), both)


@pytest.mark.parametrize("kind", KINDS)
def test_output_fields_come_with_the_rows(client, kind):
    (found,) = hybrid(client, kind, ["embedding", "sparse"], RRFRanker(), output_fields=["year", "embedding", "sparse"])
    held = {row["id"]: row for row in rows()}
    for hit in found:
        expected = held[hit["id"]]
        assert hit["entity"]["year"] == expected["year"]
        np.testing.assert_allclose(hit["entity"]["embedding"], expected["embedding"], rtol=1e-6)
        np.testing.assert_allclose(list(hit["entity"]["sparse"].values()), [
            expected["sparse"][dim] for dim in hit["entity"]["sparse"]
        ])  # fmt: skip


def test_searches_past_the_index_type_are_milvus_own(client):
    asked = {"fields": ["other", "sparse"], "ranker": RRFRanker(), "output_fields": ["*"]}
    found, expected = hybrid(client, "DRQ", **asked), hybrid(client, "ordinary", **asked)
    same(found, expected)
    assert set(found[0][0]["entity"]) == set(expected[0][0]["entity"])  # and nothing of how the index type is held


def test_a_search_over_one_field_keeps_its_order(client):
    (hits,) = client.search("DRQ", QUERIES["embedding"][:1], anns_field="embedding", search_params=EVERY, limit=10)
    (fused,) = hybrid(client, "DRQ", ["embedding"], RRFRanker())
    assert [hit["id"] for hit in fused] == [hit["id"] for hit in hits]


def test_rerank_functions_of_newer_clients(client):
    function = Function("f", FunctionType.RERANK, [], params={"reranker": "rrf", "k": 7})
    same(
        hybrid(client, "DRQ", ["embedding", "other"], function),
        hybrid(client, "ordinary", ["embedding", "other"], RRFRanker(7)),
    )
    weights = {"reranker": "weighted", "weights": [0.3, 0.8], "norm_score": True}
    function = Function("f", FunctionType.RERANK, [], params=weights)
    expected = hybrid(client, "ordinary", ["embedding", "other"], WeightedRanker(0.3, 0.8))
    same(hybrid(client, "DRQ", ["embedding", "other"], function), expected)


def test_refusals_are_sentences(client):
    with pytest.raises(MilvusException, match="2 numbers from 0 to 1"):
        hybrid(client, "DRQ", ["embedding", "other"], WeightedRanker(0.5))
    searches = [AnnSearchRequest(QUERIES[field][:n], field, {}, 5) for n, field in ((1, "embedding"), (2, "other"))]
    with pytest.raises(MilvusException, match="as many queries"):
        client.hybrid_search("DRQ", searches, RRFRanker(), 5)
    with pytest.raises(MilvusException, match="group_by_field"):
        hybrid(client, "DRQ", ["embedding", "other"], RRFRanker(), group_by_field="year")
    with pytest.raises(MilvusException, match="takes 8 dimensions, and 3 were given"):
        client.hybrid_search("DRQ", [AnnSearchRequest([[1.0, 2.0, 3.0]], "embedding", {}, 5)], RRFRanker(), 5)
