"""Rubbish of every kind is answered with an error, in time, and the next client is served as if nothing had been."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from alula import encoder_store
from tests.engines.gateway import wire
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq
from tests.waiting import finished, within
from tools.servers.gateway import GatewayProgram
from tools.servers.lite import LiteServer, connected

ROWS, DIM, FIELD = 300, 8, "embedding"
METHODS = [method.name for method in wire.SERVICE.methods]
SEARCHED = {"plain": "FLAT", "codes": "DRQ"}  # never written to by a fuzzed request


def fuzz(examples):
    """The same examples in every run, and none shrunk: a server that was spoiled once would mislead the search."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


UNEXPECTED = "Unexpected <class"  # how gRPC tells a client of an exception that the gateway's own code did not catch


ENGINE_BYTES = 4 << 30


@dataclass(repr=False)
class Target:
    """The gateway, with two collections to search, and requests of an ordinary client to spoil."""

    gateway: GatewayProgram
    engine: LiteServer
    channel: grpc.Channel
    vectors: np.ndarray
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.gateway.port

    @property
    def pids(self) -> tuple[int, int]:
        """The processes that work on a call."""
        return self.gateway.pid, self.engine.pid

    def call(self, method: str, request: bytes, metadata=(), path: str | None = None):
        """The answer in bytes, or the gRPC error."""
        call = self.channel.unary_unary(path or wire.PREFIX + method).future(request, metadata=metadata)
        finished(call, f"{method} of {request[:2000]!r}", *self.pids)
        try:
            return call.result()
        except grpc.RpcError as error:
            failure = error
        self.revive()
        assert UNEXPECTED not in (failure.details() or ""), f"{method}: {failure}: {request!r}"
        return failure

    def revive(self):
        """Start the engine again if it has ended: some rubbish that is passed on is too much for it."""
        if self.engine.ended:
            self.engine.restart()

    def answered(self, method: str, request: bytes, **arguments):
        """The answer, parsed: what a gateway or Milvus answers is always a message, or there is a gRPC error."""
        answer = self.call(method, request, **arguments)
        if isinstance(answer, grpc.RpcError):
            return answer
        (kind,) = (found.output_type for found in wire.SERVICE.methods if found.name == method)
        return GetMessageClass(kind).FromString(answer)

    def refuses(self, method: str, request) -> str:
        """The reason for which a request is refused by a status of Milvus's kind."""
        answer = self.answered(method, request.SerializeToString())
        assert not isinstance(answer, grpc.RpcError), f"{method}: {answer}"
        status = answer if isinstance(answer, common_pb2.Status) else answer.status
        assert status.code, f"{method} is not refused: {request}"
        assert status.error_code
        assert status.reason
        return status.reason

    def still_serves(self):
        """A new client finds what brute force finds, in both collections."""
        assert self.gateway.alive, self.gateway.log()[-3000:]
        query = random_vectors(1, DIM, seed=5)[0]
        wanted = best(scores(query, self.vectors, "COSINE"), 5, "COSINE").tolist()
        self.revive()
        within(lambda: self._search(query, wanted), "a search", *self.pids)
        before, found, after = self.gateway.log().partition("Traceback")
        assert not found, before[-300:] + found + after[:3000]

    def _search(self, query, wanted):
        client = MilvusClient(self.gateway.uri)
        try:
            for name in SEARCHED:
                client.load_collection(name)  # the engine may have been started again
                (hits,) = client.search(
                    name,
                    [query.tolist()],
                    anns_field=FIELD,
                    limit=5,
                    search_params={} if name == "plain" else {"params": {"candidates": ROWS}},
                    consistency_level="Strong",
                )
                assert [hit["id"] for hit in hits] == wanted, name
        finally:
            client.close()


@pytest.fixture(scope="module")
def target(starts_engine, tmp_path_factory):
    encoder = write_drq(tmp_path_factory.mktemp("encoder") / "drq.onnx", input_dim=DIM)
    # a spoiled insert that is passed on, of rows by the billion, would take all of the machine's memory
    with LiteServer(memory=ENGINE_BYTES) as engine, GatewayProgram(engine.uri) as gateway:
        with connected(engine.uri) as server:
            encoder_store.push(server, encoder.path, name="tiny")
        address = gateway.address
        options = [*wire.UNLIMITED, ("grpc.max_metadata_size", 1 << 20)]
        with grpc.insecure_channel(address, options) as channel:
            target = Target(gateway, engine, channel, random_vectors(ROWS, DIM, seed=1))
            with wire.recording(address) as (uri, requests):
                client = MilvusClient(uri)
                for name, index_type in SEARCHED.items():
                    _make(client, name, index_type, target.vectors)
                requests.clear()
                _use_everything(client, target.vectors)
                client.close()
            target.requests = requests
            target.still_serves()
            yield target


