"""The gateway before each version of Milvus: index types declared by clients, and rows found through it."""

from __future__ import annotations

from contextlib import suppress

import grpc
import numpy as np
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from alula import encoder_store
from alula.milvus.wire import placeholders
from alula.milvus.wire.field_data import float_vectors
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


NEWER_PART = bytes([0xFA, 0x3E, 2, 8, 1])  # field 1007, a message


def with_newer_part(request):
    """A message with a field that no version of the protocol has."""
    return type(request).FromString(request.SerializeToString() + NEWER_PART)


def newer_parts(message):
    """The numbers of the fields that the protocol does not have."""
    return [field.field_number for field in UnknownFieldSet(message)]


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
    answer = raw.Search(with_newer_part(search_request(declared)))
    assert "field 1007, which is newer" in answer.status.reason


def rows_of(kind, name):
    """A row as Insert and Upsert send it."""
    request = kind(collection_name=name, num_rows=1)
    ids = request.fields_data.add(field_name="id", type=DataType.INT64)
    ids.scalars.long_data.data.append(7)
    request.fields_data.add().CopyFrom(float_vectors("embedding", VECTORS[7:8]))
    return request


def index_request(name):
    """The index type as its client declares it."""
    request = milvus_pb2.CreateIndexRequest(collection_name=name, field_name="embedding")
    for key, value in {"index_type": "DRQ", "metric_type": "COSINE", "encoder": ENCODER}.items():
        request.extra_params.add(key=key, value=value)
    return request


CHANGED_CALLS = {
    "DescribeCollection": lambda name: milvus_pb2.DescribeCollectionRequest(collection_name=name),
    "LoadCollection": lambda name: milvus_pb2.LoadCollectionRequest(
        collection_name=name, load_fields=["id", "embedding"]
    ),
    "DescribeIndex": lambda name: milvus_pb2.DescribeIndexRequest(collection_name=name),
    "GetIndexState": lambda name: milvus_pb2.GetIndexStateRequest(collection_name=name, field_name="embedding"),
    "CreateIndex": index_request,
    "Insert": lambda name: rows_of(milvus_pb2.InsertRequest, name),
    "Upsert": lambda name: rows_of(milvus_pb2.UpsertRequest, name),
    "Query": lambda name: milvus_pb2.QueryRequest(
        collection_name=name, expr="id == 7", output_fields=["*"], use_default_consistency=True
    ),
}


@pytest.mark.parametrize("method", CHANGED_CALLS)
def test_a_part_of_a_call_that_is_newer_than_the_gateway_reaches_the_server(declared, raw, on_lite, method):
    """Of a call that the gateway changes: an index type is several native indexes, and each request has the part."""
    sent = len(on_lite.requests(method))
    with suppress(grpc.RpcError):  # the engine has no GetIndexState
        getattr(raw, method)(with_newer_part(CHANGED_CALLS[method](declared)))
    # the gateway asks for itself too, to know the collection
    reached = [newer_parts(request) for request in on_lite.requests(method)[sent:]]
    assert reached.count([1007]) == (2 if method == "CreateIndex" else 1), reached


def test_newer_parts_of_a_schema_and_of_a_dropped_index_reach_the_server(client, raw, on_lite, collection_name):
    schema = schema_pb2.CollectionSchema(name=collection_name, description="words")
    schema.fields.add(name="id", data_type=DataType.INT64, is_primary_key=True)
    vector = schema.fields.add(name="embedding", data_type=DataType.FLOAT_VECTOR)
    vector.type_params.add(key="dim", value=str(DIM))
    vector.MergeFromString(NEWER_PART)
    request = milvus_pb2.CreateCollectionRequest(
        collection_name=collection_name, schema=with_newer_part(schema).SerializeToString()
    )
    for key, value in DECLARED.items():
        request.properties.add(key=key, value=value)
    assert not raw.CreateCollection(with_newer_part(request)).code
    created = on_lite.requests("CreateCollection")[-1]
    stored = schema_pb2.CollectionSchema.FromString(created.schema)
    assert newer_parts(created) == newer_parts(stored) == [1007]
    assert {field.name: newer_parts(field) for field in stored.fields if newer_parts(field)} == {"embedding": [1007]}
    assert not raw.CreateIndex(index_request(collection_name)).code
    dropped = milvus_pb2.DropIndexRequest(collection_name=collection_name, field_name="embedding")
    assert not raw.DropIndex(with_newer_part(dropped)).code
    assert [newer_parts(request) for request in on_lite.requests("DropIndex")[-2:]] == [[1007], [1007]]
    client.drop_collection(collection_name)


def test_newer_parts_that_an_index_type_cannot_keep_are_refused(declared, raw, client, collection_name):
    rows = rows_of(milvus_pb2.InsertRequest, declared)
    rows.fields_data[1].vectors.MergeFromString(NEWER_PART)
    assert "The vectors of 'embedding' have field 1007" in raw.Insert(rows).status.reason
    upsert = rows_of(milvus_pb2.UpsertRequest, declared)
    upsert.field_ops.add(field_name="embedding", op=1)
    assert "A vector of 'embedding' is replaced as a whole" in raw.Upsert(upsert).status.reason
    schema = schema_of(client)
    message = schema_pb2.CollectionSchema(name=collection_name)
    for field in schema.fields:
        stored = message.fields.add(name=field.name, data_type=field.dtype, is_primary_key=field.is_primary)
        for key, value in field.params.items():
            stored.type_params.add(key=key, value=str(value))
    message.fields[1].MergeFromString(NEWER_PART)
    request = milvus_pb2.CreateCollectionRequest(collection_name=collection_name, schema=message.SerializeToString())
    for key, value in {**DECLARED, "alula.keep_vectors": "false"}.items():
        request.properties.add(key=key, value=value)
    assert "The vectors of 'embedding' are not kept, and with them field 1007" in raw.CreateCollection(request).reason


def test_queries_beside_the_ids_of_rows_are_refused(declared, raw):
    answer = raw.Search(search_request(declared, search_by_primary_keys=True))
    assert "cannot search by the ids of rows" in answer.status.reason


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
