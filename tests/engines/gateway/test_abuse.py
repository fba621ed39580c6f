"""Clients that ask for too much: refused before they cost anything, and without harm to others."""

from __future__ import annotations

import base64
import threading

import grpc
import numpy as np
import onnx
import pytest
from onnx import helper
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.encoder_store import push
from alula.gateway import encoder_cache
from alula.gateway import search as searching
from alula.gateway.declaration import flat
from alula.gateway.upstream import PREFIX, Caller
from alula.milvus import connect
from alula.milvus.wire import placeholders
from tests.engines.gateway.running import RunningGateway, stub, values
from tests.tiny_encoders import random_vectors, save, write_drq, write_flops
from tests.unit.encoders.test_safety import sum_of, whole, with_nodes
from tests.waiting import wait_until
from tools.servers.lite import connected


def failed(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def login(text):
    return (("authorization", base64.b64encode(text.encode()).decode()),)


def searches(name, queries, limit=10, **params):
    """A search of an index type's field."""
    kind = common_pb2.DslType.BoolExprV1
    request = milvus_pb2.SearchRequest(collection_name=name, nq=len(queries), dsl_type=kind)
    request.placeholder_group = placeholders.write(queries)
    for key, value in {"anns_field": "embedding", "topk": limit, "params": "{}", **params}.items():
        request.search_params.add(key=key, value=str(value))
    return request


@pytest.fixture
def filled(milvus_server, collection_name, tmp_path):
    """A collection of 300 rows with an index type."""
    with RunningGateway(milvus_server.uri) as gateway, connect(gateway.uri) as server:
        fill(server, collection_name, tmp_path)
        yield collection_name
        server.client.drop_collection(collection_name)


def fill(server, name, folder, kind="DRQ", write=write_drq, batch=300, **options):
    """A collection of 300 rows, of these options; its encoder is written unless the file is there."""
    push(server, write(folder / f"{name}.onnx").path if write else folder / f"{name}.onnx")
    client = server.client
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=8)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type=kind, metric_type="COSINE", params={"encoder": name})
    client.create_collection(name, schema=schema, index_params=index, **options)
    rows = [{"id": i, "embedding": row} for i, row in enumerate(random_vectors(300).tolist())]
    for start in range(0, len(rows), batch):
        client.insert(name, rows[start : start + batch])


def test_a_login_is_checked_before_a_message_is_received(milvus_server_with_auth):
    server = milvus_server_with_auth
    gate = threading.Event()

    def messages():
        gate.wait(30)  # the refusal comes although nothing is ever sent
        yield b""

    through = {"ca_file": server.ca_file, "server_name": "localhost"}
    with RunningGateway(server.uri, **through) as gateway, gateway.channel() as channel:
        for method in ("Search", "Insert", "Query"):
            call = channel.stream_unary(PREFIX + method)
            code, _ = failed(lambda call=call: call(messages(), metadata=login("root:wrong"), timeout=20))
            assert code == "UNAUTHENTICATED"
        gate.set()


def test_compressed_messages_are_refused(milvus_server):
    with RunningGateway(milvus_server.uri) as gateway, gateway.channel() as channel:
        request = milvus_pb2.ShowCollectionsRequest(db_name="a" * (1 << 20))
        code, _ = failed(lambda: stub(channel).ShowCollections(request, compression=grpc.Compression.Gzip))
        assert code == "UNIMPLEMENTED"


def test_a_cancelled_search_ends_at_its_next_call(milvus_server, filled, monkeypatch):
    """A search of many native calls whose client goes after the first: the worker is free after one more."""
    sent, first, goes_on = [], threading.Event(), threading.Event()
    send = Caller.send

    def watched(self, method, request):
        answer = send(self, method, request)
        if method == "Search":
            sent.append(method)
            first.set()
            assert goes_on.wait(30)
        return answer

    monkeypatch.setattr(Caller, "send", watched)
    with RunningGateway(milvus_server.uri, workers=1) as gateway, gateway.channel() as channel:
        call = stub(channel).Search.future(searches(filled, random_vectors(3000)))
        assert first.wait(30)
        call.cancel()
        wait_until(lambda: 'outcome="failed"' in gateway.page("/metrics")[1], "the gateway to see it")
        goes_on.set()
        wait_until(lambda: values(gateway)["alula_gateway_running",] == 0, "the worker to be free")
    assert len(sent) < 5, "of 30 or more"


@pytest.mark.parametrize(("queries", "params"), [(3000, {}), (1, {"candidates": 16384}), (20, {"limit": 100})])
def test_heavy_searches_of_a_client_take_turns_and_small_ones_do_not_wait(
    milvus_server, filled, monkeypatch, queries, params
):
    """Heavy by their bytes, or by the rows that they rank: a small request may ask for many."""
    sent, goes_on, send = [], threading.Event(), Caller.send

    def watched(self, method, request):
        if method == "Search" and (request.nq > 1 or int(flat(request.search_params)["topk"]) >= 1000):
            sent.append(id(self))
            assert goes_on.wait(30)
        return send(self, method, request)

    monkeypatch.setattr(Caller, "send", watched)
    with RunningGateway(milvus_server.uri) as gateway, gateway.channel() as channel:
        search = stub(channel).Search
        large = [search.future(searches(filled, random_vectors(queries), **params)) for _ in range(3)]
        wait_until(lambda: len(sent) == 1, "the first heavy search")
        wait_until(lambda: values(gateway)["alula_gateway_waiting",] == 2, "the others to wait")
        assert list(search(searches(filled, random_vectors(1))).results.topks) == [10]
        assert len(sent) == 1
        goes_on.set()
        each = params.get("limit", 10)
        assert all(list(call.result().results.topks) == [each] * queries for call in large)
        assert len(set(sent)) == 3


