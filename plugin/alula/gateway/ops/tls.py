"""TLS with clients and with Milvus."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Any

import grpc

from alula.errors import UsageError
from alula.gateway.config import Options, TlsFiles
from alula.gateway.ops.logs import LOGGER


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of the server; new connections use a renewed certificate.

    Args:
        files: The certificate, its key, and the authority of clients.

    Raises:
        UsageError: If a file is missing or not PEM, or the key does not fit the certificate.
    """
    renewal = _Renewal(files)
    return grpc.dynamic_ssl_server_credentials(
        renewal.current, renewal, require_client_authentication=files.client_ca is not None
    )


def channel_credentials(options: Options) -> grpc.ChannelCredentials | None:
    """Credentials for connections to Milvus; None without TLS.

    Raises:
        UsageError: If the authority's file is missing or not PEM.
    """
    if not options.secure_upstream:
        return None
    return grpc.ssl_channel_credentials(
        _authority(options.ca_file, "the authority of Milvus's certificate", "ca_file") if options.ca_file else None
    )


class _Renewal:
    """A callback of gRPC at each handshake; None means unchanged files."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self.current = self._read()

    def __call__(self) -> Any:
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            try:
                self.current = self._read()
            except UsageError as error:  # the renewal is incomplete: the previous files stay in use
                LOGGER.warning(f"The renewed certificate cannot be used yet: {error}")
                return None
            self._seen = stamp
            LOGGER.info(f"The certificate {self._files.certificate} was renewed.")
            return self.current

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in (self._files.certificate, self._files.key, self._files.client_ca)]

    def _read(self) -> Any:
        files = self._files
        certificate, key = (
            _bytes(files.certificate, "the gateway's certificate", "tls_cert"),
            _bytes(files.key, "its private key", "tls_key"),
        )
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                files.certificate, files.key, _no_password
            )
        except ssl.SSLError:
            raise UsageError(
                f"{files.certificate} and {files.key} are not a certificate and its private key; give both as PEM, the "
                "key without a password."
            ) from None
        root = (
            _authority(files.client_ca, "the authority of client certificates", "tls_client_ca")
            if files.client_ca
            else None
        )
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root)


def _no_password() -> str:
    return ""  # otherwise OpenSSL asks for it at the terminal


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _authority(path: Path, content: str, argument: str) -> bytes:
    text = _bytes(path, content, argument)
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        raise UsageError(
            f"The file {path} contains no certificate; it must be {content} as PEM ({argument}=...)."
        ) from None
    return text


def _bytes(path: Path, content: str, argument: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The file {path}, {content}, cannot be read ({error.strerror}); check {argument}=..."
        ) from None
