"""Connect to a Milvus server or an embedded Milvus Lite, and turn its failures into sentences."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError, UsageError

LITE_NAME = re.compile(r"[a-zA-Z0-9.\-_]{1,36}")
BAD_FILTER = ("cannot parse expression", "Invalid expr", "PhyFilterBitsNode", "failed to create query plan")


class Server:
    """A connected Milvus.

    Args:
        uri: ``http://host:19530``, ``https://...``, or a path ending in ``.db`` for embedded Milvus Lite.
        client: The connected client.
    """

    def __init__(self, uri: str, client: MilvusClient) -> None:
        self.uri = uri
        self.client = client

    @property
    def embedded(self) -> bool:
        """Whether this is Milvus Lite in a local file."""
        return is_local(self.uri)

    def close(self) -> None:
        """Close the connection; an embedded engine is stopped and its file released."""
        self.client.close()
        if self.embedded:
            from milvus_lite.server_manager import server_manager_instance  # noqa: PLC0415

            server_manager_instance.release_server(self.uri)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def has_collection(self, name: str) -> bool:
        """Whether there is a collection of that name."""
        with milvus_errors(f"look for the collection {name!r}"):
            return bool(self.client.has_collection(name))


def is_local(uri: str) -> bool:
    """Whether a URI names an embedded Milvus Lite database: a path that ends in ``.db``."""
    return uri.endswith(".db") and "://" not in uri


def connect(
    uri: str,
    *,
    user: str = "",
    password: str = "",
    token: str = "",
    database: str = "",
    ca_file: str | None = None,
    server_name: str | None = None,
    timeout: float = 10.0,
    must_exist: bool = False,
) -> Server:
    """Connect to Milvus.

    Args:
        uri: ``http://host:19530``, ``https://...``, or a path ending in ``.db`` for embedded Milvus Lite.
        user: User name, with ``password``.
        password: Password of ``user``.
        token: API key, or ``user:password``.
        database: Database of the server.
        ca_file: PEM file of the certificate authority, for ``https``.
        server_name: Name in the server's certificate when it is not the host.
        timeout: Seconds to wait for the server to answer.
        must_exist: Refuse a local database file that is not there instead of creating one.

    Raises:
        UsageError: If the URI is of no known form.
        ServerError: If the server cannot be reached or refuses the login.
    """
    if is_local(uri):
        return Server(uri, _open_lite(uri, must_exist=must_exist))
    if not re.match(r"(https?|tcp|unix)://?.", uri):
        raise UsageError(
            f"{uri!r} is not a Milvus address; give http://HOST:PORT, https://HOST:PORT, or a file name ending in .db."
        )
    options: dict[str, Any] = {"secure": True} if uri.startswith("https:") else {}
    if ca_file:
        if not Path(ca_file).is_file():
            raise UsageError(f"There is no certificate file {ca_file}.")
        options["server_pem_path"] = ca_file
    if server_name:
        options["server_name"] = server_name
    _quiet_pymilvus()
    try:
        client = MilvusClient(
            uri, user=user, password=password, token=token, db_name=database, timeout=timeout, **options
        )
        # the connection alone does not show whether the login holds
        client.list_collections(timeout=timeout)
    except (MilvusException, grpc.RpcError) as error:
        raise ServerError(_connect_message(uri, error, secure="secure" in options)) from error
    return Server(uri, client)


def _connect_message(uri: str, error: Exception, *, secure: bool) -> str:
    text = server_words(error)
    if "auth" in text.lower() or "unauthenticated" in text.lower() or "permission" in text.lower():
        return f"Milvus at {uri} refused the login: {text}. Check --user and --password, or --token."
    hint = (
        "check the address, that its certificate is signed by --ca-file and names the host, and the login"
        if secure
        else "check that it runs, the address and port, the login, and whether it wants https://"
    )
    return f"Milvus at {uri} does not answer, or refused the connection; {hint} ({text})."


def _open_lite(uri: str, *, must_exist: bool) -> MilvusClient:
    path = Path(uri)
    if not LITE_NAME.fullmatch(path.name):
        raise UsageError(
            f"{path.name!r} cannot be a Milvus Lite file name: at most 36 letters, digits, dots, dashes or underscores."
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {path.absolute().parent} to keep the database {path.name} in.")
    if must_exist and not path.exists():
        raise UsageError(f"There is no database {uri}; 'alula create' makes one.")
    _quiet_pymilvus()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import milvus_lite.server_manager  # noqa: F401, PLC0415
    except ImportError:
        raise ServerError(
            "An embedded database needs Milvus Lite: pip install 'alula[embedded]', or give the address of a server."
        ) from None
    last: Exception | None = None
    for _ in range(3):  # the engine's first connection can fail while its socket appears
        try:
            with _child_stderr_to(os.devnull):
                return MilvusClient(uri)
        except (MilvusException, grpc.RpcError) as error:
            last = error
    raise ServerError(
        f"The database {uri} cannot be opened; is another program using it, or is it not a Milvus Lite 2.5 file? "
        f"({server_words(last)})"
    )


@contextmanager
def _child_stderr_to(path: str) -> Iterator[None]:
    """Start child processes with another stderr: the engine prints its parser's noise there on every bad filter."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(path, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _quiet_pymilvus() -> None:
    # it logs a traceback for every error that it also raises
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


def server_words(error: BaseException | None) -> str:
    """What the server said, on one line and without the client's wrapping."""
    if isinstance(error, MilvusException):
        text = str(error.message)
    elif isinstance(error, grpc.RpcError):
        code = error.code() if hasattr(error, "code") else None
        details = error.details() if hasattr(error, "details") else ""
        text = f"{code.name if code else 'RPC error'} {details}".strip()
    else:
        text = str(error)
    return " ".join(text.split()).rstrip(".")[:400]


@contextmanager
def milvus_errors(action: str, *, filter: str = "") -> Iterator[None]:
    """Turn what pymilvus and gRPC raise inside into a `ServerError`, or a `UsageError` when the filter is to blame.

    Args:
        action: What was being done, in words that continue "Milvus could not".
        filter: The user's filter, if the call carries one.
    """
    try:
        yield
    except MilvusException as error:
        text = server_words(error)
        if filter and any(sign in text for sign in BAD_FILTER):
            raise UsageError(
                f"Milvus cannot use the filter {filter!r}: {text}. Check field names and quotes."
            ) from error
        raise ServerError(f"Milvus could not {action}: {text}.") from error
    except grpc.RpcError as error:
        raise ServerError(f"Milvus could not {action}: {server_words(error)}.") from error
