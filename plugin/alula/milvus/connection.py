"""Connect to Milvus or an embedded Milvus Lite; turn its errors into sentences."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError, UsageError
from alula.milvus.dialect import LITE, MILVUS, Dialect
from alula.milvus.expressions import BAD_FILTER, IdTemplates

LITE_NAME = re.compile(r"[a-zA-Z0-9.\-_]{1,36}")


class Server:
    """A connected Milvus.

    Args:
        uri: ``http://host:19530``, ``https://...``, or a path ending in ``.db`` for embedded Milvus Lite. A login in it
            (``http://user:password@host``) is used, and is neither shown nor kept.
        client: The connected client.
        login: The other arguments of `connect`, for other processes that connect too. It contains secrets.
    """

    def __init__(self, uri: str, client: MilvusClient, login: Mapping[str, Any] | None = None) -> None:
        self.uri = uri
        self.client = client
        self.login = dict(login or {})
        self.id_templates = IdTemplates()

    @property
    def dialect(self) -> Dialect:
        """The differences of this server from others."""
        return LITE if is_local(self.uri) else MILVUS

    @property
    def embedded(self) -> bool:
        """True for Milvus Lite in a local file."""
        return self.dialect.embedded

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

    def check_partitions(self, instead: str) -> None:
        """Raise a `UsageError` on a server without partitions.

        Milvus Lite would use all rows without an error.

        Args:
            instead: A remedy that continues "Milvus Lite has no partitions;".
        """
        if not self.dialect.partitions:
            raise UsageError(f"{self.dialect.name} has no partitions; {instead}, or use a Milvus server.")

    def check_aliases(self) -> None:
        """Raise a `UsageError` on a server without aliases."""
        if not self.dialect.aliases:
            raise UsageError(f"{self.dialect.name} has no aliases; leave swap_alias=... out, or use a Milvus server.")

    def has_collection(self, name: str) -> bool:
        """True if there is a collection of that name."""
        with milvus_errors(f"look for the collection {name!r}"):
            return bool(self.client.has_collection(name))


def is_local(uri: str) -> bool:
    """True for the path of an embedded Milvus Lite database: it ends in ``.db``."""
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
        must_exist: Reject a missing local database file instead of creating it.

    Raises:
        UsageError: If the URI is of no known form.
        ServerError: If the server cannot be reached or refuses the login.
    """
    if is_local(uri):
        return Server(uri, _open_lite(uri, must_exist=must_exist))
    uri, given_user, given_password = without_login(uri)
    user, password = user or given_user, password or given_password
    login = {"user": user, "password": password, "token": token, "database": database, "timeout": timeout}
    login |= {"ca_file": ca_file, "server_name": server_name}
    if not _is_address(uri):
        raise UsageError(
            f"{uri!r} is not a Milvus address; give http://HOST:PORT, https://HOST:PORT, or a file name ending in .db."
        )
    options: dict[str, Any] = {"secure": True} if uri.startswith("https:") else {}
    if ca_file:
        if not Path(ca_file).is_file():
            raise UsageError(f"There is no certificate file {ca_file}.")
        try:
            ssl.create_default_context(cafile=ca_file)
        except ssl.SSLError:
            raise UsageError(f"The file {ca_file} contains no certificate; give the authority's as PEM.") from None
        options["server_pem_path"] = ca_file
    if server_name:
        options["server_name"] = server_name
    _quiet_pymilvus()
    try:
        client = MilvusClient(
            uri, user=user, password=password, token=token, db_name=database, timeout=timeout, **options
        )
        # the connection alone does not check the login
        client.list_collections(timeout=timeout)
    except (MilvusException, grpc.RpcError) as error:
        raise ServerError(_connect_message(uri, error, ca_file=ca_file, server_name=server_name)) from error
    return Server(uri, client, login)


def without_login(uri: str) -> tuple[str, str, str]:
    """An address without its login, the user and the password in it, or "" for each."""
    found = re.fullmatch(r"(\w+://)?([^/]*)@(.*)", uri, re.DOTALL)
    if found is None:
        return uri, "", ""
    user, _, password = found[2].partition(":")
    return (found[1] or "") + found[3], unquote(user), unquote(password)


def _is_address(uri: str) -> bool:
    if not re.match(r"(https?|tcp)://[^/]|unix:.", uri):
        return False
    try:
        urlsplit(uri).port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return False
    return True


def _connect_message(uri: str, error: Exception, *, ca_file: str | None, server_name: str | None) -> str:
    """The cause of a failed connection, found at the port: pymilvus does not say it."""
    text = server_words(error)
    parts = urlsplit(uri)
    if "database not found" in text:
        return f"Milvus at {uri} has no such database; check database=... ({text})."
    if parts.scheme == "unix":
        return f"Milvus at {uri} does not answer; check that it runs ({text})."
    if trouble := trouble_with_port(uri, ca_file, server_name):
        return trouble
    if parts.scheme == "https":
        return f"Milvus at {uri} refused the login; check user=... and password=..., or token=..."
    return (
        f"Milvus at {uri} refused the connection; check the port, and user=... and password=..., or token=... ({text})."
    )


def trouble_with_port(uri: str, ca_file: str | None, server_name: str | None) -> str:
    """The reason why an address cannot be Milvus's in this way; "" if it may be.

    Args:
        uri: The address, ``http://`` or ``https://``.
        ca_file: File with the authority's certificate, checked before.
        server_name: Name in the certificate when it is not the host.
    """
    parts = urlsplit(uri)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 19530)
    found, detail = _try_tls(str(parts.hostname), port, ca_file, server_name, verify=secure)
    troubles = {
        "no port": f"Nothing can be reached at {uri}; check that Milvus runs, the address and the port ({detail}).",
        "silence": f"{uri} accepts connections and does not answer; check that it is Milvus's port, and that it is "
        "well.",
        "not trusted": f"The certificate of {uri} is not trusted ({detail}); give the authority that signed it with "
        "ca_file=..., and the name in it with server_name=... when that is not the host.",
    }
    if secure:
        troubles["no tls"] = f"The server at {uri} does not speak TLS; give http:// instead of https://."
    else:
        troubles["tls"] = f"Milvus at {uri} wants an encrypted connection; give https:// and ca_file=..."
    return troubles.get(found, "")


