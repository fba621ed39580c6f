"""The gateway before each version of Milvus: index types declared by clients, and rows found through it."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from alula import encoder_store
from alula.milvus.wire import placeholders
from tests.engines.gateway.running import RunningGateway
from tests.small_collections import DIM, best, scores
from tests.tiny_encoders import random_vectors
from tools.servers.versions.indexes import FieldMemory, WarmedFields
from tools.servers.versions.limits import FlushRate, Rights
from tools.servers.versions.schemas import MAX_DESCRIPTION, DescriptionAltered, DescriptionLength
from tools.servers.versions.searching import NamespaceAsked, SearchMessages

ROWS = 60
VECTORS = random_vectors(ROWS, DIM, seed=1)
ENCODER = "profiles"


@pytest.fixture(scope="module")
def gateway(on_lite, lite, drq):
    """A gateway before Milvus Lite's engine, which knows an encoder."""
    encoder_store.push(lite, drq.path, name=ENCODER, replace=True)
    with RunningGateway(on_lite.uri) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    """A client of it."""
    return MilvusClient(gateway.uri)


@pytest.fixture
def raw(client):
    """Milvus's methods at that gateway."""
    return client._get_connection()._stub


@pytest.fixture(scope="module")
def client_of_standalone(on_standalone, standalone, drq):
    """A client of a gateway before Milvus 2.3.5, which can rename collections."""
    encoder_store.push(standalone, drq.path, name=ENCODER, replace=True)
    with RunningGateway(on_standalone.uri) as gateway:
        yield MilvusClient(gateway.uri, db_name=standalone.login["database"])


def schema_of(client, description="words"):
    schema = client.create_schema(description=description)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    return schema


def index(client, name, **params):
    wanted = client.prepare_index_params()
    wanted.add_index("embedding", index_type="DRQ", **params)
    client.create_index(name, wanted)


def fill_and_search(client, name):
    """Load a collection, write rows, and compare what is found with a brute force."""
    client.load_collection(name)
    client.insert(name, [{"id": i, "embedding": vector.tolist()} for i, vector in enumerate(VECTORS)])
    (hits,) = client.search(
        name,
        data=[VECTORS[7].tolist()],
        limit=5,
        consistency_level="Strong",
        search_params={"params": {"candidates": ROWS}},
    )
    expected = scores(VECTORS[7], VECTORS, "COSINE")
    ids = [hit["id"] for hit in hits]
    assert ids == best(expected, 5, "COSINE").tolist()
    np.testing.assert_allclose([hit["distance"] for hit in hits], expected[ids], rtol=1e-5)


DECLARED = {"alula.index_type": "DRQ", "alula.encoder": ENCODER}


def search_request(name, **extra):
    """A search as a client of a later version may send it, with parts that pymilvus has no arguments for."""
    request = milvus_pb2.SearchRequest(collection_name=name, nq=1, dsl_type=1, **extra)
    request.placeholder_group = placeholders.write(VECTORS[7:8])
    for key, value in {"anns_field": "embedding", "topk": "5", "metric_type": "COSINE", "params": "{}"}.items():
        request.search_params.add(key=key, value=value)
    return request


@pytest.fixture(scope="module")
def declared(client):
    """A collection whose index type was declared with it."""
    client.create_collection("declared", schema=schema_of(client), properties=DECLARED)
    index(client, "declared", metric_type="COSINE", params={"encoder": ENCODER})
    fill_and_search(client, "declared")
    yield "declared"
    client.drop_collection("declared")


def test_kept_vectors_are_not_in_memory(declared, on_lite):
    resident = on_lite.rule(FieldMemory).resident[declared]
    assert set(resident) == {"embedding__drq_sign"}


def test_sign_bits_are_loaded_with_the_collection(declared, on_lite):
    if on_lite.has(WarmedFields):
        assert on_lite.rule(WarmedFields).cold[declared] == {"embedding"}


def test_the_same_index_may_be_created_again(declared, client):
    index(client, declared, metric_type="COSINE", params={"encoder": ENCODER})


def test_an_empty_collection_is_recreated_and_nothing_is_left(client_of_standalone, on_standalone, collection_name):
    client = client_of_standalone
    client.create_collection(collection_name, schema=schema_of(client))
    client.describe_collection(collection_name)  # which later versions cache
    client.create_alias(collection_name, f"{collection_name}_alias")
    refused = on_standalone.rule(FlushRate).refused
    index(client, collection_name, metric_type="COSINE", params={"encoder": ENCODER})
    assert on_standalone.rule(FlushRate).refused > refused
    assert not [name for name in client.list_collections() if name.startswith(f"{collection_name}_alula_")]
    assert client.list_aliases(collection_name)["aliases"] == [f"{collection_name}_alias"]
    fill_and_search(client, collection_name)
    client.drop_alias(f"{collection_name}_alias")
    client.drop_collection(collection_name)


