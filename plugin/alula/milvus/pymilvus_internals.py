"""The private parts of pymilvus that Alula needs, in one place."""

from __future__ import annotations

from typing import Any

import grpc
from pymilvus import BulkInsertState
from pymilvus.client.prepare import Prepare
from pymilvus.client.utils import check_status
from pymilvus.grpc_gen import milvus_pb2

from alula.errors import ServerError
from alula.milvus.connection import Server, server_words

CLOCK_TIMEOUT = 10.0  # seconds
IDEMPOTENCY_KEY = "idempotency-key"  # in the metadata of a call


def grpc_handler(server: Server) -> tuple[Any, dict[str, Any]]:
    """The gRPC handler of a client, and the arguments for the database in its calls."""
    context = {}
    if hasattr(server.client, "_generate_call_context"):  # pymilvus 3
        context["context"] = server.client._generate_call_context()
    return server.client._get_connection(), context


def server_time(server: Server) -> int | None:
    """The server's current timestamp; None without a clock, as in Milvus Lite.

    It is 0 where the login may not ask.

    Raises:
        ServerError: If it does not answer.
    """
    handler, _ = grpc_handler(server)
    try:
        now = handler._stub.AllocTimestamp(milvus_pb2.AllocTimestampRequest(), timeout=CLOCK_TIMEOUT)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise ServerError(f"Milvus at {server.uri} could not be asked for its time ({server_words(error)}).") from None
    refused = now.status.code or now.status.error_code
    return int(now.timestamp) if now.timestamp or refused else None


def start_import(server: Server, name: str, partition: str, file: str, *, timeout: float, key: str) -> int:
    """Request the bulk import of a file once; returns the server's task number.

    pymilvus would repeat a request whose answer is lost, and so import the file twice.

    Args:
        server: The connected server.
        name: The collection.
        partition: The partition; "" for the default one.
        file: The file as the server names it.
        timeout: Seconds to wait.
        key: Names the request: printable ASCII, at most 256 bytes. Milvus 2.6.24 and 3.0.2 answer a request of the
            same key with the first one's task, and earlier versions do not look at it.

    Raises:
        MilvusException, grpc.RpcError: As they came.
    """
    handler, context = grpc_handler(server)
    metadata = [*(context["context"].to_grpc_metadata() if context else ()), (IDEMPOTENCY_KEY, key)]
    request = Prepare.do_bulk_insert(name, partition, [file])
    response = handler._stub.Import(request, timeout=timeout, metadata=metadata)
    check_status(response.status)
    return int(response.tasks[0])


def import_state(server: Server, task: int, timeout: float) -> BulkInsertState:
    """The state of one import task.

    Raises:
        MilvusException, grpc.RpcError: As they came.
    """
    handler, context = grpc_handler(server)
    return handler.get_bulk_insert_state(task, timeout=timeout, **context)


def list_imports(server: Server, name: str, timeout: float, *, limit: int = 0) -> list[BulkInsertState]:
    """The server's import tasks of a collection, at most `limit` (0: all).

    Raises:
        MilvusException, grpc.RpcError: As they came.
    """
    handler, context = grpc_handler(server)
    return list(handler.list_bulk_insert_tasks(limit, name, timeout=timeout, **context))


def index_failure(server: Server, name: str, index: str) -> str:
    """Milvus's reason for an index that it could not build.

    pymilvus's description of an index lacks it.

    Raises:
        MilvusException, grpc.RpcError: As they came.
    """
    handler, context = grpc_handler(server)
    return str(handler.get_index_state(name, index, **context)[1])
