"""Milvus 2.3.5 standalone: the full server, installed once, a child process.

By hand, until Ctrl-C: ``python -m tools.servers.standalone --data DIR``.

This Milvus listens on *all* addresses of the machine, and no setting changes it: ``proxy.ip`` and its like choose only
the address that components announce (here 127.0.0.1), while every component listens on ``:port``. Its embedded
etcd does listen on 127.0.0.1 alone. On a network that you do not trust, close the ports with a firewall, or ask for
users and TLS.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import click
import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from tools.servers.cache import ServerError, installed, run

VERSION = "2.3.5"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
STOP_SECONDS_TEMPORARY = 1.0  # nothing is lost: the data go too
ATTEMPTS = 3

COMPONENTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "dataCoord", "dataNode", "indexNode")
LOOPBACK = "127.0.0.1"
# Below the range from which Linux takes the source ports of outgoing connections: Milvus connects to itself while it
# starts, and such a connection must not take a port that another component is about to listen on.
PORTS = range(20_000, 32_000)

# Runs as the new process before it becomes Milvus. PR_SET_PDEATHSIG (1) makes the kernel kill the server when the
# thread that started it ends, in whatever way; the check of the parent covers a death before that call.
LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("The process that started this server has ended.")
os.execv(sys.argv[2], sys.argv[2:])
"""