def test_a_search_of_too_many_candidates_is_refused(milvus_server, filled):
    with RunningGateway(milvus_server.uri) as gateway, gateway.channel() as channel:
        search = stub(channel).Search
        for request in (
            searches(filled, random_vectors(3000), candidates=16384),
            searches(filled, random_vectors(3000), limit=10000),
        ):
            status = search(request).status
            assert "too many for one search" in status.reason
            assert "queries at a time" in status.reason
        answer = search(searches(filled, random_vectors(2), candidates=300))
        assert list(answer.results.topks) == [10, 10]


def test_queries_in_pieces_are_answered_as_alone(milvus_server, filled, monkeypatch):
    queries = random_vectors(7, seed=3)
    with RunningGateway(milvus_server.uri) as gateway, gateway.channel() as channel:
        search = stub(channel).Search
        whole = search(searches(filled, queries, limit=5)).results
        monkeypatch.setattr(searching, "PIECE_QUERIES", 3)
        pieces = search(searches(filled, queries, limit=5)).results
        alone = [search(searches(filled, queries[i : i + 1], limit=5)).results for i in range(7)]
    assert list(whole.ids.int_id.data) == list(pieces.ids.int_id.data)
    assert list(pieces.ids.int_id.data) == [id_ for one in alone for id_ in one.ids.int_id.data]
    np.testing.assert_allclose(pieces.scores, whole.scores, rtol=1e-6)


def test_an_iterator_takes_one_query(milvus_server, filled):
    params = {"iterator": "True", "search_iter_v2": "True", "search_iter_batch_size": 5}
    with RunningGateway(milvus_server.uri) as gateway, gateway.channel() as channel:
        status = stub(channel).Search(searches(filled, random_vectors(2), **params)).status
        assert "A search iterator takes one query, and 2 were given" in status.reason
        assert not stub(channel).Search(searches(filled, random_vectors(1), **params)).status.code


def test_a_request_with_two_names_is_about_the_last(milvus_server, filled, collection_name):
    """As Milvus reads it: with an ordinary collection named first, companions stay hidden."""
    client = MilvusClient(milvus_server.uri)
    ordinary = f"{collection_name}_plain"
    client.create_collection(ordinary, dimension=8)
    try:
        with RunningGateway(milvus_server.uri) as gateway, gateway.channel() as channel:
            query = stub(channel).Query
            query(milvus_pb2.QueryRequest(collection_name=ordinary, expr="id >= 0", output_fields=["id"]))
            last = milvus_pb2.QueryRequest(collection_name=filled, expr="id < 3", output_fields=["*"])
            last.query_params.add(key="limit", value="3")
            first = milvus_pb2.QueryRequest(collection_name=ordinary).SerializeToString()
            raw = channel.unary_unary(PREFIX + "Query", response_deserializer=milvus_pb2.QueryResults.FromString)
            answer = raw(first + last.SerializeToString())
            assert {data.field_name for data in answer.fields_data} == {"id", "embedding"}
    finally:
        client.drop_collection(ordinary)
        client.close()


def too_large():
    """Rows to the 8th power as the size of a tensor: 65,536 numbers for a push's probes, 26 TB for 40 rows."""
    nodes = [helper.make_node("Shape", ["vectors"], ["s1"], start=0, end=1)]
    nodes += [helper.make_node("Mul", [f"s{power}", f"s{power}"], [f"s{2 * power}"]) for power in (1, 2, 4)]
    return sum_of([*nodes, helper.make_node("ConstantOfShape", ["s8"], ["big"])])


def too_slow():
    """1,000 products of square matrices of 2 n^2 rows: 32 for a push's probes, 3,200 for 40 rows."""
    nodes = [
        helper.make_node("Shape", ["vectors"], ["n"], start=0, end=1),
        helper.make_node("Mul", ["n", "n"], ["square"]),
        helper.make_node("Mul", ["square", "two"], ["side"]),
        helper.make_node("Concat", ["side", "side"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["p0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(1000)]
    return sum_of([*nodes, helper.make_node("Identity", ["p1000"], ["big"])], [whole("two", 2)])


@pytest.mark.parametrize(("made", "says"), [(too_large, "failed while encoding"), (too_slow, "took more than 1 s")])
def test_a_hostile_encoder_that_can_be_pushed(lite_server, collection_name, tmp_path, monkeypatch, made, says):
    """It fails where its author wants, and the gateway goes on."""
    monkeypatch.setattr(encoder_cache, "RUN_SECONDS", 1.0)
    file = tmp_path / f"{collection_name}.onnx"
    save(with_nodes(onnx.load(write_flops(file).path), made()), file)
    with (
        RunningGateway(lite_server.uri) as gateway,
        connected(gateway.uri) as server,
        gateway.channel() as channel,
    ):
        fill(server, collection_name, tmp_path, "FLOPS_SPARSE", write=None, batch=4)
        search = stub(channel).Search
        try:
            for _ in range(2):
                assert says in search(searches(collection_name, random_vectors(40))).status.reason
                answer = search(searches(collection_name, random_vectors(2)))
                assert list(answer.results.topks) == [10, 10]
            assert gateway.page("/readyz")[0] == 200
        finally:
            server.client.drop_collection(collection_name)
