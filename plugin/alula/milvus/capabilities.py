"""Find out the abilities of a server by creating and dropping small collections."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import replace
from weakref import WeakKeyDictionary

import grpc
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError
from alula.index_types import Capabilities, FieldSpec, NativeIndex, Probe, probes
from alula.milvus.connection import Server, server_words
from alula.milvus.failures import Failure, is_denied, what_failed
from alula.milvus.index_build import IndexBuildError, wait_for_indexes
from alula.milvus.retrying import call_once_ready
from alula.milvus.schema_fields import add_field, index_params


class MissingRightsError(ServerError):
    """The login may not create, index or drop a collection."""


_SIMPLEST = Probe(
    "float", "", (FieldSpec("float", "FLOAT_VECTOR", 16, {"dim": 4}),), NativeIndex("float", "FLAT", "COSINE")
)
_KNOWN_FROM = (2, 4)  # the first version whose source says what it has
_BUILT_ROWS = 1200  # Milvus builds no index for fewer than 1,024
_BUILD_SECONDS = 60.0
_probed: WeakKeyDictionary[Server, Capabilities] = WeakKeyDictionary()


def version(server: Server) -> str:
    """The server's name and version.

    Raises:
        ServerError: If it does not answer.
    """
    if server.embedded:
        import milvus_lite  # noqa: PLC0415

        return f"{server.dialect.name} {milvus_lite.__version__}"
    try:
        number = str(server.client.get_server_version())
    except (MilvusException, grpc.RpcError) as error:
        _check_rejected(server, error)
        return f"Milvus of unknown version ({server_words(error)})"
    return f"Milvus {number.removeprefix('v')}"


def version_number(server: Server) -> tuple[int, ...]:
    """The version of a Milvus server, such as (2, 6, 24); () if it is unknown."""
    found = re.match(r"Milvus (\d+(?:\.\d+)+)", version(server))
    return tuple(map(int, found[1].split("."))) if found else ()


def probe(server: Server, asked: Iterable[Probe] = (), *, known: Capabilities | None = None) -> Capabilities:
    """Run the probes of every registered index type on a server, once a connection.

    The version decides nothing: servers accept fields that they cannot index (2.3 takes a sparse field).

    Args:
        server: The connected server.
        asked: Further probes, see `IndexType.option_probes`.
        known: The capabilities that another connection found; they are not asked for again.

    Raises:
        MissingRightsError: If it rejects the simplest collection too, or a probe cannot be dropped: the login lacks
            the rights.
        ServerError: If it does not answer.
    """
    known = _probed.get(server, known)
    found = {
        each.name: _failure(server, each) for each in (*probes(), *asked) if known is None or not known.knows(each)
    }
    if known is not None and not found:
        return known
    passed = {name for name, failure in found.items() if failure is None}
    failed = {name: failure for name, failure in found.items() if failure is not None}
    if known is None and not passed and (failure := _failure(server, _SIMPLEST)) is not None:
        raise MissingRightsError(
            f"No collection could be created at {server.uri} to see what it can do ({failure}). "
            "Alula needs the rights to create, index and drop a collection."
        )
    known = known or Capabilities(version(server), frozenset())
    _probed[server] = replace(known, supported=known.supported | passed, reasons={**known.reasons, **failed})
    return _probed[server]


def _check_rejected(server: Server, error: MilvusException | grpc.RpcError) -> None:
    """Raise a `ServerError` for a failure that may pass: it shows no missing ability."""
    if what_failed(error) is not Failure.REFUSED:
        raise ServerError(
            f"Milvus at {server.uri} could not be asked what it can do ({server_words(error)}); try again."
        ) from error


def _failure(server: Server, probe: Probe) -> str | None:
    """Run a probe; None if it passes, else the server's error message."""
    return call_once_ready(lambda: _run(server, probe))  # with a new name: the first try may have left its collection


def _run(server: Server, probe: Probe) -> str | None:
    client = server.client
    name = f"alula_probe_{uuid.uuid4().hex[:12]}"
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    for field in probe.fields:
        add_field(schema, field)
    try:
        client.create_collection(name, schema=schema, shards_num=1)
        client.create_index(name, index_params(client, [probe.index]), sync=False)
        return _build_failure(server, name, probe) if probe.row else None
    except (MilvusException, grpc.RpcError) as error:
        if is_denied(error):
            return _failure_by_version(server, probe, error)
        _check_rejected(server, error)
        return server_words(error)
    finally:
        _drop(server, name)


def _build_failure(server: Server, name: str, probe: Probe) -> str | None:
    """Build a probe's index; None if that succeeds, else the reason.

    The collection is not loaded: only sealed segments are built, and not the index that Milvus has of new rows.
    """
    if not server.dialect.flushes:
        return "it builds no indexes"
    server.client.insert(name, [{"id": i, **probe.row} for i in range(_BUILT_ROWS)])
    server.client.flush(name)
    try:
        wait_for_indexes(server, name, _BUILD_SECONDS, remedy="its log says why", rows=_BUILT_ROWS)
    except IndexBuildError as error:
        return str(error).rstrip(".")
    return None


def _drop(server: Server, name: str) -> None:
    """Drop a probe's collection, which may never have been created."""
    try:
        server.client.drop_collection(name)
    except (MilvusException, grpc.RpcError) as error:
        if is_denied(error) and server.has_collection(name):
            raise MissingRightsError(
                f"The login may create collections at {server.uri} and not drop them ({server_words(error)}), so "
                f"{name!r} is left there; have it dropped, and use a login with the right DropCollection."
            ) from error


def _failure_by_version(server: Server, probe: Probe, error: MilvusException | grpc.RpcError) -> str | None:
    """The result of a probe that the login may not run, from the version.

    Raises:
        MissingRightsError: If the version does not say it.
    """
    number = version_number(server)
    if number < _KNOWN_FROM or not probe.since:
        raise MissingRightsError(
            f"The login may not find out at {server.uri} if the server has {probe.question or 'collections'} "
            f"({server_words(error)}). Alula needs the rights to create, index and drop a collection."
        ) from error
    able = number >= tuple(map(int, probe.since.split(".")))
    return None if able else f"it needs Milvus {probe.since}, and the login may not try it ({server_words(error)})"