@pytest.fixture(autouse=True)
def _serves_afterwards(target):
    yield
    target.still_serves()


def _make(client, name, index_type, vectors):
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("word", DataType.VARCHAR, max_length=100)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index(FIELD, index_type=index_type, metric_type="COSINE", params={})
    custom = {"alula.index_type": index_type, "alula.encoder": "tiny"}
    client.create_collection(name, schema=schema, index_params=index, properties=custom if index_type != "FLAT" else {})
    client.insert(name, _rows(vectors))


def _rows(vectors, start=0):
    return [{"id": i, "word": f"w{i % 7}", FIELD: vector} for i, vector in enumerate(vectors.tolist(), start)]


def _use_everything(client, vectors):
    """What clients do, to collections that may be spoiled."""
    for index_type in SEARCHED.values():
        name = f"victim_{index_type.lower()}"
        _make(client, name, index_type, vectors[:50])
        client.upsert(name, _rows(vectors[:5], 3))
        client.query(name, filter='id < 9 and word != "a"', output_fields=["word", FIELD], limit=5)
        client.search(name, vectors[:2].tolist(), anns_field=FIELD, limit=3, output_fields=["word"], filter="id > 3")
        client.search(name, vectors[:1].tolist(), anns_field=FIELD, limit=3, search_params={"params": {"radius": 0.1}})
        client.describe_index(name, FIELD)
        client.get_collection_stats(name)
        client.delete(name, ids=[1, 2])
        client.describe_collection(name)
        client.load_collection(name)
        client.flush(name)
    client.list_collections()
    client.has_collection("nothing")


def test_random_bytes_to_every_method(target):
    rng = random.Random(0)
    for method in METHODS:
        for size in (0, 7, 400):
            target.call(method, rng.randbytes(size))
        nested = bytes([0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x07])  # a field that says it is 2 GB long
        target.call(method, nested + rng.randbytes(20))


@fuzz(150)
@given(data=st.data())
def test_requests_with_spoiled_bytes(target, data):
    method, request = data.draw(st.sampled_from(target.requests))
    spoiled = bytearray(request)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(spoiled) - 1)))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "utf8", "double"]))
        if what == "flip" and spoiled:
            spoiled[place] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del spoiled[place:]
        elif what == "insert":
            spoiled[place:place] = data.draw(st.binary(max_size=8))
        elif what == "utf8" and spoiled:
            spoiled[place] = 0xFF
        else:
            spoiled += spoiled[place:]
    target.call(method, bytes(spoiled))


# Names of the searched collections are not among them.
TEXTS = [
    "",
    "\0",
    "x" * 70_000,
    "victim_drq",
    "victim_flat",
    "embedding",
    "embedding__drq_sign",
    "no such thing",
    "'",
]
TEXTS += ["{", "{}", '{"candidates": "many"}', "id in [", "[" * 5000, "DRQ", "FLOPS_SPARSE", "-1", "1e999", "nan", "😀"]
NUMBERS = [0, 1, -1, 2, 7, 100, 101, 16_385, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]


