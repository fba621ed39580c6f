"""``alula gateway``."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alula.errors import AlulaError, UsageError
from alula.milvus import trouble_with_port

if TYPE_CHECKING:
    from alula.gateway.config import Options
    from alula.gateway.ops.logs import LogFormat
    from alula.gateway.server import Gateway

EXTRA = {"grpc_health", "grpc_reflection", "prometheus_client", "pythonjsonlogger"}
PEM = click.Path(path_type=Path)  # whether it can be read is checked where it is read, with what it is for


@click.command("gateway", context_settings={"show_default": True})
@click.option("--upstream", required=True, help="Milvus: http://HOST:19530 or https://HOST:PORT.")
@click.option("--listen", default=":19540", help="Where clients connect: HOST:PORT or :PORT; port 0 takes a free one.")
@click.option("--tls-cert", type=PEM, help="Serve TLS with this certificate (PEM, chain included).")
@click.option("--tls-key", type=PEM, help="Its private key (PEM).")
@click.option("--tls-client-ca", type=PEM, help="Serve clients alone that have a certificate of this authority (PEM).")
@click.option("--ca-file", type=PEM, help="Authority of Milvus's certificate (PEM); else those that the system trusts.")
@click.option("--server-name", help="Name in Milvus's certificate when it is not the host.")
@click.option("--metrics", help="Serve /metrics, /healthz and /readyz by HTTP here, as :9091; else nowhere.")
@click.option(
    "--max-message",
    type=click.IntRange(min=1),
    default=64,
    help="Largest request in MiB. Give the same as Milvus's proxy.grpc.serverMaxRecvSize where that was changed.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=16,
    help="Calls that are encoded, searched and re-ranked at once; others are passed on beside them.",
)
@click.option("--queue", type=click.IntRange(min=0), default=256, help="Calls that may wait for a worker.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    help="After SIGTERM, how long running calls may take.",
)
@click.option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep encoder files here as well.")
@click.option("--slow-seconds", type=click.FloatRange(min=0), default=1.0, help="Log calls that take longer.")
@click.option(
    "--log-format", type=click.Choice(["auto", "json", "text"]), default="auto", help="auto: text on a terminal."
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def command(
    *,
    log_format: LogFormat,
    log_level: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    max_message: int,
    **given: Any,
) -> None:
    """Serve Milvus's protocol in front of a Milvus, with the index types added.

    Clients of any SDK connect here instead of there and use FLOPS_SPARSE and DRQ on their float vectors as they use
    Milvus's own index types; everything else is passed on. It keeps nothing: run as many as you like.

    Every option can be set in the environment: ALULA_GATEWAY_UPSTREAM, ALULA_GATEWAY_LISTEN, ALULA_GATEWAY_TLS_CERT...
    SIGTERM ends it when running calls have been answered, a second one at once.
    """
    try:
        from alula.gateway.config import MEBI, Options, TlsFiles  # noqa: PLC0415
        from alula.gateway.ops import logs  # noqa: PLC0415
        from alula.gateway.server import Gateway  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        raise AlulaError(
            f"A gateway needs {error.name}, which is not installed: pip install 'alula[gateway]'."
        ) from None
    if bool(tls_cert) != bool(tls_key) or (tls_client_ca and not tls_cert):
        raise UsageError("TLS needs --tls-cert and --tls-key, and --tls-client-ca needs both.")
    tls = TlsFiles(tls_cert, tls_key, tls_client_ca) if tls_cert and tls_key else None
    options = Options(**given, tls=tls, max_message=max_message * MEBI)
    gateway = Gateway(options)
    end_log = logs.configure(log_format, log_level)
    try:
        asyncio.run(_serve(gateway, options))
    finally:
        end_log()


async def _serve(gateway: Gateway, options: Options) -> None:
    """Run a gateway until it is told to end."""
    from alula.gateway.ops.logs import LOGGER  # noqa: PLC0415 - of the extra, which 'command' has found by now

    told = asyncio.Event()

    def end(number: int) -> None:
        if told.is_set():
            LOGGER.warning("Ending at once.")
            os._exit(128 + number)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    port = await gateway.start()
    where = _with_port(options.listen, port) + (" (TLS)" if options.tls else "")
    pages = f"; metrics at {_with_port(options.metrics, gateway.metrics_port)}" if options.metrics else ""
    if gateway.health.ready:
        milvus = f"Milvus {gateway.health.version}".rstrip()
        LOGGER.info(f"Listening on {where}, in front of {milvus} at {options.upstream}{pages}.")
    else:
        ca_file = str(options.ca_file) if options.ca_file else None
        why = await asyncio.to_thread(trouble_with_port, options.upstream, ca_file, options.server_name)
        LOGGER.warning(
            f"Listening on {where}{pages}, and waiting for Milvus. {why or f'{options.upstream} does not answer.'}"
        )
    await told.wait()
    LOGGER.info(f"Ending: no new calls, {options.drain_seconds:g} s for those that run.")
    await gateway.stop(options.drain_seconds)
    LOGGER.info("Ended.")


def _with_port(address: str, port: int | None) -> str:
    """An address with the port that was taken for it."""
    return f"{address.rpartition(':')[0]}:{port}"
