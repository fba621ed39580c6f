"""Clients of the gateway see float vectors where the server keeps half precision."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from alula import encoder_store
from tests.engines.gateway.running import RunningGateway
from tests.tiny_encoders import random_vectors, write_drq
from tools.servers.lite import connected

ROWS, DIM = 40, 8
VECTORS = random_vectors(ROWS, DIM, seed=1)
ROUNDED = VECTORS.astype(np.float16).astype(np.float32)
HALF = {"encoder": "halves", "vector_type": "FLOAT16_VECTOR"}


@pytest.fixture(scope="module")
def client(lite_server, tmp_path_factory):
    encoder = write_drq(tmp_path_factory.mktemp("encoders") / "halves.onnx", metric="COSINE")
    with connected(lite_server.uri) as server, RunningGateway(lite_server.uri) as running:
        encoder_store.push(server, encoder.path, name="halves", replace=True)
        found = MilvusClient(running.uri)
        yield found
        found.close()


def create(client, name, params):
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="DRQ", metric_type="COSINE", params=params)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def test_rows_are_rounded_and_all_else_is_as_before(client, lite_server, collection_name):
    create(client, collection_name, HALF)
    client.insert(collection_name, [{"id": i, "embedding": VECTORS[i].tolist()} for i in range(ROWS)])
    with connected(lite_server.uri) as server:
        stored = {
            field["name"]: field["type"] for field in server.client.describe_collection(collection_name)["fields"]
        }
    assert stored["embedding"] == DataType.FLOAT16_VECTOR
    shown = {field["name"]: field["type"] for field in client.describe_collection(collection_name)["fields"]}
    assert shown == {"id": DataType.INT64, "embedding": DataType.FLOAT_VECTOR}
    read = client.query(collection_name, filter="id in [3, 4]", output_fields=["embedding"])
    for row in read:
        assert np.array_equal(np.array(row["embedding"], np.float32), ROUNDED[row["id"]])
    (hits,) = client.search(
        collection_name,
        data=VECTORS[:1].tolist(),
        limit=10,
        output_fields=["embedding"],
        search_params={"params": {"candidates": ROWS}},
    )
    cosines = ROUNDED @ VECTORS[0] / np.linalg.norm(ROUNDED, axis=1) / np.linalg.norm(VECTORS[0])
    assert [hit["id"] for hit in hits] == np.argsort(-cosines)[:10].tolist()
    for hit in hits:
        assert hit["distance"] == pytest.approx(cosines[hit["id"]], abs=1e-3)
        assert np.array_equal(np.array(hit["entity"]["embedding"], np.float32), ROUNDED[hit["id"]])
    client.drop_collection(collection_name)


@pytest.mark.parametrize(
    ("params", "says"),
    [({"vector_type": "FLOAT8_VECTOR"}, "FLOAT16_VECTOR"), ({**HALF, "keep_vectors": False}, "drops them")],
)
def test_a_type_that_cannot_be_is_said(client, collection_name, params, says):
    with pytest.raises(MilvusException, match=says):
        create(client, collection_name, {**HALF, **params})


def test_a_number_that_does_not_fit_is_said(client, collection_name):
    create(client, collection_name, HALF)
    with pytest.raises(MilvusException, match="beyond 65,504"):
        client.insert(collection_name, [{"id": 1, "embedding": [1e5] * DIM}])
    client.drop_collection(collection_name)
