"""``alula gateway``."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alula.cli.wording import as_options
from alula.errors import AlulaError, UsageError
from alula.milvus import trouble_with_port

if TYPE_CHECKING:
    from alula.gateway.config import Options
    from alula.gateway.ops.logs import LogFormat
    from alula.gateway.server import Gateway

EXTRA = {"grpc_health", "grpc_reflection", "prometheus_client", "pythonjsonlogger"}
PEM = click.Path(path_type=Path)  # checked when it is read, where the error can say its purpose


@click.command("gateway", context_settings={"show_default": True})
@click.option("--upstream", required=True, help="Milvus: http://HOST:19530 or https://HOST:PORT.")
@click.option("--listen", default=":19540", help="Address for clients: HOST:PORT or :PORT; port 0 takes a free one.")
@click.option("--tls-cert", type=PEM, help="Serve TLS with this certificate (PEM, chain included).")
@click.option("--tls-key", type=PEM, help="Private key of the certificate (PEM).")
@click.option("--tls-client-ca", type=PEM, help="Require client certificates signed by this authority (PEM).")
@click.option("--ca-file", type=PEM, help="Authority of Milvus's certificate (PEM); default: the system's authorities.")
@click.option("--server-name", help="Name in Milvus's certificate when it is not the host.")
@click.option("--metrics", help="Address for /metrics, /healthz and /readyz by HTTP, such as :9091; default: none.")
@click.option(
    "--max-message",
    type=click.IntRange(min=1),
    default=64,
    help="Largest request in MiB. Set it to Milvus's proxy.grpc.serverMaxRecvSize if you changed that.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=16,
    help="Calls that are encoded, searched and re-ranked concurrently; forwarded calls are not limited.",
)
@click.option("--queue", type=click.IntRange(min=0), default=256, help="Calls that may wait for a worker.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    help="Seconds that running calls may take after SIGTERM.",
)
@click.option(
    "--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="Cache encoder files in this folder."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File (TOML) with rules by which AUTOINDEX or a named native index type becomes an index type of Alula, for "
    "clients that cannot name one; default: none.",
)
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
    **settings: Any,
) -> None:
    """Serve Milvus's protocol in front of a Milvus server, with the index types added.

    Clients of any SDK connect to the gateway and use FLOPS_SPARSE and DRQ on their float vectors like Milvus's own
    index types; it forwards all other calls unchanged. It is stateless: run as many gateways as you like.

    Every option can be set in the environment: ALULA_GATEWAY_UPSTREAM, ALULA_GATEWAY_LISTEN, ALULA_GATEWAY_TLS_CERT...
    SIGTERM stops it after the running calls are answered; a second SIGTERM stops it at once.
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
    options = Options(**settings, tls=tls, max_message=max_message * MEBI)
    gateway = Gateway(options)
    end_log = logs.configure(log_format, log_level)
    try:
        asyncio.run(_serve(gateway, options))
    finally:
        end_log()


async def _serve(gateway: Gateway, options: Options) -> None:
    """Run a gateway until SIGTERM or SIGINT."""
    from alula.gateway.ops.logs import LOGGER  # noqa: PLC0415 - part of the extra

    stopping = asyncio.Event()

    def stop(number: int) -> None:
        if stopping.is_set():
            LOGGER.warning("Stopping at once.")
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    port = await gateway.start()
    address = _with_port(options.listen, port) + (" (TLS)" if options.tls else "")
    pages = f"; metrics at {_with_port(options.metrics, gateway.metrics_port)}" if options.metrics else ""
    if gateway.health.ready:
        milvus = f"Milvus {gateway.health.version}".rstrip()
        LOGGER.info(f"Listening on {address}, in front of {milvus} at {options.upstream}{pages}.")
    else:
        ca_file = str(options.ca_file) if options.ca_file else None
        why = await asyncio.to_thread(trouble_with_port, options.upstream, ca_file, options.server_name)
        trouble = as_options(why, command) if why else f"{options.upstream} does not answer."
        LOGGER.warning(f"Listening on {address}{pages}, and waiting for Milvus. {trouble}")
    await stopping.wait()
    LOGGER.info(f"Stopping: no new calls; running calls get up to {options.drain_seconds:g} s.")
    await gateway.stop(options.drain_seconds)
    LOGGER.info("Stopped.")


def _with_port(address: str, port: int | None) -> str:
    """The address, with the port that is in use."""
    return f"{address.rpartition(':')[0]}:{port}"