class MilvusStandalone:
    """One Milvus standalone server on free ports, for one ``with`` block.

    The server lives as long as the thread that started it at most (Linux): start it from the main thread.

    Args:
        data_dir: Where the server keeps its data; a temporary directory, removed at the end, when not given.
        auth: Ask for user and password (``root`` / ``Milvus``).
        tls: Serve TLS with a certificate for localhost, made for this server.
        settings: Further settings by their path in Milvus's configuration file, as
            ``{"quotaAndLimits.dml.insertRate.max": 1}``; read at every start, so they may change while it is stopped.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        auth: bool = False,
        tls: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.auth = auth
        self.tls = tls
        self.settings = dict(settings or {})
        self.user = "root"
        self.password = "Milvus"
        self._temporary = data_dir is None
        self._given_dir = None if data_dir is None else Path(data_dir).resolve()
        self._data_dir: Path | None = self._given_dir
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def attached(cls, address: Mapping[str, Any], **options: Any) -> MilvusStandalone:
        """A server that another process started, by its `address` and options."""
        server = cls(address["data_dir"], **options)
        server._ports = dict(address["ports"])
        return server

    def address(self) -> dict[str, Any]:
        """The arguments of `attached` for another process, in JSON types."""
        return {"data_dir": str(self.data_dir), "ports": self._ports}

    def __enter__(self) -> MilvusStandalone:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def uri(self) -> str:
        """The address for ``MilvusClient(uri)``; it survives a restart."""
        scheme, host = ("https", "localhost") if self.tls else ("http", LOOPBACK)
        return f"{scheme}://{host}:{self.port}"

    @property
    def port(self) -> int:
        """The port of the proxy, which clients talk to."""
        if not self._ports:
            raise ServerError("The server has no port before its first start: call start() or use `with`.")
        return self._ports["proxy_port"]

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its data."""
        if self._data_dir is None:
            raise ServerError("The server has no data directory before its first start: call start() or use `with`.")
        return self._data_dir

    @property
    def log_file(self) -> Path:
        """The file of the server's output."""
        return self.data_dir / "logs" / "server.log"

    @property
    def ca_file(self) -> Path:
        """The certificate that signs the server's own (with ``tls``)."""
        return self.data_dir / "tls" / "ca.pem"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def ended(self) -> bool:
        """True if it was started and ended by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def client_options(self) -> dict[str, Any]:
        """The keyword arguments with which ``MilvusClient`` reaches this server."""
        options: dict[str, Any] = {"uri": self.uri}
        if self.auth:
            options |= {"user": self.user, "password": self.password}
        if self.tls:
            options |= {"secure": True, "server_pem_path": str(self.ca_file), "server_name": "localhost"}
        return options

    def client(self, **options: Any) -> MilvusClient:
        """A new client of this server; ``options`` go to ``MilvusClient``."""
        return MilvusClient(**{**self.client_options, **options})

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            ServerError: It could not be installed, or it did not answer within two minutes.
        """
        if self._process is not None:
            raise ServerError(f"The server already runs at {self.uri}: call stop() before start().")
        home = install()
        if self._data_dir is None:
            self._data_dir = Path(tempfile.mkdtemp(prefix="alula-milvus-"))
        try:
            self._start_on_free_ports(home)
        except BaseException as error:
            # The log of a server that failed to start is what the message points to: it stays.
            self._end(remove_data=not isinstance(error, ServerError))
            raise

    def _start_on_free_ports(self, home: Path) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            self._launch(home)
            try:
                self._wait()
            except _EndedEarlyError as error:
                # Another process may have taken one of the ports in the moment between choosing and listening.
                self._end(remove_data=False)
                if attempt == ATTEMPTS:
                    raise ServerError(str(error)) from error
                self._ports = {}
            else:
                return

    def _launch(self, home: Path) -> None:
        package = _load_package(home)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        etcd_file = self._write_config(package)
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._ports["metrics"]),
            "ETCD_CONFIG_PATH": str(etcd_file),
            "LD_LIBRARY_PATH": str(home / "server" / "bin"),
        }
        command = [str(home / "server" / "bin" / "milvus"), "run", "standalone"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(os.getpid()), *command],
                cwd=self.data_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _write_config(self, package: ModuleType) -> Path:
        items = package.MilvusServerConfig(data_dir=str(self.data_dir)).configurable_items
        names = [name for name in items if name.endswith("_port")]
        if not self._ports:
            self._ports = free_ports([*names, "metrics", "etcd_peer"])
        # Not config.resolve(): it would refuse ports whose last connections still wait to be forgotten after a restart.
        config = package.MilvusServerConfig(data_dir=str(self.data_dir))
        config.resolve_storage()
        for name in names:
            config.set(name, self._ports[name])
        for component in COMPONENTS:
            config.set(f"{component}.ip", LOOPBACK)
        config.set("log.level", "warn")
        config.set("common.gracefulStopTimeout", int(STOP_SECONDS))
        config.set("authorization_enabled", self.auth)
        if self.tls:
            config.set("tls_mode", 1)
            for name, path in self._make_certificate().items():
                config.set(name, str(path))
        for name, value in self.settings.items():
            config.set(name, package.MilvusServerConfig.get_value_text(value))
        config.write_config()

        client = f"http://{LOOPBACK}:{self._ports['etcd_port']}"
        peer = f"http://{LOOPBACK}:{self._ports['etcd_peer']}"
        etcd_file = self.data_dir / "configs" / "etcd.yaml"
        etcd_file.write_text(
            f"name: alula\n"
            f"data-dir: {self.data_dir / 'data' / 'etcd.data'}\n"
            f"log-level: warn\n"
            f"listen-client-urls: {client}\nadvertise-client-urls: {client}\n"
            f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\n"
            f"initial-cluster: alula={peer}\n"
        )
        return etcd_file

    def _make_certificate(self) -> dict[str, Path]:
        import trustme  # a package of the development extra: only servers with TLS need it

        self.ca_file.parent.mkdir(parents=True, exist_ok=True)
        pem, key = self.ca_file.with_name("server.pem"), self.ca_file.with_name("server.key")
        if not self.ca_file.exists():
            authority = trustme.CA()
            certificate = authority.issue_cert("localhost", LOOPBACK)
            certificate.private_key_pem.write_to_path(str(key))
            for number, blob in enumerate(certificate.cert_chain_pems):
                blob.write_to_path(str(pem), append=number > 0)
            authority.cert_pem.write_to_path(str(self.ca_file))
        return {"server_pem_path": pem, "server_key_path": key, "ca_pem_path": self.ca_file}

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        healthy = False
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise _EndedEarlyError(
                    f"Milvus {VERSION} ended with status {self._process.returncode} while it started. "
                    f"Its log is {self.log_file}; the last lines:\n{self._last_lines()}"
                )
            healthy = healthy or _is_healthy(self._ports["metrics"])
            if healthy and self._answers():
                return
            time.sleep(0.1)
        raise ServerError(
            f"Milvus {VERSION} did not answer at {self.uri} within {START_SECONDS:.0f} s. "
            f"Its log is {self.log_file}; the last lines:\n{self._last_lines()}"
        )

    def _answers(self) -> bool:
        try:
            with _silent_pymilvus():
                client = self.client(timeout=5)
                client.get_server_version(timeout=5)
                client.list_collections(timeout=5)
                client.close()
        except (MilvusException, grpc.RpcError):  # pymilvus passes a deadline on as gRPC's own error
            return False
        return True

    def _last_lines(self, count: int = 15) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join(line[:300] for line in lines[-count:])

    def kill(self) -> None:
        """Kill the server at once, unsaved; ``start()`` restarts it on the same data."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop the server, by force if needed, and remove temporary data."""
        self._end(remove_data=True)

    def _end(self, *, remove_data: bool) -> None:
        if self._process is not None:
            pid = self._process.pid
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS_TEMPORARY if self._temporary else STOP_SECONDS)
            self.kill()
            # Milvus leaves one such file behind for every process.
            Path("/tmp/milvus", f"server_id_{pid}").unlink(missing_ok=True)
        if remove_data and self._temporary and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)
            self._data_dir = None


