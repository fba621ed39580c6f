"""Rows that change between the two calls of a search: its answer is of one moment, score, fields, filter and order."""

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from alula import encoder_store
from alula.gateway import search as searching
from tests.engines.gateway.running import RunningGateway
from tests.small_collections import scores
from tests.tiny_encoders import random_vectors, write_drq
from tools.servers.lite import connected

ROWS, DIM, K = 60, 8, 10
QUERY = random_vectors(1, DIM, seed=9)[0]


@pytest.fixture(scope="module")
def served(lite_server, tmp_path_factory):
    """A client of a gateway, and the vectors of a collection with the index type DRQ."""
    encoder = write_drq(tmp_path_factory.mktemp("encoder") / "drq.onnx", input_dim=DIM)
    with connected(lite_server.uri) as server, RunningGateway(lite_server.uri) as gateway:
        encoder_store.push(server, encoder.path, name="moment")
        client = MilvusClient(gateway.uri)
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("year", DataType.INT64)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("embedding", index_type="DRQ", metric_type="COSINE")
        custom = {"alula.index_type": "DRQ", "alula.encoder": "moment"}
        client.create_collection("moment", schema=schema, index_params=index, properties=custom)
        yield client
        client.drop_collection("moment")
        client.close()


@pytest.fixture
def vectors(served):
    """All rows, of the year 1."""
    vectors = random_vectors(ROWS, DIM, seed=8)
    served.upsert("moment", [{"id": i, "year": 1, "embedding": v} for i, v in enumerate(vectors.tolist())])
    return vectors


@pytest.mark.parametrize("filtered", [False, True])
def test_rows_that_changed_meanwhile(served, vectors, monkeypatch, filtered):
    ranking = searching.rank
    order = np.argsort(-scores(QUERY, vectors, "COSINE"), kind="stable")[:K].tolist()
    changed, gone, moved = order[1], order[3], order[5]

    def rank(*arguments):
        found = ranking(*arguments)
        vectors[changed], vectors[moved] = -QUERY, vectors[moved] + 0.2
        rows = [{"id": i, "year": year, "embedding": vectors[i].tolist()} for i, year in ((changed, 1), (moved, 2))]
        served.upsert("moment", rows)
        served.delete("moment", ids=[gone])
        return found

    monkeypatch.setattr(searching, "rank", rank)
    (hits,) = served.search(
        "moment",
        [QUERY.tolist()],
        anns_field="embedding",
        limit=K,
        filter="year < 2" if filtered else "",
        output_fields=["year"],
        search_params={"params": {"candidates": ROWS}},
    )
    wanted = set(order) - {gone} - ({moved} if filtered else set())
    assert {hit["id"] for hit in hits} == wanted
    for hit in hits:
        assert hit["distance"] == pytest.approx(scores(QUERY, vectors[hit["id"]][None], "COSINE")[0], abs=1e-5)
        assert hit["entity"] == {"year": 2 if hit["id"] == moved else 1}
    distances = [hit["distance"] for hit in hits]
    assert distances == sorted(distances, reverse=True)
    assert hits[-1]["id"] == changed


def test_fields_that_were_asked_for_are_returned_and_no_others(served, vectors):
    for fields in ([], ["year"], ["embedding"], ["id", "year"], ["*"]):
        (hits,) = served.search("moment", [QUERY.tolist()], anns_field="embedding", limit=3, output_fields=fields)
        wanted = {"id", "year", "embedding"} if fields == ["*"] else set(fields)
        assert all(set(hit["entity"]) - {"id"} == wanted - {"id"} for hit in hits), fields
        if "embedding" in wanted:
            assert all(np.array_equal(np.float32(hit["entity"]["embedding"]), vectors[hit["id"]]) for hit in hits)
