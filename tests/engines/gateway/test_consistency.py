"""Consistency levels of clients that name them and no timestamp, as every SDK but pymilvus does."""

import uuid

import pytest
from pymilvus.grpc_gen import milvus_pb2
from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel

from alula.gateway.upstream import Caller
from alula.milvus import connect
from alula.search import Searcher
from tests.engines.gateway.running import RunningGateway, stub
from tests.engines.gateway.test_abuse import fill, searches
from tests.tiny_encoders import random_vectors

QUERY = random_vectors(1, seed=9)
OF_LEVEL = {ConsistencyLevel.Eventually: 1, ConsistencyLevel.Session: 1, ConsistencyLevel.Bounded: 2}


@pytest.fixture(scope="module", params=["Strong", "Bounded", "Eventually"])
def served(milvus_server, tmp_path_factory, request):
    """A gateway, a client of it, and a collection of 300 rows with this default level."""
    name = f"alula_{uuid.uuid4().hex[:12]}"
    with RunningGateway(milvus_server.uri) as gateway, connect(gateway.uri) as server:
        fill(server, name, tmp_path_factory.mktemp("encoder"), consistency_level=request.param)
        assert found(gateway, name, consistency_level=ConsistencyLevel.Strong), "or weaker levels find nothing yet"
        yield gateway, server, name, ConsistencyLevel.Value(request.param)
        server.client.drop_collection(name)


@pytest.fixture
def sent(served, monkeypatch):
    """The timestamps and levels of the calls that reach the collection for a search, in order."""
    calls, send = [], Caller.send

    def watched(self, method, request):
        if method in {"Search", "Query"} and request.collection_name == served[2]:
            calls.append((request.guarantee_timestamp, request.consistency_level, request.use_default_consistency))
        return send(self, method, request)

    monkeypatch.setattr(Caller, "send", watched)
    return calls


def found(gateway, name, **given):
    """The ids that a search without a timestamp finds, its vectors among the output fields."""
    request = searches(name, QUERY)
    request.output_fields.append("embedding")
    for field, value in given.items():
        setattr(request, field, value)
    with gateway.channel() as channel:
        results = stub(channel).Search(request).results
    return list(results.ids.int_id.data)


def found_by_two(gateway, name, **given):
    """The same by a hybrid search."""
    request = milvus_pb2.HybridSearchRequest(
        collection_name=name, requests=[searches(name, QUERY), searches(name, QUERY)], **given
    )
    for key, value in {"strategy": "rrf", "params": "{}", "limit": "10"}.items():
        request.rank_params.add(key=key, value=value)
    with gateway.channel() as channel:
        results = stub(channel).HybridSearch(request).results
    return list(results.ids.int_id.data)


@pytest.mark.parametrize("search", [found, found_by_two])
@pytest.mark.parametrize("level", [*OF_LEVEL, ConsistencyLevel.Strong, None])
def test_each_call_of_a_search_says_its_level_by_a_timestamp(served, sent, search, level):
    """Milvus 2.3 reads vectors for a search by its timestamp alone, and as Strong where that is 0."""
    gateway, _, name, own = served
    default = level is None
    assert search(gateway, name, **({"use_default_consistency": True} if default else {"consistency_level": level}))
    (timestamp,), levels = {call[0] for call in sent}, {call[1:] for call in sent}
    if (own if default else level) == ConsistencyLevel.Strong:
        assert timestamp > 2
        assert levels == {(ConsistencyLevel.Customized, False)}
    else:
        assert timestamp == OF_LEVEL[own if default else level]
        assert levels == {(level or 0, default)}


def test_a_timestamp_of_the_client_stays(served, sent):
    gateway, _, name, _ = served
    with gateway.channel() as channel:
        request = searches(name, QUERY)
        request.guarantee_timestamp, request.consistency_level = 2, ConsistencyLevel.Bounded
        stub(channel).Search(request)
    assert {timestamp for timestamp, _, _ in sent} == {2}


def test_a_strong_search_sees_the_row_that_was_just_written(served):
    gateway, server, name, own = served
    levels = [{"consistency_level": ConsistencyLevel.Strong}]
    levels += [{"use_default_consistency": True}] * (own == ConsistencyLevel.Strong)
    for number, given in enumerate(levels, 1000):
        server.client.insert(name, [{"id": number, "embedding": QUERY[0].tolist()}])
        assert number in found(gateway, name, **given)
        server.client.delete(name, ids=[number])
        assert number not in found(gateway, name, **given)


@pytest.mark.parametrize("level", ["Strong", "Bounded", None])
def test_the_pages_of_an_iterator_come_from_one_ranking(served, level, monkeypatch):
    """The first page is sent without a timestamp, later ones with the time of the first."""
    _, server, name, _ = served
    rankings, rank = [], Searcher.rank

    def counted(*arguments, **options):
        rankings.append(arguments)
        return rank(*arguments, **options)

    monkeypatch.setattr(Searcher, "rank", counted)

    def ids(limit):
        rankings.clear()
        pages = server.client.search_iterator(
            name, QUERY.tolist(), batch_size=50, limit=limit, anns_field="embedding", consistency_level=level
        )
        found = []
        while page := pages.next():
            found += [hit["id"] for hit in page]
        pages.close()
        return found, len(rankings)

    first, of_one_page = ids(50)
    whole, of_four_pages = ids(200)
    assert (len(set(whole)), whole[:50]) == (200, first)
    assert of_four_pages == of_one_page