def _try_tls(host: str, port: int, ca_file: str | None, server_name: str | None, *, verify: bool) -> tuple[str, str]:
    """The reaction of a port to TLS, and the error message if it fails."""
    try:
        plain = socket.create_connection((host, port), timeout=1)
    except OSError as error:
        return "no port", str(error)
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with plain, context.wrap_socket(plain, server_hostname=server_name or host):
            return "tls", ""
    except ssl.SSLCertVerificationError as error:
        return "not trusted", error.verify_message.rstrip(".")
    except TimeoutError as error:
        return "silence", str(error)
    except OSError as error:
        return "no tls", str(error)


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
    if path.exists() and not _may_be_database(path):
        raise UsageError(f"{uri} is not a Milvus Lite 2.5 database; give another name ending in .db.")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"The database {uri} cannot be written; check the rights of the file and its folder.")
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
    for attempt in range(8):  # the engine's first connections can fail while its socket appears
        time.sleep(0.1 * attempt)
        try:
            with _silent_children():
                return MilvusClient(uri)
        except (MilvusException, grpc.RpcError) as error:
            last = error
            if "Fail connecting" not in server_words(error) and attempt >= 2:
                break
    raise ServerError(
        f"The database {uri} cannot be opened; is another program using it, or is it not a Milvus Lite 2.5 file? "
        f"({server_words(last)})"
    )


def _may_be_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) in (b"", b"SQLite format 3\0")


@contextmanager
def _silent_children() -> Iterator[None]:
    """Discard the output of new child processes: Milvus Lite prints its errors."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    while (sink := os.open(os.devnull, os.O_RDWR)) <= 2:  # fills those that the program was started without
        os.set_inheritable(sink, True)
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    try:
        for fd in saved:
            os.dup2(sink, fd)
        yield
    finally:
        for fd, copy in saved.items():
            os.dup2(copy, fd)
            os.close(copy)
        os.close(sink)


def _quiet_pymilvus() -> None:
    # it logs a traceback for every error that it also raises
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


def server_words(error: BaseException | None) -> str:
    """The server's error message on one line, without the client's wrapping."""
    if isinstance(error, MilvusException) and str(error.message).startswith("<_"):  # a call with a future, as repr
        error = error.__cause__ or error
    if isinstance(error, MilvusException):
        text = str(error.message)
    elif isinstance(error, grpc.RpcError):
        code = error.code() if hasattr(error, "code") else None
        details = error.details() if hasattr(error, "details") else ""
        text = f"{code.name if code else 'RPC error'} {details}".strip()
    else:
        text = str(error)
    # neither a stack trace nor a parser's list of expected tokens helps a reader
    text = re.sub(r"stack trace:(\s+\S+\.(go|s):\d+\s+\S+)+:?\s*", "", text)
    text = re.sub(r" expecting \{[^\n]*", "", text)
    return " ".join(text.split()).rstrip(". :")[:400]


_STRINGS = re.compile(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"")
_ASSIGNMENT = re.compile(r"(?<![=!<>])=(?!=)")


def _remedy(filter: str) -> str:
    """The advice for a filter that Milvus cannot use."""
    if _ASSIGNMENT.search(_STRINGS.sub("", filter)):
        return "Write == to compare."
    return "Check field names and quotes."


@contextmanager
def milvus_errors(action: str, *, filter: str = "") -> Iterator[None]:
    """Turn errors of Milvus into a `ServerError`, or a `UsageError` for a filter.

    Args:
        action: Continues "Milvus could not" in messages.
        filter: The user's filter, if the call carries one.
    """
    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        text = server_words(error)
        if "Fail connecting to server on unix:" in text:  # some filters end the embedded engine
            if filter:
                raise UsageError(
                    f"Milvus Lite ended over the filter {filter!r}; check field names, quotes and types."
                ) from error
            raise ServerError(f"Milvus could not {action}: the embedded engine has ended; run it again.") from error
        if filter and any(sign in text for sign in BAD_FILTER):
            raise UsageError(f"Milvus cannot use the filter {filter!r}: {text}. {_remedy(filter)}") from error
        if "partition" in text and "not found" in text:
            raise UsageError(f"Milvus could not {action}: {text}; name a partition that exists.") from error
        if "illegal connection params" in text or text.startswith("UNAVAILABLE"):
            raise ServerError(
                f"Milvus could not {action}: the server does not answer any more; check that it runs, and try again."
            ) from error
        raise ServerError(f"Milvus could not {action}: {text}.") from error
