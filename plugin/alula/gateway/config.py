"""The options of a gateway, checked before it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alula.errors import UsageError
from alula.milvus.connection import without_login

MEBI = 1 << 20
PORTS = range(1 << 16)
PASSED_CALLS = 1024  # that are forwarded at once
MESSAGES_HELD = 16  # of the largest size, at once


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for TLS with clients; the gateway reads renewed files again.

    Attributes:
        certificate: The gateway's certificate chain.
        key: Private key of the certificate.
        client_ca: Authority of the clients' certificates; if given, clients without one are rejected.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Options:
    """The options of a gateway.

    Attributes:
        upstream: Address of Milvus: ``http://HOST:PORT`` or ``https://HOST:PORT``.
        listen: Address for clients: ``HOST:PORT``, or ``:PORT`` for every address of the machine; port 0 takes a free
            one.
        tls: PEM files for TLS with clients; None for no TLS.
        ca_file: PEM file of the authority that signed the upstream's certificate; default: the system's authorities.
        server_name: Name in the upstream's certificate when it is not the host.
        metrics: Address for metrics and health by HTTP, in the form of ``listen``; None for no HTTP.
        max_message: Largest request in bytes; 64 MiB is Milvus's own limit. Responses are not limited.
        workers: Calls that are encoded, searched and re-ranked concurrently; forwarded calls are not limited.
        queue: Calls that may wait for a worker; more are rejected with Milvus's rate-limit error.
        drain_seconds: Seconds that running calls may take after SIGTERM.
        health_seconds: Seconds between two health checks of the upstream.
        slow_seconds: Duration from which a call is logged.
        cache_dir: Folder for encoder files from Milvus; None for a temporary folder.
        policy: File with rules by which native index types become ones of Alula; see `alula.gateway.policy`.
    """

    upstream: str
    listen: str = ":19540"
    tls: TlsFiles | None = None
    ca_file: Path | None = None
    server_name: str | None = None
    metrics: str | None = None
    max_message: int = 64 * MEBI
    workers: int = 16
    queue: int = 256
    drain_seconds: float = 30.0
    health_seconds: float = 2.0
    slow_seconds: float = 1.0
    cache_dir: Path | None = None
    policy: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^/\s:@]+(:\d+)?/?|https?://\[[\da-fA-F:.]+\](:\d+)?/?", self.upstream):
            raise UsageError(
                f'{without_login(self.upstream)[0]!r} is not an address of Milvus; set upstream="http://HOST:PORT" or '
                'upstream="https://HOST:PORT".'
            )
        split_address(self.listen, "listen")
        if self.metrics is not None:
            split_address(self.metrics, "metrics")
        if not self.secure_upstream and (self.ca_file or self.server_name):
            raise UsageError('ca_file=... and server_name=... are for TLS to Milvus; set upstream="https://HOST:PORT".')

    @property
    def secure_upstream(self) -> bool:
        """True if connections to Milvus use TLS."""
        return self.upstream.startswith("https:")

    @property
    def max_calls(self) -> int:
        """Calls that are served at once; more are ended by gRPC."""
        return self.workers + self.queue + PASSED_CALLS

    @property
    def max_bytes(self) -> int:
        """Bytes of all requests that are held at once."""
        return MESSAGES_HELD * self.max_message

    @property
    def upstream_target(self) -> str:
        """The upstream as ``HOST:PORT``; the default port is 19530, or 443 for ``https``."""
        address = self.upstream.split("://")[1].rstrip("/")
        has_port = re.search(r":\d+$", address) and not address.endswith("]")
        return address if has_port else f"{address}:{443 if self.secure_upstream else 19530}"

    @property
    def server_settings(self) -> list[tuple[str, Any]]:
        """Channel arguments of the server.

        SDKs ping every 5 to 10 seconds even without calls. gRPC's defaults would disconnect them; Milvus allows it
        too. A port in use is an error, while gRPC's default would share it with another gateway.
        """
        return [
            ("grpc.max_receive_message_length", self.max_message),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: small messages would become large ones
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.so_reuseport", 0),
        ]

    @property
    def channel_settings(self) -> list[tuple[str, Any]]:
        """Channel arguments of connections to Milvus: pings like SDKs, quick reconnects."""
        settings: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            # in spite of its name, the time limit of connecting
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if self.server_name:
            settings.append(("grpc.ssl_target_name_override", self.server_name))
        return settings


def split_address(address: str, argument: str) -> tuple[str, int]:
    """Split ``HOST:PORT``; the default host is ``[::]``, every local address.

    Args:
        address: The address.
        argument: The option's name, for the error.

    Raises:
        UsageError: If the address is invalid.
    """
    found = re.fullmatch(r"(\[[\da-fA-F:.]+\]|[^\s:/\[\]]*):(\d{1,5})", address)
    if found is None or int(found[2]) not in PORTS:
        raise UsageError(
            f'{address!r} is not an address to listen on; set {argument}="HOST:PORT" or {argument}=":PORT".'
        )
    return found[1] or "[::]", int(found[2])
