"""Find out what a server can do by asking it: small collections are created, indexed and dropped again."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError
from alula.index_types import Capabilities
from alula.index_types.drq import BINARY_INDEXES
from alula.milvus.connection import Server, server_words
from alula.milvus.failures import Failure, what_failed

Field = tuple[str, DataType, Mapping[str, Any]]

_BINARY: Field = ("binary", DataType.BINARY_VECTOR, {"dim": 64})
_FLOAT: Field = ("float", DataType.FLOAT_VECTOR, {"dim": 4})
_SPARSE: Field = ("sparse", DataType.SPARSE_FLOAT_VECTOR, {})
_ARRAY: Field = ("array", DataType.ARRAY, {"element_type": DataType.FLOAT, "max_capacity": 4})


def version(server: Server) -> str:
    """The server in words, with its version as far as it tells one.

    Raises:
        ServerError: If it does not answer.
    """
    if server.embedded:
        import milvus_lite  # noqa: PLC0415

        return f"Milvus Lite {milvus_lite.__version__}"
    try:
        told = str(server.client.get_server_version())
    except (MilvusException, grpc.RpcError) as error:
        _check_refused(server, error)
        return f"Milvus of unknown version ({server_words(error)})"
    return f"Milvus {told.removeprefix('v')}"


def probe(server: Server) -> Capabilities:
    """Try what Alula needs on a server.

    The version decides nothing: servers accept what they cannot do (2.3 takes a sparse field and cannot index it).

    Raises:
        ServerError: If it does not answer, or not even the simplest collection can be created: the reason is then the
            login's rights.
    """
    reasons: dict[str, str] = {}

    def works(name: str, fields: Sequence[Field], index_type: str, metric: str) -> bool:
        failure = _try(server, fields, index_type, metric)
        if failure is not None:
            reasons[name] = failure
        return failure is None

    binary = [name for name in BINARY_INDEXES if works(name, [_BINARY], name, "HAMMING")]
    float_works = works("float", [_FLOAT], "FLAT", "COSINE")
    if not binary and not float_works:
        raise ServerError(
            f"No collection could be created at {server.uri} to see what it can do ({reasons['float']}). "
            "Alula needs the rights to create, index and drop a collection."
        )
    return Capabilities(
        server=version(server),
        sparse_index=works("sparse_index", [_SPARSE], "SPARSE_INVERTED_INDEX", "IP"),
        binary_indexes=frozenset(binary),
        several_vector_fields=works(
            "several_vector_fields", [_BINARY if binary else _SPARSE, _FLOAT], *_first_index(binary)
        ),
        array_field=works("array_field", [_FLOAT, _ARRAY], "FLAT", "COSINE"),
        reasons=reasons,
    )


def _first_index(binary: Sequence[str]) -> tuple[str, str]:
    return (binary[0], "HAMMING") if binary else ("SPARSE_INVERTED_INDEX", "IP")


def _check_refused(server: Server, error: MilvusException | grpc.RpcError) -> None:
    """Raise a `ServerError` for a failure that tells nothing of what the server can do: it may work the next time."""
    if what_failed(error) is not Failure.REFUSED:
        raise ServerError(
            f"Milvus at {server.uri} could not be asked what it can do ({server_words(error)}); try again."
        ) from error


def _try(server: Server, fields: Sequence[Field], index_type: str, metric: str) -> str | None:
    """Create a collection with an index on its first field; None if it works, else the server's words."""
    client = server.client
    name = f"alula_probe_{uuid.uuid4().hex[:12]}"
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    for field, data_type, params in fields:
        schema.add_field(field, data_type, **params)
    index = client.prepare_index_params()
    index.add_index(fields[0][0], index_type=index_type, metric_type=metric, params={"nlist": 16})
    try:
        client.create_collection(name, schema=schema, shards_num=1)
        client.create_index(name, index, sync=False)
    except (MilvusException, grpc.RpcError) as error:
        _check_refused(server, error)
        return server_words(error)
    finally:
        with contextlib.suppress(MilvusException, grpc.RpcError):  # it may never have been created
            client.drop_collection(name)
    return None
