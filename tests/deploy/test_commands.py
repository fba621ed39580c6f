"""Every command and address in the files of deploy/, tried on this machine against a gateway that runs there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from alula.cli.main import cli
from tests.deploy.chart import of_kind
from tests.deploy.test_files import (
    DEPLOY,
    MANIFESTS,
    PREFIX,
    beside_python,
    documents,
    needs,
    settings,
)
from tests.engines.gateway.running import LOOPBACK, RunningGateway
from tests.tiny_encoders import write_drq
from tests.waiting import wait_until
from tools.servers.standalone import free_ports

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/alula-gateway.json").read_text())
OWN = re.compile(r"\b(?:alula_gateway|process)_\w+")


def json_after(word: str) -> list[str]:
    """The last command of the Dockerfile after a word, in its form of a list."""
    return json.loads(re.findall(rf"{word} (\[.+\])$", DOCKERFILE, re.MULTILINE)[-1])


@contextmanager
def image(**environment: str) -> Iterator[subprocess.Popen]:
    """What the image runs, as it would: its command with its settings."""
    command = [beside_python(json_after("ENTRYPOINT")[0]), *json_after("ENTRYPOINT")[1:]]
    given = settings()["Dockerfile"] | environment
    process = subprocess.Popen(command, env=os.environ | given, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def gateway(milvus_server):
    with RunningGateway(milvus_server.uri) as gateway:
        yield gateway


def test_the_images_command_serves_and_its_healthcheck_passes(milvus_server, tmp_path):
    clients, pages = free_ports(["clients", "pages"]).values()
    probe = ["python", *json_after("CMD")[1:-1], json_after("CMD")[-1].replace("9091", str(pages))]
    assert probe[-1] != json_after("CMD")[-1]
    probe[0] = sys.executable
    assert subprocess.run(probe, capture_output=True, check=False).returncode != 0, "nothing serves yet"
    given = settings()["compose.yaml"] | {
        f"{PREFIX}UPSTREAM": milvus_server.uri,
        f"{PREFIX}LISTEN": f"{LOOPBACK}:{clients}",
        f"{PREFIX}METRICS": f"{LOOPBACK}:{pages}",
        f"{PREFIX}CACHE_DIR": str(tmp_path / "encoders"),
    }
    with image(**given) as process:
        line = json.loads(process.stderr.readline())
        assert line["message"].startswith(f"Listening on {LOOPBACK}:{clients}, in front of Milvus"), line
        assert subprocess.run(probe, capture_output=True, check=False).returncode == 0
        probes = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            wanted = probes[kind]["httpGet"]
            assert wanted["port"] == "metrics"
            with urllib.request.urlopen(f"http://{LOOPBACK}:{pages}{wanted['path']}") as answer:
                assert answer.status == 200
        process.terminate()
        assert process.wait() == 0


def test_the_pause_before_a_pods_end_is_a_command():
    container = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
    program, *seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert subprocess.run([program, *["0" for _ in seconds]], check=False).returncode == 0


def test_commands_of_the_tools_have_these_options():
    texts = [path.read_text() for path in (*MANIFESTS, DEPLOY / "compose.yaml", DEPLOY / "README.md")]
    lines = [match for text in texts for match in re.findall(r"--rm alula (.+)$", text, re.MULTILINE)]
    job = documents(DEPLOY / "kubernetes/load-job.yaml")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    commands = [shlex.split(line) for line in lines] + [job]
    assert len(commands) >= 4
    for name, *arguments in commands:
        command = cli.get_command(click.Context(cli), name)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, name


def test_commands_of_the_tools_run_in_the_folder_that_is_mounted(database, in_database, tmp_path):
    """The journal and rejected rows lie beside the files, so the folder is mounted to be written."""
    tools = documents(DEPLOY / "compose.yaml")[0]["services"]["alula"]
    assert tools["volumes"] == ["../data:/data"]
    rows = pa.table({"id": list(range(40)), "vector": np.eye(8, dtype=np.float32)[np.arange(40) % 8].tolist()})
    pq.write_table(rows, tmp_path / "words.parquet")
    write_drq(tmp_path / "encoder.onnx", input_dim=8)
    lines = re.findall(r"--rm alula (.+)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["doctor", "create", "load"]
    _, uri, _, name = in_database
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-m", "alula", *shlex.split(line)],
            cwd=tmp_path,
            env={**os.environ, "ALULA_URI": uri, "ALULA_DATABASE": name, "ALULA_ENCODER": "encoder.onnx"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert database.client.list_collections() == ["words"]


def exported(gateway: RunningGateway) -> set[str]:
    """The names of all samples, those of metrics that have no value yet included."""
    families = list(text_string_to_metric_families(gateway.page("/metrics")[1]))
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {f"{family.name}{suffix}" for family in families for suffix in suffixes.get(family.type, ("",))}


def expressions() -> list[str]:
    rules = documents(DEPLOY / "prometheus/alerts.yml")[0]["groups"]
    return [
        *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
        *(variable["query"] for variable in DASHBOARD["templating"]["list"]),
        *(rule["expr"] for group in rules for rule in group["rules"]),
    ]


def test_dashboard_and_alerts_ask_for_what_a_gateway_exports(gateway):
    asked = {name for expression in expressions() for name in OWN.findall(expression)}
    assert len(asked) > 10
    assert asked <= exported(gateway)


def test_dashboard_shows_everything_that_a_gateway_exports(gateway):
    asked = " ".join(expressions())
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in exported(gateway)}
    for family in families:
        if family.startswith("alula_gateway_") and not family.endswith("_created"):
            assert family in asked


def test_labels_of_the_dashboard_are_those_of_a_gateway(gateway):
    with gateway.channel() as channel:
        milvus_pb2_grpc.MilvusServiceStub(channel).ShowCollections(milvus_pb2.ShowCollectionsRequest())
    text = gateway.page("/metrics")[1]
    labels = {label for family in text_string_to_metric_families(text) for s in family.samples for label in s.labels}
    own = {"kind", "code", "reason"}  # of metrics that have no value yet: alula.gateway.ops.metrics has them
    of_prometheus = {"instance", "job"}
    for expression in expressions():
        for group in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(group.split(", ")) <= labels | own | of_prometheus, expression
        for label in re.findall(r'(\w+)(?:=|!=|=~|!~)"', expression):
            assert label in labels | of_prometheus, expression


def test_dashboard_panels_do_not_overlap_and_use_the_provisioned_source():
    sources = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    cells = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == sources[0]["uid"]
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells
                assert x < 24
                cells.add((x, y))


@needs("promtool")
def test_expressions_of_the_dashboard_are_promql(tmp_path):
    found = [re.sub(r"\$__rate_interval", "1m", text) for text in expressions() if not text.startswith("label_values")]
    rules = [{"record": f"dashboard:{number}", "expr": text} for number, text in enumerate(found)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Behind:
    """Gateways as programs of their own, and the balancer in front of them."""

    def __init__(self, upstream: str, folder: Path, count: int = 2) -> None:
        self.ports = [free_ports(["clients", "pages"]) for _ in range(count)]
        self.front = free_ports(["front"])["front"]
        environment = {f"{PREFIX}UPSTREAM": upstream, f"{PREFIX}DRAIN_SECONDS": "20"}
        self.gateways = [
            subprocess.Popen(
                [beside_python("alula"), "gateway"],
                env=os.environ
                | environment
                | {
                    f"{PREFIX}LISTEN": f"{LOOPBACK}:{ports['clients']}",
                    f"{PREFIX}METRICS": f"{LOOPBACK}:{ports['pages']}",
                },
            )
            for ports in self.ports
        ]
        text = (DEPLOY / "haproxy.cfg").read_text().replace(":19540 proto", f"{LOOPBACK}:{self.front} proto")
        text = text.replace("inter 2s", "inter 500").replace(" port 9091", "")
        servers = "\n".join(
            f"    server gateway{i} {LOOPBACK}:{ports['clients']} port {ports['pages']}"
            for i, ports in enumerate(self.ports)
        )
        text, replaced = re.subn(r"^ +server-template .+$", servers, text, flags=re.MULTILINE)
        assert replaced == 1
        (folder / "haproxy.cfg").write_text(text)
        self.balancer = subprocess.Popen(["haproxy", "-f", str(folder / "haproxy.cfg")])

    def close(self) -> None:
        for process in (self.balancer, *self.gateways):
            process.kill()
            process.wait()

    def ready(self) -> bool:
        try:
            for ports in self.ports:
                urllib.request.urlopen(f"http://{LOOPBACK}:{ports['pages']}/readyz").close()
        except OSError:
            return False
        return True

    def calls(self) -> list[float]:
        """How many calls each gateway has answered."""
        found = []
        for ports in self.ports:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{ports['pages']}/metrics") as page:
                families = text_string_to_metric_families(page.read().decode())
            found.append(sum(s.value for f in families for s in f.samples if s.name == "alula_gateway_requests_total"))
        return found


CALLS = 400  # enough to see how they are spread


@needs("haproxy")
def test_the_balancer_spreads_calls_and_loses_none_when_a_gateway_ends(milvus_server, tmp_path):
    behind = Behind(milvus_server.uri, tmp_path)
    try:
        wait_until(behind.ready, "the gateways")
        ends: list[str] = []
        stopping = threading.Event()
        with grpc.insecure_channel(f"{LOOPBACK}:{behind.front}") as channel:
            show = milvus_pb2_grpc.MilvusServiceStub(channel).ShowCollections

            def seen() -> bool:
                """True when the balancer has passed calls to each gateway."""
                with contextlib.suppress(grpc.RpcError):
                    show(milvus_pb2.ShowCollectionsRequest())
                return min(behind.calls()) > 0

            wait_until(seen, "the balancer to use each gateway")

            def call() -> None:
                while not stopping.is_set():
                    try:
                        show(milvus_pb2.ShowCollectionsRequest())
                        ends.append("ok")
                    except grpc.RpcError as error:
                        ends.append(f"{error.code().name} {error.details()}")

            callers = [threading.Thread(target=call) for _ in range(4)]
            for caller in callers:
                caller.start()
            wait_until(lambda: len(ends) > CALLS, "calls")
            served = behind.calls()
            behind.gateways[0].terminate()
            assert behind.gateways[0].wait() == 0
            before = len(ends)
            wait_until(lambda: len(ends) > before + CALLS, "calls after the end of a gateway")
            stopping.set()
            for caller in callers:
                caller.join()
        assert min(served) > 0.2 * max(served)
        assert [end for end in ends if end != "ok"] == []
    finally:
        behind.close()
