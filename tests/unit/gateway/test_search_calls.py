"""The raw requests of a search: each has the part of the client's that concerns it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.search_calls import RequestCalls
from alula.milvus import NativeSearch, Scope
from alula.milvus.dialect import MILVUS
from alula.milvus.expressions import IdTemplates

SCOPE = Scope("year > 3")


@pytest.fixture
def sent():
    return []


@pytest.fixture
def calls(sent):
    def send(method, request):
        kept = type(request)()
        kept.CopyFrom(request)
        sent.append((method, kept))
        return milvus_pb2.SearchResults() if method == "Search" else milvus_pb2.QueryResults()

    caller = SimpleNamespace(send=send, dialect=MILVUS, upstream=SimpleNamespace(id_templates=IdTemplates()))
    key = SimpleNamespace(name="id")
    view = SimpleNamespace(collection="words", primary_key=key, companions=())
    request = milvus_pb2.SearchRequest(collection_name="alias", db_name="d", namespace="n", dsl="year > 3")
    for name, value in {"timezone": "Asia/Tokyo", "time_fields": "hour", "ignore_growing": "True", "topk": "7"}.items():
        request.search_params.add(key=name, value=value)
    return RequestCalls(caller, view, request)


def test_a_search_has_the_clients_scope_and_growing_segments(calls, sent):
    calls.search(NativeSearch("embedding", np.ones((1, 4), np.float32), "COSINE", 5), SCOPE)
    ((method, request),) = sent
    params = {pair.key: pair.value for pair in request.search_params}
    assert (method, request.collection_name, request.db_name, request.namespace) == ("Search", "words", "d", "n")
    assert (request.dsl, params["topk"], params["ignore_growing"]) == ("year > 3", "5", "True")
    assert "timezone" not in params


def test_output_fields_are_read_in_the_clients_time_zone(calls, sent):
    calls.fetch([1, 2], ["seen"], SCOPE)
    ((method, request),) = sent
    assert (method, request.expr, list(request.output_fields)) == ("Query", "id in {alula_ids}", ["seen", "id"])
    assert {pair.key: pair.value for pair in request.query_params} == {"timezone": "Asia/Tokyo", "time_fields": "hour"}
