"""``alula gateway`` as a process: what it says, how it ends, and what it never writes down."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from tests.fixtures.command_line import check_failure, finish, start
from tests.waiting import wait_until
from tools.servers.cutting_proxy import CuttingProxy

LOOPBACK = "127.0.0.1"
NOWHERE = f"http://{LOOPBACK}:1"


class Program:
    """The command on a free port, with its log line by line."""

    def __init__(self, *args: str, **environment: str) -> None:
        command = [sys.executable, "-m", "alula.cli", "gateway", "--listen", f"{LOOPBACK}:0", *args]
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self.process.stderr.readline()
        self.port = int(re.search(r"Listening on 127\.0\.0\.1:(\d+)", self.first)[1])

    @property
    def uri(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def read_until(self, words: str) -> None:
        """Read its log up to a line with these words."""
        assert any(words in line for line in iter(self.process.stderr.readline, ""))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and the rest of its log."""
        self.process.send_signal(number)
        out, rest = self.process.communicate()
        assert out == ""
        return self.process.returncode, rest


@contextmanager
def program(*args: str, **environment: str) -> Iterator[Program]:
    running = Program(*args, **environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def show_collections(channel: grpc.Channel):
    return milvus_pb2_grpc.MilvusServiceStub(channel).ShowCollections.future(milvus_pb2.ShowCollectionsRequest())


def test_it_says_where_it_listens_and_what_is_upstream(milvus_server):
    settings = {"ALULA_GATEWAY_UPSTREAM": milvus_server.uri, "ALULA_GATEWAY_METRICS": f"{LOOPBACK}:0"}
    with program(**settings) as running:
        line = json.loads(running.first)
        assert line["level"] == "INFO"
        said = rf"Listening on 127\.0\.0\.1:{running.port}, in front of Milvus 2\.3\.5\S* at {milvus_server.uri}; "
        assert re.fullmatch(said + r"metrics at 127\.0\.0\.1:\d+\.", line["message"])
        client = MilvusClient(running.uri)
        client.list_collections()
        client.close()
        code, rest = running.end()
        assert code == 0
        assert [json.loads(line)["message"] for line in rest.splitlines()] == [
            "Stopping: no new calls; running calls get up to 30 s.",
            "Stopped.",
        ]


def test_it_waits_for_milvus_and_says_so(milvus_server):
    with CuttingProxy(milvus_server.port) as proxy, socket.socket() as dead:
        dead.bind((LOOPBACK, 0))
        proxy.target = dead.getsockname()[1]
        with program("--upstream", proxy.uri) as running:
            assert f"and waiting for Milvus. {proxy.uri} does not answer." in running.first
            proxy.target = milvus_server.port
            assert "Milvus 2.3.5" in (line := running.process.stderr.readline())
            assert "answers." in line


def test_an_untrusted_certificate_is_named(milvus_server_with_auth):
    with program("--upstream", milvus_server_with_auth.uri) as running:
        assert "is not trusted" in running.first
        assert "--ca-file" in running.first
    with program(
        "--upstream", milvus_server_with_auth.uri, "--ca-file", str(milvus_server_with_auth.ca_file)
    ) as running:
        assert "in front of Milvus at https://" in running.first, "the version is not told without a login"


@contextmanager
def with_slow_call(milvus_server, *args: str) -> Iterator[tuple[Program, grpc.Channel, grpc.Future, CuttingProxy]]:
    """A gateway, a connection to it, and a call whose answer Milvus holds back."""
    with (
        CuttingProxy(milvus_server.port) as proxy,
        program("--upstream", proxy.uri, *args) as running,
        grpc.insecure_channel(f"{LOOPBACK}:{running.port}") as channel,
    ):
        show_collections(channel).result()
        before = proxy.calls
        proxy.hold()
        call = show_collections(channel)
        wait_until(lambda: proxy.calls >= before + 2, "the call and a health check to reach Milvus")
        yield running, channel, call, proxy


def test_a_signal_drains(milvus_server):
    with with_slow_call(milvus_server) as (running, _, call, proxy):
        running.process.send_signal(signal.SIGTERM)
        running.read_until("Stopping")
        proxy.release()
        assert running.process.wait() == 0, running.process.stderr.read()
        assert call.result()


def test_a_second_signal_ends_at_once(milvus_server):
    with with_slow_call(milvus_server, "--drain-seconds", "3600") as (running, *_):
        running.process.send_signal(signal.SIGINT)
        assert "Stopping" in running.process.stderr.readline()
        assert running.end(signal.SIGINT)[0] == 128 + signal.SIGINT


def test_calls_are_given_up_after_the_drain(milvus_server):
    with with_slow_call(milvus_server, "--drain-seconds", "0.2") as (running, channel, call, proxy):
        before = proxy.calls
        request = milvus_pb2.DescribeCollectionRequest()
        in_a_thread = milvus_pb2_grpc.MilvusServiceStub(channel).DescribeCollection.future(request)
        wait_until(lambda: proxy.calls > before, "the call to reach Milvus")
        assert running.end()[0] == 0
        for given_up in (call, in_a_thread):
            with pytest.raises(grpc.RpcError):
                given_up.result()


def test_no_login_is_ever_written(milvus_server_with_auth):
    server, secrets = milvus_server_with_auth, ("rosebud-7731", "open-sesame-42")
    upstream = ("--upstream", server.uri, "--ca-file", str(server.ca_file))
    with program(*upstream, "--log-level", "debug", "--slow-seconds", "0") as running:
        root = MilvusClient(running.uri, user=server.user, password=server.password)
        root.create_user("reader", secrets[0])
        reader = MilvusClient(running.uri, user="reader", password=secrets[0])
        reader.list_collections()
        with pytest.raises(MilvusException, match=r"auth check failure|Fail connecting"):
            MilvusClient(running.uri, user="reader", password=secrets[1])
        with pytest.raises(MilvusException):
            reader.describe_collection("no_such")
        root.update_password("reader", secrets[0], secrets[1])
        root.drop_user("reader")
        for client in (root, reader):
            client.close()
        code, log = running.end()
    assert code == 0
    lines = [json.loads(line) for line in log.splitlines()]
    methods = {line.get("method") for line in lines}
    assert {"CreateCredential", "UpdateCredential", "DescribeCollection", "Connect"} <= methods
    assert any(line.get("code") == "UNAUTHENTICATED" for line in lines)
    for secret in secrets:
        for login in (secret, f"reader:{secret}"):
            for written in (login, base64.b64encode(login.encode()).decode()):
                assert written not in log
    assert base64.b64encode(b"root:Milvus").decode() not in log


@pytest.mark.parametrize("level", ["info", "debug"])
def test_refusals_are_logged_with_what_finds_them_again(milvus_server, level):
    """Milvus's sentence, which may quote what was asked for, is logged for debugging only."""
    with program("--upstream", milvus_server.uri, "--log-level", level) as running:
        with grpc.insecure_channel(f"{LOOPBACK}:{running.port}") as channel:
            request = milvus_pb2.DescribeCollectionRequest(collection_name="no_such")
            metadata = (("client-request-id", "r-17"),)
            milvus_pb2_grpc.MilvusServiceStub(channel).DescribeCollection(request, metadata=metadata)
        log = running.end()[1]
    (line,) = (line for line in map(json.loads, log.splitlines()) if "method" in line)
    assert (line["method"], line["collection"], line["request_id"]) == ("DescribeCollection", "no_such", "r-17")
    assert line["outcome"] == "refused"
    assert ("not found" in line["message"] or "no_such" in line["message"]) == (level == "debug")


def test_a_log_that_nobody_reads_stops_nothing(milvus_server):
    with program("--upstream", milvus_server.uri) as running:
        with grpc.insecure_channel(f"{LOOPBACK}:{running.port}") as channel:
            describe = milvus_pb2_grpc.MilvusServiceStub(channel).DescribeCollection
            for _ in range(600):  # a pipe holds 64 KiB, and each of them is logged
                describe(milvus_pb2.DescribeCollectionRequest(collection_name="no_such"))
        running.process.terminate()
        assert running.process.wait() is not None


def test_what_is_wrong_is_one_sentence(fails, tmp_path):
    at = ["gateway", "--upstream", NOWHERE]
    fails(2, ["gateway"], "--upstream", "alula gateway --help")
    fails(2, ["gateway", "--upstream", "milvus:19530"], "is not an address of Milvus", "http://HOST:PORT")
    fails(2, [*at, "--listen", "19540"], "is not an address to listen on", "--listen")
    fails(2, [*at, "--tls-cert", "x.pem"], "--tls-key")
    fails(2, [*at, "--tls-client-ca", "x.pem"], "--tls-cert")
    missing = tmp_path / "no.pem"
    fails(
        2,
        [*at, "--tls-cert", missing, "--tls-key", missing],
        f"{missing}, the gateway's certificate, cannot be read",
        "--tls-cert",
    )
    fails(2, ["gateway", "--upstream", "https://milvus", "--ca-file", missing], f"{missing}", "--ca-file")


def test_addresses_that_cannot_be_listened_on():
    def fails(*args, words):
        check_failure(finish(start("gateway", "--upstream", NOWHERE, *args)), 1, *words)

    fails("--listen", "nowhere.invalid:0", words=("nowhere.invalid:0 (name or service not known)", "--listen"))
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        words = (f"{address} (address already in use)", "--metrics")
        fails("--listen", f"{LOOPBACK}:0", "--metrics", address, words=words)
    with program("--upstream", NOWHERE, "--log-format", "text") as running:  # gRPC would let two gateways share a port
        assert f"WARNING Listening on {LOOPBACK}:{running.port}, and waiting" in running.first
        assert f"Nothing can be reached at {NOWHERE}; check that" in running.first
        address = f"{LOOPBACK}:{running.port}"
        fails("--listen", address, words=(f"{address} (address already in use)", "--listen"))


@pytest.mark.parametrize("missing", ["grpc_health", "pythonjsonlogger"])
def test_without_the_extra(missing):
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from alula.cli import main\n"
        f"main(['gateway', '--upstream', {NOWHERE!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"needs {missing}" in done.stderr
    assert "pip install 'alula[gateway]'" in done.stderr