RANGES = {
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: range(-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
    FieldDescriptor.CPPTYPE_UINT64: range(2**64),
    FieldDescriptor.CPPTYPE_ENUM: range(-(2**31), 2**31),
}


def _some_value(draw, kind, old):
    if kind.type == FieldDescriptor.TYPE_STRING:
        return draw(st.sampled_from(TEXTS))
    if kind.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.one_of(st.binary(max_size=60), st.just(old[: len(old) // 2]), st.just(old + old)))
    if kind.type == FieldDescriptor.TYPE_BOOL:
        return not old
    if kind.cpp_type in RANGES:
        return draw(st.sampled_from([number for number in NUMBERS if number in RANGES[kind.cpp_type]]))
    return draw(st.sampled_from([0.0, float("nan"), float("inf"), -1.0, 3e38]))


def _spoil(draw, spoiled) -> None:
    """Change something in a message, however deep."""
    while True:
        present = spoiled.ListFields()
        if not present:
            return
        kind, value = draw(st.sampled_from(present))
        many = kind.is_repeated
        if kind.message_type is not None and kind.message_type.GetOptions().map_entry:
            spoiled.ClearField(kind.name)
            return
        if kind.type == FieldDescriptor.TYPE_MESSAGE and draw(st.integers(0, 4)):
            spoiled = draw(st.sampled_from(list(value))) if many else value
            continue
        how = draw(st.sampled_from(["clear", "change", "change", "repeat"]))
        if how == "clear" or (kind.type == FieldDescriptor.TYPE_MESSAGE and not many):
            spoiled.ClearField(kind.name)
        elif how == "repeat" and many:
            value.extend(list(value))
        elif kind.type == FieldDescriptor.TYPE_MESSAGE:
            del value[draw(st.integers(0, len(value) - 1))]
        elif many:
            value[draw(st.integers(0, len(value) - 1))] = _some_value(draw, kind, value[0])
        else:
            setattr(spoiled, kind.name, _some_value(draw, kind, value))
        return


@fuzz(250)
@given(data=st.data())
def test_requests_with_spoiled_fields(target, data):
    method, request = data.draw(st.sampled_from(target.requests))
    (kind,) = (found.input_type for found in wire.SERVICE.methods if found.name == method)
    spoiled = GetMessageClass(kind).FromString(request)
    for _ in range(data.draw(st.integers(1, 3))):
        _spoil(data.draw, spoiled)
    if getattr(spoiled, "collection_name", "") in SEARCHED:
        return
    target.answered(method, spoiled.SerializeToString())


def _insert(columns, rows, name="codes"):
    request = milvus_pb2.InsertRequest(collection_name=name, num_rows=rows)
    request.fields_data.extend(columns)
    return request


def _ids(rows):
    column = schema_pb2.FieldData(field_name="id", type=DataType.INT64)
    column.scalars.long_data.data.extend(range(ROWS, ROWS + rows))
    return column


def _words(rows):
    column = schema_pb2.FieldData(field_name="word", type=DataType.VARCHAR)
    column.scalars.string_data.data.extend(["w"] * rows)
    return column


def _floats(values, dim=DIM, kind=DataType.FLOAT_VECTOR, name=FIELD):
    column = schema_pb2.FieldData(field_name=name, type=kind)
    column.vectors.dim = dim
    column.vectors.float_vector.data.extend(values)
    return column


def _bytes(what):
    column = schema_pb2.FieldData(field_name=FIELD, type=DataType.BINARY_VECTOR)
    column.vectors.dim = DIM
    setattr(column.vectors, what, b"\1" * 8)
    return column


def _sparse():
    column = schema_pb2.FieldData(field_name=FIELD, type=DataType.SPARSE_FLOAT_VECTOR)
    column.vectors.sparse_float_vector.contents.extend([b"\0\0\0\0\0\0\x80?"])
    return column


GOOD = [0.5] * DIM
WRONG_VECTORS = {
    "too few numbers": lambda: _floats(GOOD[:-1]),
    "another dim": lambda: _floats(GOOD * 2, 2 * DIM),
    "dim 0": lambda: _floats(GOOD, 0),
    "dim -8": lambda: _floats(GOOD, -DIM),
    "dim 2**62": lambda: _floats(GOOD, 2**62),
    "no numbers": lambda: _floats([]),
    "two vectors for one row": lambda: _floats(GOOD * 2),
    "nan": lambda: _floats([float("nan")] * DIM),
    "infinite": lambda: _floats([float("inf")] * DIM),
    "bits": lambda: _bytes("binary_vector"),
    "half floats": lambda: _bytes("float16_vector"),
    "sparse": _sparse,
    "a text": lambda: schema_pb2.FieldData(
        field_name=FIELD, scalars=schema_pb2.ScalarField(string_data=schema_pb2.StringArray(data=["x"]))
    ),
    "nothing": lambda: schema_pb2.FieldData(field_name=FIELD),
    "a companion": lambda: _floats(GOOD, name=f"{FIELD}__drq_sign"),
}


@pytest.mark.parametrize("vector", WRONG_VECTORS.values(), ids=WRONG_VECTORS)
@pytest.mark.parametrize("method", ["Insert", "Upsert"])
def test_vectors_of_wrong_types_and_dims_are_refused(target, vector, method):
    request = _insert([_ids(1), _words(1), vector()], 1)
    if method == "Upsert":
        request = milvus_pb2.UpsertRequest.FromString(request.SerializeToString())
    assert len(target.refuses(method, request)) < 1000


@pytest.mark.parametrize("rows", [0, 2, 2**32 - 1])
def test_a_wrong_number_of_rows_is_refused(target, rows):
    target.refuses("Insert", _insert([_ids(1), _words(1), _floats(GOOD)], rows))


def _search(name="codes", nq=1, **changes):
    values = [common_pb2.PlaceholderValue(tag="$0", type=101, values=[np.array(GOOD, "<f4").tobytes()])]
    request = milvus_pb2.SearchRequest(collection_name=name, nq=nq, dsl_type=1)
    request.placeholder_group = common_pb2.PlaceholderGroup(placeholders=values).SerializeToString()
    told = {"anns_field": FIELD, "topk": "5", "metric_type": "COSINE", "params": "{}"} | changes
    request.search_params.extend(common_pb2.KeyValuePair(key=key, value=value) for key, value in told.items())
    return request


def _with_placeholders(*values, kind=101):
    request = _search(nq=len(values))
    group = common_pb2.PlaceholderGroup()
    group.placeholders.add(tag="$0", type=kind, values=values)
    request.placeholder_group = group.SerializeToString()
    return request


WRONG_SEARCHES = {
    "no limit that is a number": lambda: _search(topk="many"),
    "limit 0": lambda: _search(topk="0"),
    "limit -1": lambda: _search(topk="-1"),
    "limit 2**70": lambda: _search(topk=str(2**70)),
    "limit of a million digits": lambda: _search(topk="9" * 1_000_000),
    "offset -1": lambda: _search(offset="-1"),
    "params that are no JSON": lambda: _search(params="{"),
    "params that are deep": lambda: _search(params="[" * 100_000),
    "params that are a list": lambda: _search(params="[1]"),
    "another metric": lambda: _search(metric_type="L2"),
    "an option that is none": lambda: _search(params='{"no_such_option": 1}'),
    "candidates that are a list": lambda: _search(params='{"candidates": [1]}'),
    "candidates 0": lambda: _search(params='{"candidates": 0}'),
    "candidates 1e30": lambda: _search(params='{"candidates": 1e30}'),
    "bits that are infinite": lambda: _search(params='{"bits": Infinity}'),
    "rerank -5": lambda: _search(params='{"rerank": -5}'),
    "radius that is no number": lambda: _search(radius="far"),
    "radius nan": lambda: _search(radius="nan"),
    "no placeholders": _with_placeholders,
    "a short vector": lambda: _with_placeholders(b"\0" * 12),
    "a long vector": lambda: _with_placeholders(b"\0" * 4096),
    "an odd vector": lambda: _with_placeholders(b"\0" * 31),
    "vectors of two lengths": lambda: _with_placeholders(b"\0" * 32, b"\0" * 64),
    "nan": lambda: _with_placeholders(np.full(DIM, np.nan, "<f4").tobytes()),
    "bits": lambda: _with_placeholders(b"\1", kind=100),
    "an unknown kind": lambda: _with_placeholders(b"\1" * 32, kind=9999),
    "text that is not UTF-8": lambda: _with_placeholders(b"\xff\xfe", kind=21),
}


@pytest.mark.parametrize("search", WRONG_SEARCHES.values(), ids=WRONG_SEARCHES)
def test_wrong_searches_are_refused(target, search):
    assert len(target.refuses("Search", search())) < 2000


def test_placeholders_that_cannot_be_read_are_refused(target):
    request = _search()
    for group in (b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x07", zlib.compress(b"x" * 1000)):
        request.placeholder_group = group
        target.refuses("Search", request)


def test_text_that_is_not_utf8_is_refused(target):
    for method in ("Search", "Insert", "Query", "DescribeCollection", "CreateCollection"):
        (kind,) = (found.input_type for found in wire.SERVICE.methods if found.name == method)
        request = GetMessageClass(kind)(collection_name="Q" * 40).SerializeToString()
        answer = target.answered(method, request.replace(b"Q" * 40, b"\xff" * 40))
        assert isinstance(answer, grpc.RpcError) or (answer.status if hasattr(answer, "status") else answer).reason


METADATA = [
    [("authorization", "not base64 at all")],
    [("authorization", "")],
    [("authorization", "/////w==")],
    [("dbname", "no such database")],
    [("dbname", "'; drop")],
    [("dbname", "x" * 100_000)],
    [("alula-bin", b"\0\xff" * 500)],
    [("client_request_id", "\t"), ("client-request-unixmsec", "yesterday")],
    [(f"many-{i}", "x") for i in range(200)],
    [("same", "x")] * 100,
    [("identifier", "-1"), ("grpc-trace-bin", b"\1"), ("traceparent", "00-0-0-0")],
]


@pytest.mark.parametrize("metadata", METADATA, ids=lambda metadata: metadata[0][0])
@pytest.mark.parametrize("name", SEARCHED)
def test_rubbish_in_the_metadata(target, metadata, name):
    target.answered("Search", _search(name).SerializeToString(), metadata=metadata)
    target.answered("ShowCollections", b"", metadata=metadata)


# What may be a stream is passed on as one, and gRPC for Python calls it INTERNAL when a stream was refused so soon that
# its first message could not be sent.
UNKNOWN_METHOD = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)


@pytest.mark.parametrize(
    "path",
    [wire.PREFIX + "NoSuchMethod", "/no.such.Service/Search", "/", "/x", wire.PREFIX, wire.PREFIX + "Search/", "/😀/x"],
)
def test_unknown_methods_fail(target, path):
    answer = target.call("", b"rubbish", path=path)
    assert isinstance(answer, grpc.RpcError)
    assert answer.code() in UNKNOWN_METHOD


def test_names_of_methods_that_never_end(target):
    for number in range(500):
        answer = target.call("", b"", path=f"/made.up/Method{number}")
        assert answer.code() in UNKNOWN_METHOD


SEARCH = wire.PREFIX + "Search"
OTHER_PROTOCOLS = {
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1 to a method": f"POST {SEARCH} HTTP/1.1\r\nContent-Length: 5\r\n\r\nxxxxx".encode(),
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "zeros": bytes(5000),
    "random": random.Random(1).randbytes(20_000),
    "nothing": b"",
    "half a preface": wire.PREFACE[:10],
    "a preface and rubbish": wire.PREFACE + random.Random(2).randbytes(2000),
    "a frame of 16 MB": wire.PREFACE + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(100),
    "a header block that ends early": wire.PREFACE + wire.frame(wire.HEADERS, wire.END_HEADERS, 1, b"\0\x7f"),
    "data before headers": wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0, b"") + wire.message(b"x"),
    "a bad deadline": wire.opening(SEARCH, grpc_timeout="soon") + wire.message(b""),
    "a deadline of no time": wire.opening(SEARCH, grpc_timeout="0n") + wire.message(b""),
    "another content type": wire.opening(SEARCH, content_type="text/html") + wire.message(b""),
    "an unknown compression": wire.opening(SEARCH, grpc_encoding="magic") + wire.message(b"xx", compressed=True),
    "broken gzip": wire.opening(SEARCH, grpc_encoding="gzip") + wire.message(b"\x1f\x8bxx", compressed=True),
    "a length of 4 GB": wire.opening(SEARCH) + wire.message(b"x", says=2**32 - 1),
    "a length of 1 GB": wire.opening(SEARCH) + wire.message(b"x", says=1 << 30),
    "a length that is never reached": wire.opening(SEARCH) + wire.message(b"x", says=50),
    "a call without a message": wire.opening(SEARCH, flags=wire.END_HEADERS | wire.END_STREAM),
    "two messages in a unary call": wire.opening(SEARCH) + wire.message(b"") + wire.message(b""),
    "a stream that stays open": wire.opening(wire.PREFIX + "CreateReplicateStream") + wire.message(b"x"),
    "an unknown method that stays open": wire.opening("/no/method") + wire.message(b"x"),
}


@pytest.mark.parametrize("sent", OTHER_PROTOCOLS.values(), ids=OTHER_PROTOCOLS)
def test_what_is_no_call_at_all(target, sent):
    wire.exchange(target.address, sent)
    wire.exchange(target.address, sent, half_close=True)


def test_calls_left_open_do_not_keep_others_waiting(target):
    held = []
    for _ in range(200):
        peer = wire.socket.create_connection(target.address)
        peer.sendall(wire.opening(SEARCH) + wire.message(b"x", says=50))
        held.append(peer)
    target.still_serves()
    for peer in held:
        peer.close()


def test_calls_that_are_given_up_leave_nothing_behind(target):
    request = _search("codes", params='{"candidates": 300}').SerializeToString()
    call = target.channel.unary_unary(SEARCH)
    for round_ in range(20):
        futures = [call.future(request) for _ in range(20)]
        if round_ % 2:
            finished(futures[0], "a search beside others that are given up", *target.pids)
        for future in futures:
            future.cancel()


def test_messages_above_the_limit_are_refused_and_those_below_are_read(target):
    for megabytes in (65, 130):
        answer = target.call("Insert", bytes(megabytes << 20))
        assert isinstance(answer, grpc.RpcError)
        assert answer.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    request = _search("codes")
    request.dsl = "id in [" + ",".join(["1"] * 1_000_000) + "]"
    target.answered("Search", request.SerializeToString())


def test_an_answer_is_parsed_as_what_it_is():
    """What the checks above rest on: a message of another type, or no message, is not taken for an answer."""
    with pytest.raises(DecodeError):
        milvus_pb2.SearchResults.FromString(b"\x0a\xff\xff\xff\xff\x07")