class _EndedEarlyError(Exception):
    """The server's process ended before it answered."""


def install() -> Path:
    """Install Milvus into the cache, if it is not there yet, and return its directory.

    Raises:
        ServerError: pip could not install the package.
    """
    return installed(f"milvus-{VERSION}", _install)


def _install(directory: Path) -> None:
    environment = directory / "environment"
    server = f"Milvus {VERSION}"
    run(server, "make an environment", [sys.executable, "-m", "venv", str(environment)])
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(server, "fetch the server", [*pip, "--no-deps", "--only-binary=:all:", f"milvus=={VERSION}"])
    _load_package(directory)._initialize_data_files(str(directory / "server"))


def _load_package(home: Path) -> ModuleType:
    """The ``milvus`` package of the environment, for its configuration code."""
    found = list(home.glob("environment/lib/python*/site-packages/milvus/__init__.py"))
    if not found:
        raise ServerError(f"The installation of Milvus in {home} is not whole: remove that directory and try again.")
    spec = importlib.util.spec_from_file_location("_alula_milvus_server", found[0])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


def free_ports(names: list[str]) -> dict[str, int]:
    """A free port for each of the names."""
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for port in random.sample(PORTS, len(PORTS)):
            if len(ports) == len(names):
                break
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("", port))
                ports[names[len(ports)]] = port
    if len(ports) < len(names):
        raise ServerError(f"No {len(names)} free ports between {PORTS.start} and {PORTS.stop}: stop what uses them.")
    return ports


def _is_healthy(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for the loopback
    try:
        with opener.open(f"http://{LOOPBACK}:{port}/healthz", timeout=5) as answer:
            return b"OK" in answer.read()
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def _silent_pymilvus() -> Iterator[None]:
    """Without the tracebacks that pymilvus logs while a server is not up yet."""
    logger = logging.getLogger("pymilvus")
    was = logger.disabled, logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.disabled, level = was
        logger.setLevel(level)


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Keep the data here after the end.")
@click.option("--auth", is_flag=True, help="Ask for user and password (root / Milvus).")
@click.option("--tls", is_flag=True, help="Serve TLS with a certificate made for this server.")
def main(data: Path | None, auth: bool, tls: bool) -> None:
    """Run Milvus 2.3.5 standalone until Ctrl-C, and print its URI."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with MilvusStandalone(data, auth=auth, tls=tls) as server:
            click.echo(server.uri)
            if tls:
                click.echo(f"CA certificate: {server.ca_file}", err=True)
            click.echo(f"Log: {server.log_file}. Ctrl-C ends the server.", err=True)
            assert server._process is not None
            status = server._process.wait()
            raise click.ClickException(f"The server ended with status {status}; its log is {server.log_file}.")
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)


if __name__ == "__main__":
    main()
