"""The rules themselves: each does to a client of Milvus what the source of its versions says."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import milvus_pb2

from tools.servers.lite import connected
from tools.servers.versions.indexes import INDEXED_ROWS, ForcedAutoIndex, Sindi
from tools.servers.versions.proxy import PROFILES, RULES, VersionProxy
from tools.servers.versions.rule import parse
from tools.servers.versions.searching import CACHED_EXPRESSIONS, ExpressionCache

SPARSE = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"}
ROW = {1: 0.1, 5: 0.7}  # neither value is one of half precision


@pytest.fixture
def at(lite_server, collection_name):
    """Connects to a version: the proxy and a client; the test's collection is dropped."""
    opened = []

    def connect(version, **options):
        proxy = VersionProxy(lite_server.uri, version, **options)
        opened.extend((proxy.__enter__(), connected(proxy.uri)))
        return proxy, opened[-1].client

    yield connect
    opened[-1].client.drop_collection(collection_name)
    for each in reversed(opened):
        each.__exit__(None, None, None)


def create(client, name, **params):
    """A collection with a key and a sparse vector, its index, and one row."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    index = client.prepare_index_params()
    index.add_index("sparse", **SPARSE, params=params)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    client.insert(name, [{"id": 1, "sparse": ROW}])


def score(client, name):
    """The inner product of the row with ones, as the engine computes it."""
    ((hit,),) = client.search(name, data=[dict.fromkeys(ROW, 1.0)], anns_field="sparse", limit=1)
    return hit["distance"]


@pytest.mark.parametrize(
    ("version", "params", "halved"),
    [("2.6", {}, False), ("3.0", {}, True), ("3.0", {"quant_type": "fp32"}, False)],
)
def test_postings_of_half_precision(at, collection_name, version, params, halved):
    _, client = at(version)
    create(client, collection_name, **params)
    values = np.array(list(ROW.values()), np.float32)
    expected = values.astype(np.float16).astype(np.float32).sum() if halved else values.sum()
    assert score(client, collection_name) == pytest.approx(float(expected), abs=1e-7)


def test_sindi_is_accepted_and_its_build_fails_below_its_index_version(at, collection_name):
    proxy, client = at("3.0")
    create(client, collection_name, inverted_index_algo="SINDI")
    client.insert(collection_name, [{"id": i, "sparse": ROW} for i in range(INDEXED_ROWS - 1)])
    assert client.describe_index(collection_name, "sparse")["indexed_rows"] == INDEXED_ROWS
    proxy.rule(Sindi).index_version = 8
    assert client.describe_index(collection_name, "sparse")["state"] == "Failed"
    create(client, f"{collection_name}_small", inverted_index_algo="SINDI")
    assert client.describe_index(f"{collection_name}_small", "sparse")["state"] != "Failed", "too few to be built"
    client.drop_collection(f"{collection_name}_small")


def test_filters_are_cached_by_their_text_and_templates_are_one(at, collection_name):
    proxy, client = at("2.5")
    create(client, collection_name)
    cache = proxy.rule(ExpressionCache)
    before = cache.misses
    for i in range(20):
        found = client.query(collection_name, filter="id in {ids}", filter_params={"ids": [1, i + 2]})
        assert [row["id"] for row in found] == [1]
    assert cache.misses == before + 1
    for i in range(2):
        client.query(collection_name, filter=f"id in [1, {i + 2}]")
    assert cache.misses == before + 3
    for i in range(CACHED_EXPRESSIONS):
        cache._kept[f"id == {i}"] = None
    client.query(collection_name, filter="id == -1")  # the cache is cut to its size
    client.query(collection_name, filter="id in [1, 2]")
    assert cache.misses == before + 5


@pytest.mark.parametrize(("version", "most"), [("2.4", 4), ("2.5", 4), ("2.6", 10)])
def test_the_number_of_vector_fields_is_limited(at, collection_name, version, most):
    _, client = at(version)
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    for i in range(most + 1):
        schema.add_field(f"v{i}", DataType.FLOAT_VECTOR, dim=4)
    with pytest.raises(MilvusException, match=f"limited to {most}"):
        client.create_collection(collection_name, schema=schema)


def test_forced_autoindex_refuses_a_mapped_vector_index(at, collection_name):
    _, client = at("2.5", also=(ForcedAutoIndex,))
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection(collection_name, schema=schema)
    index = client.prepare_index_params()
    index.add_index("v", index_type="FLAT", metric_type="L2", params={"mmap.enabled": "true"})
    with pytest.raises(MilvusException, match="auto index mode"):
        client.create_index(collection_name, index)


def test_isolated_partition_keys_are_in_each_filter(milvus_server, collection_name):
    """Milvus Lite reads no filter in a collection with a partition key."""
    with VersionProxy(milvus_server.uri, "2.4") as proxy, connected(proxy.uri) as server:
        client = server.client
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("tenant", DataType.INT64, is_partition_key=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=2)
        index = client.prepare_index_params()
        index.add_index("v", index_type="FLAT", metric_type="L2")
        client.create_collection(
            collection_name, schema=schema, index_params=index, properties={"partitionkey.isolation": "true"}
        )
        with pytest.raises(MilvusException, match="partition key not found"):
            client.search(collection_name, data=[[1.0, 1.0]], limit=1, filter="id in [1]")
        client.search(collection_name, data=[[1.0, 1.0]], limit=1, filter="tenant == 1 and id in [1]")
        client.drop_collection(collection_name)


def test_each_profile_says_its_version_and_has_the_rules_of_it(at, collection_name):
    del collection_name
    for profile, version in PROFILES.items():
        proxy, client = at(profile)
        assert client.get_server_version() == f"v{version}"
        expected = {rule for rule in RULES if rule.applies(parse(version))}
        assert {type(rule) for rule in proxy.rules} == expected
    for rule in RULES:
        assert rule.source
        assert set(rule.methods) <= set(milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name)
