"""SINDI, which Milvus 3.0 accepts always, is taken where an index for it was built."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from pymilvus import DataType, MilvusClient, MilvusException

import alula
import alula.milvus.capabilities
from alula import encoder_store
from alula.catalog.create import design
from alula.errors import UnsupportedError
from tests.engines.gateway.running import RunningGateway
from tests.small_collections import DIM
from tests.tiny_encoders import random_vectors, write_flops
from tools.servers.lite import connected
from tools.servers.versions.indexes import Sindi

WANTED = {"inverted_index_algo": "SINDI"}


@pytest.fixture(scope="module")
def flops(tmp_path_factory):
    return write_flops(tmp_path_factory.mktemp("encoders") / "flops.onnx", input_dim=DIM)


@pytest.fixture
def created(on_lite, flops):
    """Creates a collection over a connection of its own, and drops it."""

    @contextmanager
    def create(name, options):
        with connected(on_lite.uri) as at:
            made = alula.Collection.create(at, name, encoder=flops.path, index_type="FLOPS_SPARSE", options=options)
            yield made
            made.drop()

    return create


@pytest.fixture
def sindi(on_lite):
    if not on_lite.has(Sindi):
        pytest.skip("this version has no SINDI")
    rule = on_lite.rule(Sindi)
    before = rule.index_version
    yield rule
    rule.index_version = before


def test_an_index_that_is_accepted_and_not_built_is_refused_before_anything_is_created(
    sindi, created, lite, collection_name
):
    sindi.index_version, before = 8, lite.client.list_collections()
    reason = r"SINDI \(Milvus could not build the index: SINDI is not supported by this index version\); leave "
    with pytest.raises(UnsupportedError, match=reason), created(collection_name, WANTED):
        pass
    assert lite.client.list_collections() == before
    with created(collection_name, {}) as made:
        assert made.lowering.index.params == {"inverted_index_algo": "TAAT_NAIVE"}


def test_an_index_that_was_built_is_taken_and_built_once(sindi, on_lite, created, flops, lite, collection_name):
    before, written = lite.client.list_collections(), len(on_lite.requests("Insert"))
    with created(collection_name, WANTED) as made:
        assert made.lowering.index.params == WANTED
        given = {"encoder": flops.path, "index_type": "FLOPS_SPARSE", "options": WANTED}
        again = design(made.spec.server, f"{collection_name}_2", **given)
        assert again.lowering.settings["inverted_index_algo"] == "SINDI"
    assert lite.client.list_collections() == before
    assert len(on_lite.requests("Insert")) == written + 1
    with created(collection_name, {}):
        assert len(on_lite.requests("Insert")) == written + 1, "nothing is built without a need"


def test_an_index_that_is_not_built_in_time_is_refused(on_lite, created, collection_name, monkeypatch):
    if on_lite.has(Sindi):
        pytest.skip("the engine alone counts no indexed rows")
    monkeypatch.setattr(alula.milvus.capabilities, "_BUILD_SECONDS", 0.5)
    late = r"not built the index in 0\.5 seconds, and 1,200 rows are not indexed"
    with pytest.raises(UnsupportedError, match=late), created(collection_name, WANTED):
        pass


@pytest.fixture
def through_gateway(on_lite, lite, flops, collection_name):
    """A client of a gateway, and what declares a collection with SINDI by it."""
    encoder_store.push(lite, flops.path, name=collection_name)
    with RunningGateway(on_lite.uri) as gateway:
        client = MilvusClient(gateway.uri)

        def create(**params):
            schema = client.create_schema()
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
            index = client.prepare_index_params()
            given = {"encoder": collection_name, **params}
            index.add_index("embedding", index_type="FLOPS_SPARSE", metric_type="COSINE", params=given)
            client.create_collection(collection_name, schema=schema, index_params=index, consistency_level="Strong")

        yield client, create
        client.drop_collection(collection_name)
        client.close()
    encoder_store.remove(lite, collection_name)


def test_a_client_of_the_gateway_gets_it_where_it_was_built(sindi, through_gateway, on_lite, lite, collection_name):
    client, create = through_gateway
    before = set(lite.client.list_collections())
    create(**WANTED)
    assert set(lite.client.list_collections()) == before | {collection_name}, "what was built to see is dropped"
    asked = [request for request in on_lite.requests("CreateIndex") if request.collection_name == collection_name]
    params = {one.field_name: {pair.key: pair.value for pair in one.extra_params} for one in asked}
    assert params["embedding__flops"]["inverted_index_algo"] == "SINDI"
    vectors = random_vectors(50, DIM)
    client.insert(collection_name, [{"id": i, "embedding": row} for i, row in enumerate(vectors.tolist())])
    (hits,) = client.search(collection_name, vectors[7:8].tolist(), anns_field="embedding", limit=5)
    assert hits[0]["id"] == 7


def test_a_client_of_the_gateway_is_told_where_it_was_not_built(sindi, through_gateway, lite, collection_name):
    sindi.index_version, before = 8, lite.client.list_collections()
    _, create = through_gateway
    with pytest.raises(
        MilvusException, match=r"builds no index for SINDI \(Milvus could not build the index: SINDI is"
    ):
        create(**WANTED)
    left = set(lite.client.list_collections()) - set(before)
    assert left == {collection_name}, "which pymilvus creates before its index, as on any server"
