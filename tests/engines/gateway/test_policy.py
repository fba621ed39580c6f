"""Clients that cannot name an index type of Alula, served by a gateway's policy."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

import alula
from alula import encoder_store
from tests.engines.gateway.running import RunningGateway
from tests.tiny_encoders import random_vectors, write_drq

DIM = 16
ROWS = random_vectors(60, DIM, seed=1)
POLICY = """
[[rules]]
collection = "policy_*"
instead_of = ["AUTOINDEX", "HNSW"]
index_type = "DRQ"
encoder = "policy"

[[rules]]
collection = "lost_*"
index_type = "DRQ"
encoder = "no-such-encoder"
"""


@pytest.fixture(scope="module")
def upstream(milvus_server, tmp_path_factory):
    encoder = write_drq(tmp_path_factory.mktemp("policy") / "drq.onnx", input_dim=DIM).path
    with alula.connect(milvus_server.uri) as server:
        encoder_store.push(server, encoder, name="policy")
    return milvus_server.uri


@pytest.fixture(scope="module")
def gateway(upstream, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(POLICY)
    with RunningGateway(upstream, policy=path) as running:
        yield running


@pytest.fixture
def client(gateway, collection_name):
    made = MilvusClient(gateway.uri)
    yield made
    for name in (f"policy_{collection_name}", f"lost_{collection_name}", collection_name):
        made.drop_collection(name)


def fields_in_milvus(upstream, name):
    direct = MilvusClient(upstream)
    return [field["name"] for field in direct.describe_collection(name)["fields"]]


def insert(client, name):
    client.insert(name, [{"id": i, "vector": row.tolist()} for i, row in enumerate(ROWS)])


def found(client, name, query, **more):
    (hits,) = client.search(name, data=[query.tolist()], limit=5, consistency_level="Strong", **more)
    return [hit["id"] for hit in hits]


def nearest(query):
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    return np.argsort(-(unit @ query), kind="stable")[:5].tolist()


def test_the_quick_set_up_of_milvus_client(client, upstream, collection_name, caplog):
    name = f"policy_{collection_name}"
    with caplog.at_level(logging.INFO, "alula.gateway"):
        client.create_collection(name, dimension=DIM, metric_type="COSINE")
    assert f"AUTOINDEX on {name}.vector becomes DRQ with the encoder 'policy'" in caplog.text
    insert(client, name)
    assert found(client, name, ROWS[3]) == nearest(ROWS[3])
    assert client.describe_index(name, "vector")["index_type"] == "DRQ"
    assert any(field.startswith("vector__") for field in fields_in_milvus(upstream, name))


def test_a_named_type_again_and_with_its_search_parameters(client, collection_name):
    name = f"policy_{collection_name}"
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection(name, schema=schema)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 8, "efConstruction": 64})
    client.create_index(name, index)
    client.create_index(name, index)
    client.load_collection(name)
    insert(client, name)
    assert found(client, name, ROWS[7], search_params={"params": {"ef": 50}}) == nearest(ROWS[7])
    other = client.prepare_index_params()
    other.add_index("vector", index_type="IVF_FLAT", metric_type="COSINE", params={"nlist": 8})
    with pytest.raises(MilvusException, match="IVF_FLAT"):
        client.create_index(name, other)


def test_what_no_rule_takes_stays_milvus_own(client, upstream, collection_name, caplog):
    client.create_collection(collection_name, dimension=DIM, metric_type="COSINE")
    assert fields_in_milvus(upstream, collection_name) == ["id", "vector"]
    name = f"policy_{collection_name}"
    client.create_collection(name, dimension=DIM, metric_type="L2")
    assert fields_in_milvus(upstream, name) == ["id", "vector"]
    client.drop_collection(name)
    client.create_collection(name, dimension=8, metric_type="COSINE")
    assert fields_in_milvus(upstream, name) == ["id", "vector"]
    assert "becomes" not in caplog.text


def test_a_collection_with_rows_stays_and_the_log_says_so(client, upstream, collection_name, caplog):
    name = f"policy_{collection_name}"
    direct = MilvusClient(upstream)
    schema = direct.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    direct.create_collection(name, schema=schema)
    insert(direct, name)
    direct.flush(name)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_index(name, index)
    assert f"AUTOINDEX on {name}.vector stays, since the collection has rows" in caplog.text
    assert fields_in_milvus(upstream, name) == ["id", "vector"]
    client.load_collection(name)
    assert found(client, name, ROWS[3]) == nearest(ROWS[3])


def test_a_rule_whose_encoder_is_not_there_is_an_error(client, collection_name):
    with pytest.raises(MilvusException, match="no-such-encoder"):
        client.create_collection(f"lost_{collection_name}", dimension=DIM, metric_type="COSINE")
