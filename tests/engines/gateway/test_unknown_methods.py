"""Clients may invent names without end: the cache of a gateway stays bounded."""

import grpc
import pytest
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from alula.gateway import views
from tests.engines.gateway.running import RunningGateway

LIMIT = 20


def test_names_of_collections_that_are_not_there(lite_server, monkeypatch):
    monkeypatch.setattr(views, "MAX_CACHED", LIMIT)
    with RunningGateway(lite_server.uri) as gateway, grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        milvus = milvus_pb2_grpc.MilvusServiceStub(channel)
        for number in range(5 * LIMIT):
            answer = milvus.DescribeCollection(milvus_pb2.DescribeCollectionRequest(collection_name=f"no_{number}"))
            assert answer.status.code or answer.status.error_code
        caches = [value for value in vars(gateway.gateway.views).values() if isinstance(value, dict)]
        assert caches
        assert max(map(len, caches)) <= LIMIT


@pytest.mark.parametrize("database", ["", "made_up"])
def test_names_of_databases(lite_server, monkeypatch, database):
    monkeypatch.setattr(views, "MAX_CACHED", LIMIT)
    with RunningGateway(lite_server.uri) as gateway, grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        milvus = milvus_pb2_grpc.MilvusServiceStub(channel)
        for number in range(5 * LIMIT):
            name = f"{database}_{number}" if database else ""
            milvus.DropCollection(milvus_pb2.DropCollectionRequest(db_name=name, collection_name="no_such"))
        assert max(len(value) for value in vars(gateway.gateway.views).values() if isinstance(value, dict)) <= LIMIT
