"""Methods that stream, or that no version of today has, go through in both directions as they come."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.engines.gateway.running import LOOPBACK, RunningGateway

PATH = "/milvus.proto.milvus.MilvusService/"


class Later(grpc.GenericRpcHandler):
    """A service as a later version may have it: it says what it hears, with the login that it was told with."""

    def service(self, details):
        login = dict(details.invocation_metadata).get("authorization", "")
        handlers = {
            "One": grpc.unary_unary_rpc_method_handler(lambda request, _: request + login.encode()),
            "Many": grpc.unary_stream_rpc_method_handler(lambda request, _: (bytes([byte]) for byte in request)),
            "Sum": grpc.stream_unary_rpc_method_handler(lambda requests, _: b"".join(requests)),
            "Talk": grpc.stream_stream_rpc_method_handler(lambda requests, _: (b"you said " + r for r in requests)),
            "CreateReplicateStream": grpc.stream_stream_rpc_method_handler(lambda requests, _: requests),
        }
        return handlers.get(details.method.removeprefix(PATH))


@pytest.fixture(scope="module")
def channel():
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Later(),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    with RunningGateway(f"http://{LOOPBACK}:{port}") as gateway, gateway.channel() as channel:
        yield channel
    server.stop(None)


def test_one_request_and_one_answer(channel):
    call = channel.unary_unary(f"{PATH}One")
    assert call(b"hello ", metadata=(("authorization", "me"),), timeout=5) == b"hello me"
    assert call(b"", timeout=5) == b""


def test_many_answers(channel):
    assert list(channel.unary_stream(f"{PATH}Many")(b"abc", timeout=5)) == [b"a", b"b", b"c"]


def test_many_requests(channel):
    call = channel.stream_unary(f"{PATH}Sum")
    for requests in ([b"a", b"b", b"c"], [b"a"], [], [bytes([i % 256]) for i in range(500)]):
        assert call(iter(requests), timeout=5) == b"".join(requests)


@pytest.mark.parametrize("method", ["Talk", "CreateReplicateStream"])
def test_a_conversation_in_which_each_waits_for_the_other(channel, method):
    said: queue.Queue[bytes | None] = queue.Queue()
    answers = channel.stream_stream(PATH + method)(iter(said.get, None), timeout=10)
    for word in (b"one", b"two", b"three"):
        said.put(word)
        assert next(answers).endswith(word)
    said.put(None)
    assert list(answers) == []


def test_a_method_that_is_not_there(channel):
    for call, request in (
        (channel.unary_unary(f"{PATH}Nothing"), b"x"),
        (channel.stream_unary(f"{PATH}Nothing"), iter([b"x"])),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call(request, timeout=5)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
