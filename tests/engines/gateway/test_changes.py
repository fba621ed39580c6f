"""Collections that change under a gateway: made anew for an index type, by other gateways, while rows arrive."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

import alula
from alula import encoder_store
from alula.errors import UsageError
from alula.gateway import indexes, views
from tests.engines.gateway.running import RunningGateway
from tests.tiny_encoders import random_vectors, write_drq

DIM = 16
ROWS = random_vectors(60, DIM, seed=1)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    for seed in (0, 1):
        write_drq(folder / f"drq{seed}.onnx", input_dim=DIM, seed=seed)
    return [folder / f"drq{seed}.onnx" for seed in (0, 1)]


@pytest.fixture(scope="module")
def upstream(milvus_server, encoders):
    with alula.connect(milvus_server.uri) as server:
        for number, encoder in enumerate(encoders):
            encoder_store.push(server, encoder, name=f"changes{number}")
    return milvus_server.uri


@pytest.fixture(scope="module")
def gateways(upstream):
    with RunningGateway(upstream) as one, RunningGateway(upstream) as two:
        yield one, two


@pytest.fixture
def clients(gateways, collection_name):
    pair = [MilvusClient(gateway.uri) for gateway in gateways]
    yield pair
    pair[0].drop_collection(collection_name)


def schema_of(client, **extra):
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("tag", DataType.VARCHAR, max_length=16, **extra)
    return schema


def index(client, name, **params):
    wanted = client.prepare_index_params()
    wanted.add_index("embedding", **params)
    client.create_index(name, wanted)


def rows(start=0, stop=60):
    return [{"id": i, "embedding": ROWS[i].tolist(), "tag": f"t{i % 3}"} for i in range(start, stop)]


def nearest(vector, count):
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    return np.argsort(-(unit @ (vector / np.linalg.norm(vector))), kind="stable")[:count].tolist()


def found(client, name, vector, count=5, **more):
    (hits,) = client.search(name, data=[vector.tolist()], limit=count, consistency_level="Strong", **more)
    return [hit["id"] for hit in hits]


def test_an_empty_collection_is_made_anew_with_all_that_it_had(clients, collection_name):
    client, name = clients[0], collection_name
    client.create_collection(name, schema=schema_of(client), description="words", consistency_level="Eventually")
    client.create_partition(name, "mine")
    client.create_alias(name, f"{name}_alias")
    index(client, name, index_type="DRQ", metric_type="COSINE", params={"encoder": "changes0", "layout": "hamming"})
    about = client.describe_collection(name)
    assert about["description"] == ""
    assert about["consistency_level_name"] == "Eventually"
    assert [field["name"] for field in about["fields"]] == ["id", "embedding", "tag"]
    assert about["aliases"] == [f"{name}_alias"]
    assert set(client.list_partitions(name)) == {"_default", "mine"}
    assert not [other for other in client.list_collections() if other.startswith(f"{name}_alula_")]
    client.load_collection(name)
    client.insert(f"{name}_alias", rows(), partition_name="mine")
    assert found(client, f"{name}_alias", ROWS[3]) == nearest(ROWS[3], 5)
    assert found(client, name, ROWS[3], partition_names=["_default"]) == []
    client.drop_alias(f"{name}_alias")


def test_a_collection_with_rows_is_left_as_it_is(clients, collection_name):
    client, name = clients[0], collection_name
    client.create_collection(name, schema=schema_of(client))
    client.insert(name, rows())
    with pytest.raises(MilvusException, match="alula migrate"):
        index(client, name, index_type="DRQ", params={"encoder": "changes0"})
    index(client, name, index_type="FLAT", metric_type="COSINE")
    client.load_collection(name)
    assert found(client, name, ROWS[3]) == nearest(ROWS[3], 5)
    (count,) = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    assert count["count(*)"] == len(ROWS)


def test_rows_that_arrive_while_it_is_made_anew_are_kept(clients, collection_name, monkeypatch):
    client, name = clients[0], collection_name
    client.create_collection(name, schema=schema_of(client))
    rename_away = indexes._rename_away

    def with_a_row_before(*arguments):
        clients[1].insert(name, rows(0, 1))
        return rename_away(*arguments)

    monkeypatch.setattr(indexes, "_rename_away", with_a_row_before)
    with pytest.raises(MilvusException, match="alula migrate"):
        index(client, name, index_type="DRQ", params={"encoder": "changes0"})
    monkeypatch.undo()
    index(client, name, index_type="FLAT", metric_type="COSINE")
    client.load_collection(name)
    assert found(client, name, ROWS[0]) == [0]


def test_rows_that_arrive_by_an_alias_meanwhile_are_not_dropped(clients, collection_name, monkeypatch):
    client, name = clients[0], collection_name
    client.create_collection(name, schema=schema_of(client))
    client.create_alias(name, f"{name}_alias")
    check = indexes._check_empty

    def and_then_a_row(*arguments, certainly):
        check(*arguments, certainly=certainly)
        if certainly:
            monkeypatch.undo()
            clients[1].insert(f"{name}_alias", rows(0, 1))

    monkeypatch.setattr(indexes, "_check_empty", and_then_a_row)
    with pytest.raises(MilvusException, match=f"They are in '{name}_alula_"):
        index(client, name, index_type="DRQ", params={"encoder": "changes0"})
    (aside,) = (other for other in client.list_collections() if other.startswith(f"{name}_alula_"))
    index(client, aside, index_type="FLAT", metric_type="COSINE")
    client.load_collection(aside)
    assert found(client, aside, ROWS[0]) == [0]
    client.drop_alias(f"{name}_alias")
    client.drop_collection(aside)


def test_a_second_index_is_refused_as_milvus_does(clients, collection_name):
    client, name = clients[0], collection_name
    client.create_collection(name, schema=schema_of(client))
    index(client, name, index_type="FLAT", metric_type="COSINE")
    with pytest.raises(MilvusException, match="drop it first"):
        index(client, name, index_type="DRQ", params={"encoder": "changes0"})
    client.drop_index(name, "embedding")
    index(client, name, index_type="DRQ", params={"encoder": "changes0"})
    with pytest.raises(MilvusException, match="cannot have HNSW as well"):
        index(client, name, index_type="HNSW", metric_type="COSINE", params={"M": 8, "efConstruction": 32})
    with pytest.raises(MilvusException, match="was created with the encoder"):
        index(client, name, index_type="DRQ", params={"encoder": "changes1"})
    assert client.describe_index(name, "embedding")["index_type"] == "DRQ"
    client.drop_index(name, "embedding")
    assert client.list_indexes(name) == []
    index(client, name, index_type="AUTOINDEX")
    assert client.describe_index(name, "embedding")["index_type"] == "DRQ"


def test_what_one_gateway_changes_the_other_serves_at_once(clients, collection_name):
    """The same name is an ordinary collection, then one with an index type, then one with another encoder."""
    one, two = clients
    name = collection_name
    for round_, properties in enumerate((None, "changes0", "changes1", None)):
        given = {"alula.index_type": "DRQ", "alula.encoder": properties} if properties else {}
        one.create_collection(name, schema=schema_of(one), **({"properties": given} if given else {}))
        index(one, name, index_type="DRQ" if properties else "FLAT", metric_type="COSINE")
        one.load_collection(name)
        two.insert(name, rows())  # what this gateway took it for may be a moment old
        for client in (two, one):
            assert found(client, name, ROWS[7]) == nearest(ROWS[7], 5), (round_, properties)
            (got,) = client.query(name, filter="id == 7", output_fields=["*"], consistency_level="Strong")
            assert set(got) == {"id", "embedding", "tag"}
            assert np.allclose(got["embedding"], ROWS[7])
        if round_ < 3:
            one.drop_collection(name)


def test_what_clients_are_told_of_a_collection_is_of_the_one_that_is_there(clients, collection_name, monkeypatch):
    """They keep it, and would leave fields empty that they should not know of."""
    one, two = clients
    monkeypatch.setattr(views, "MAX_AGE", 3600)
    for properties in ({}, {"alula.index_type": "DRQ", "alula.encoder": "changes0"}):
        one.create_collection(collection_name, schema=schema_of(one), properties=properties)
        told = two.describe_collection(collection_name)
        assert {field["name"] for field in told["fields"]} == {"id", "embedding", "tag"}, properties
        if not properties:
            one.drop_collection(collection_name)


def test_a_collection_of_the_gateway_is_one_for_every_client(gateways, clients, collection_name, upstream, encoders):
    client, name = clients[0], collection_name
    properties = {"alula.index_type": "DRQ", "alula.encoder": "changes0"}
    client.create_collection(name, schema=schema_of(client), properties=properties)
    index(client, name, index_type="AUTOINDEX")
    client.insert(name, rows(0, 30))
    collection = alula.Collection.open(upstream, name, encoder=encoders[0])
    columns = {"id": list(range(30, 60)), "tag": [f"t{i % 3}" for i in range(30, 60)]}
    collection.insert(ROWS[30:], columns)
    assert [hit.id for hit in collection.search(ROWS[40], limit=5, consistency_level="Strong")[0]] == nearest(
        ROWS[40], 5
    )
    assert found(client, name, ROWS[40]) == nearest(ROWS[40], 5)
    with pytest.raises(UsageError, match=r"is a gateway.*Milvus's own address"):
        alula.Collection.open(gateways[0].uri, name, encoder=encoders[0])
    assert len(found(client, name, ROWS[40], 5, group_by_field="tag")) == 3


def test_a_collection_whose_encoder_was_not_pushed(clients, collection_name, upstream, tmp_path):
    client, name = clients[0], collection_name
    write_drq(tmp_path / "mine.onnx", input_dim=DIM, seed=5)
    collection = alula.Collection.create(
        upstream, name, encoder=tmp_path / "mine.onnx", index_type="DRQ", columns=["tag:VARCHAR(16)"]
    )
    fields = {field["name"] for field in client.describe_collection(name)["fields"]}
    assert fields == {"id", "tag", "embedding"}
    assert client.describe_index(name, "embedding")["index_type"] == "DRQ"
    for call in (lambda: client.insert(name, rows(0, 1)), lambda: found(client, name, ROWS[0])):
        with pytest.raises(MilvusException, match=f"no encoder '{collection.lowering.encoder.sha256}.*encoders push"):
            call()
    with alula.connect(upstream) as server:
        encoder_store.push(server, tmp_path / "mine.onnx", name="changes_mine")
    client.insert(name, rows())
    assert found(client, name, ROWS[3]) == nearest(ROWS[3], 5)