@pytest.mark.parametrize(
    "part",
    [
        {"function_score": schema_pb2.FunctionScore(functions=[schema_pb2.FunctionSchema(name="decay")])},
        {"function_chains": [schema_pb2.FunctionChain(name="chain")]},
        {"highlighter": common_pb2.Highlighter()},
        {"search_aggregation": common_pb2.SearchAggregationSpec()},
    ],
    ids=lambda part: next(iter(part)),
)
def test_a_part_of_a_search_that_would_be_left_out_is_refused(declared, raw, on_lite, part):
    answer = raw.Search(search_request(declared, **part))
    assert answer.status.code == 1100
    assert f"cannot do {next(iter(part))}" in answer.status.reason
    if on_lite.has(SearchMessages):
        assert on_lite.rule(SearchMessages).reached == []


def test_a_part_of_a_search_that_is_newer_than_the_gateway_is_refused(declared, raw):
    unknown = search_request(declared).SerializeToString() + bytes([0xFA, 0x3E, 2, 8, 1])  # field 1007, a message
    answer = raw.Search(milvus_pb2.SearchRequest.FromString(unknown))
    assert "field 1007, which is newer" in answer.status.reason


def test_a_namespace_reaches_the_server_with_each_call(client, raw, on_lite, profile):
    name = "in_namespaces"
    properties = DECLARED | {"namespace.enabled": "true"}
    client.create_collection(name, schema=schema_of(client), properties=properties)
    index(client, name, metric_type="COSINE", params={"encoder": ENCODER})
    client.load_collection(name)
    sent = len(on_lite.requests("Search"))
    answer = raw.Search(search_request(name, namespace="mine", output_fields=["embedding"]))
    assert not answer.status.code, answer.status.reason
    assert {request.namespace for request in on_lite.requests("Search")[sent:]} == {"mine"}
    hybrid = milvus_pb2.HybridSearchRequest(collection_name=name, namespace="mine", requests=[search_request(name)])
    for key, value in {"strategy": "rrf", "params": "{}", "limit": "5"}.items():
        hybrid.rank_params.add(key=key, value=value)
    answer = raw.HybridSearch(hybrid)
    assert not answer.status.code, answer.status.reason
    if on_lite.has(NamespaceAsked):
        assert "namespace enabled" in raw.Search(search_request(name)).status.reason
    client.drop_collection(name)


def test_a_description_that_leaves_no_room_for_settings(client, on_lite, collection_name):
    """The gateway says by how much; a description that fits is kept."""
    schema = schema_of(client, description="x" * (MAX_DESCRIPTION - 100))
    if not on_lite.has(DescriptionLength):
        client.create_collection(collection_name, schema=schema, properties=DECLARED)
        client.drop_collection(collection_name)
        return
    with pytest.raises(MilvusException, match=r"settings .* make the collection's description \d+ bytes shorter"):
        client.create_collection(collection_name, schema=schema, properties=DECLARED)


def test_altering_a_collection_and_its_index(client_of_standalone, on_standalone, standalone, collection_name):
    """The settings stay in a new description, and the searched index is the one that is altered."""
    client = client_of_standalone
    client.create_collection(collection_name, schema=schema_of(client), properties=DECLARED)
    index(client, collection_name, metric_type="COSINE", params={"encoder": ENCODER})
    client.alter_collection_properties(collection_name, properties={"collection.description": "other words"})
    if on_standalone.has(DescriptionAltered):
        assert client.describe_collection(collection_name)["description"] == "other words"
        assert "[alula {" in standalone.client.describe_collection(collection_name)["description"]
    shown = client.list_indexes(collection_name)
    client.alter_index_properties(collection_name, shown[0], properties={"mmap.enabled": False})
    (altered,) = {request.index_name for request in on_standalone.requests("AlterIndex")}
    (searched,) = standalone.client.list_indexes(collection_name)
    assert altered == searched
    client.drop_collection(collection_name)


def test_a_login_that_may_not_describe_indexes_searches(declared, on_lite, gateway, collection_name):
    """The description has the settings of the index type too."""
    on_lite.rule(Rights).deny(collection_name, "DescribeIndex")
    reader = MilvusClient(gateway.uri, user=collection_name, password="secret")
    (hits,) = reader.search(declared, data=[VECTORS[7].tolist()], limit=1, consistency_level="Strong")
    assert [hit["id"] for hit in hits] == [7]
