"""Heavy searches are told by the rows that they rank, whatever the client says of itself."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.cost import HEAVY_BYTES, is_heavy
from alula.index_types import index_type
from alula.milvus.wire import placeholders
from tests.tiny_encoders import random_vectors

DRQ = SimpleNamespace(field="embedding", defaults={}, index_type=index_type("DRQ"))
TUNED = SimpleNamespace(field="embedding", defaults={"candidates": 2000}, index_type=index_type("DRQ"))


def search(queries, topk=10, **params):
    request = milvus_pb2.SearchRequest(placeholder_group=placeholders.write(random_vectors(queries)), nq=1)
    for key, value in {"topk": topk, "params": json.dumps(params)}.items():
        request.search_params.add(key=key, value=str(value))
    return request


@pytest.mark.parametrize(
    ("request_", "view", "heavy"),
    [
        (search(1), None, False),
        (search(1, candidates=16_384), DRQ, True),
        (search(1, candidates=16_383), DRQ, False),
        (search(163), DRQ, False),  # 10 of 10 for each result
        (search(164), DRQ, True),
        (search(33), None, True),  # 50 of 10, the most that an index type takes by itself
        (search(32), None, False),
        (search(8), TUNED, False),
        (search(9), TUNED, True),
        (search(9, candidates=100), TUNED, False),
        (search(10, topk=100, oversample=16), DRQ, False),
        (search(10, topk=100, oversample=17), DRQ, True),
        (search(10, topk=100, offset=1600), DRQ, True),
        (search(1, topk=5000), DRQ, True),  # no more than 16,384 are ranked
        (search(1, iterator=True, search_iter_v2=True), DRQ, True),
        (search(1, iterator=True, search_iter_v2=True, search_iter_id="i"), DRQ, False),
        (search(100, anns_field="other"), DRQ, False),  # a search of Milvus's own
        (search(1, candidates="many"), DRQ, False),  # it is refused
    ],
)
def test_a_search_is_heavy_by_the_rows_that_it_ranks(request_, view, heavy):
    assert is_heavy("Search", request_.SerializeToString(), view) == heavy
    one_of_two = milvus_pb2.HybridSearchRequest(requests=[request_, search(1, topk=1)])
    assert is_heavy("HybridSearch", one_of_two.SerializeToString(), view) >= heavy


def test_a_call_is_heavy_by_its_bytes():
    query = milvus_pb2.QueryRequest(expr="id > 0")
    assert not is_heavy("Query", query.SerializeToString(), None)
    query.expr += " " * HEAVY_BYTES
    assert is_heavy("Query", query.SerializeToString(), None)
    assert not is_heavy("Search", b"\xff\xff", None), "no request of the protocol: it is refused"
