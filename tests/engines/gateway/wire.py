"""HTTP/2 by hand, as no gRPC library would send it, and calls of any method in bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from concurrent import futures

import grpc
from pymilvus.grpc_gen import milvus_pb2

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
PREFIX = f"/{SERVICE.full_name}/"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: str, **others: str) -> bytes:
    """The header block of a gRPC call: literals without index or Huffman's code (RFC 7541, section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    fields |= {name.replace("_", "-"): value for name, value in others.items()}
    block = b""
    for name, value in fields.items():
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")
    return block


def opening(path: str, *, flags: int = END_HEADERS, **others: str) -> bytes:
    """What begins a connection and a call on it."""
    return PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, flags, 1, headers(path, **others))


def message(body: bytes, *, says: int | None = None, compressed: bool = False) -> bytes:
    """A gRPC message in a DATA frame that may lie about its length."""
    length = len(body) if says is None else says
    return frame(DATA, 0, 1, bytes([compressed]) + struct.pack(">I", length) + body)


def exchange(address: tuple[str, int], sent: bytes, *, half_close: bool = False, seconds: float = 5.0) -> bytes:
    """What comes back until the other side closes, says nothing for a moment, or the call has ended."""
    received = b""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=seconds) as peer:
        peer.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            peer.sendall(sent)
            if half_close:
                peer.shutdown(socket.SHUT_WR)
            while piece := peer.recv(1 << 16):
                received += piece
    return received


class Recording(grpc.GenericRpcHandler):
    """A proxy that keeps the requests of the unary calls that pass it."""

    def __init__(self, upstream: grpc.Channel) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self._upstream = upstream

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of any method."""
        call = self._upstream.unary_unary(details.method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.requests.append((details.method.removeprefix(PREFIX), request))
            try:
                return call(request, timeout=30)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def recording(address: str) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of a proxy before another address, and the requests that have passed it."""
    with grpc.insecure_channel(address, UNLIMITED) as upstream:
        handler = Recording(upstream)
        server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[handler], options=UNLIMITED)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}", handler.requests
        finally:
            server.stop(0).wait()
