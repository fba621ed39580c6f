"""The settings of a gateway, checked before anything is started."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alula.errors import UsageError

MEBI = 1 << 20
PORTS = range(1 << 16)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files with which clients are served; they are read again when they are renewed.

    Attributes:
        certificate: The gateway's certificate, with those that lead to its authority.
        key: Its private key.
        client_ca: Authority of the clients' certificates; when given, a client without one is refused.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Options:
    """What a gateway is told when it starts.

    Attributes:
        upstream: Address of Milvus: ``http://HOST:PORT`` or ``https://HOST:PORT``.
        listen: Where clients are served: ``HOST:PORT``, or ``:PORT`` for every address of the machine; port 0 takes a
            free one.
        tls: Serve TLS with these files.
        ca_file: PEM file of the authority that signed the upstream's certificate; without it the system's are trusted.
        server_name: Name in the upstream's certificate when it is not the host.
        metrics: Where metrics and health are served by HTTP, written as ``listen`` is; None for nowhere.
        max_message: Largest request in bytes, 64 MiB as Milvus takes it. Answers are not limited.
        workers: Calls that are encoded, searched and re-ranked at the same time; others are passed on beside them.
        queue: How many such calls may wait for a worker before more are refused as Milvus does at its rate limits.
        drain_seconds: How long calls that are under way may take when the gateway is told to stop.
        health_seconds: How often the upstream is asked whether it answers.
        slow_seconds: Calls that take longer are logged.
        cache_dir: Folder for encoder files that were read from Milvus; None keeps them in memory alone.
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^/\s:@]+(:\d+)?/?|https?://\[[\da-fA-F:.]+\](:\d+)?/?", self.upstream):
            raise UsageError(
                f"{self.upstream!r} is not an address of Milvus; give --upstream http://HOST:PORT or https://HOST:PORT."
            )
        split_address(self.listen, "--listen")
        if self.metrics is not None:
            split_address(self.metrics, "--metrics")
        if not self.secure_upstream and (self.ca_file or self.server_name):
            raise UsageError("--ca-file and --server-name are for TLS to Milvus; give --upstream https://HOST:PORT.")

    @property
    def secure_upstream(self) -> bool:
        """Whether Milvus is spoken to in TLS."""
        return self.upstream.startswith("https:")

    @property
    def upstream_target(self) -> str:
        """The upstream as gRPC names it, ``HOST:PORT``; without a port it is Milvus's 19530, or 443 for ``https``."""
        address = self.upstream.split("://")[1].rstrip("/")
        has_port = re.search(r":\d+$", address) and not address.endswith("]")
        return address if has_port else f"{address}:{443 if self.secure_upstream else 19530}"

    @property
    def server_settings(self) -> list[tuple[str, Any]]:
        """Channel arguments of the server that clients see.

        SDKs ping every 5 to 10 seconds, calls or none, and would be cut off as a nuisance by gRPC's defaults; Milvus
        allows the same. A port that is in use is an error, where gRPC would share it with another gateway.
        """
        return [
            ("grpc.max_receive_message_length", self.max_message),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.so_reuseport", 0),
        ]

    @property
    def channel_settings(self) -> list[tuple[str, Any]]:
        """Channel arguments of connections to Milvus; they ping as SDKs do, and try again within seconds."""
        settings: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            # by its name a pause; what it sets is how long connecting may take
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if self.server_name:
            settings.append(("grpc.ssl_target_name_override", self.server_name))
        return settings


def split_address(address: str, option: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; no host, as in ``:PORT``, is every address of the machine, ``[::]``.

    Args:
        address: What was given.
        option: Which option it was given for.

    Raises:
        UsageError: If it is none.
    """
    found = re.fullmatch(r"(\[[\da-fA-F:.]+\]|[^\s:/\[\]]*):(\d{1,5})", address)
    if found is None or int(found[2]) not in PORTS:
        raise UsageError(f"{address!r} is not an address to listen on; give {option} HOST:PORT or :PORT.")
    return found[1] or "[::]", int(found[2])
