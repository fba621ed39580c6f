"""The steps of deploy/Dockerfile, run on this machine in a folder that stands for the image's root."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.test_files import DEPLOY, PREFIX, settings
from tests.waiting import wait_until
from tools.servers.standalone import free_ports

ROOT = DEPLOY.parent
NO_CACHE = " --no-cache-dir"  # keeps the image small; here it would fetch some hundred megabytes each time
ABSOLUTE = re.compile(r"(?<![\w./])/(?:src|opt)\b")


def steps() -> list[tuple[str, str]]:
    """Instruction and rest of each line of the Dockerfile; continued lines are one."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(kind, rest) for kind, _, rest in (line.partition(" ") for line in lines if line)]


def stage(name: str) -> list[tuple[str, str]]:
    """The steps of one stage after its FROM."""
    every = steps()
    starts = [i for i, (kind, _) in enumerate(every) if kind == "FROM"] + [len(every)]
    for start, end in itertools.pairwise(starts):
        if every[start][1].endswith(f" AS {name}"):
            return every[start + 1 : end]
    raise AssertionError(f"The Dockerfile has no stage {name!r}.")


def step(name: str, kind: str) -> str:
    """The only step of a kind in a stage."""
    (rest,) = (rest for found, rest in stage(name) if found == kind)
    return rest


def shell(command: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quick = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}
    given = {"cwd": folder, "env": environment | quick, "capture_output": True, "text": True}
    return subprocess.run(["sh", "-ec", command], check=False, **given)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The root of an image in which the steps of the stage ``build`` were run, by this Python."""
    root = tmp_path_factory.mktemp("image")
    if shell(f"{sys.executable} -m pip download --quiet --no-deps --dest . packaging", root).returncode:
        pytest.skip("a package index: pip cannot fetch what the image installs")
    folder = root
    for kind, rest in stage("build"):
        if kind == "WORKDIR":
            folder = root / rest.removeprefix("/")
            folder.mkdir(parents=True)
        elif kind == "COPY":
            copy(rest.split(), folder)
        else:
            assert kind == "RUN", kind
            command = ABSOLUTE.sub(lambda place: f"{root}{place[0]}", rest).replace(NO_CACHE, "")
            done = shell(re.sub(r"^python ", f"{sys.executable} ", command), folder)
            assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(folder)  # the other stages take the environment alone
    return root


def copy(paths: list[str], folder: Path) -> None:
    """COPY: files into the target, or what a folder holds."""
    *sources, target = paths
    for source in sources:
        if (ROOT / source).is_dir():
            without = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / source, folder / target, ignore=without, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, folder / target)


def inside(root: Path, *, stages: tuple[str, ...] = ("tools",), **others: str) -> dict[str, str]:
    """The environment of a container: what ENV sets, with a home of its own."""
    pairs = [word.split("=", 1) for name in stages for word in step(name, "ENV").split()]
    given = {name: value.replace("$PATH", "/usr/bin:/bin") for name, value in pairs}
    given["PATH"] = given["PATH"].replace("/opt/", f"{root}/opt/")
    return given | {"HOME": str(root)} | others


def run(root: Path, *args: str) -> subprocess.CompletedProcess:
    program = shutil.which(args[0], path=inside(root)["PATH"])
    assert program is not None, args
    given = {"cwd": root, "env": inside(root), "capture_output": True, "text": True}
    return subprocess.run([program, *args[1:]], check=False, **given)


def test_the_last_stages_take_the_environment_whose_commands_run(root):
    assert step("tools", "COPY").split() == ["--from=build", "/opt/alula", "/opt/alula"]
    entries = [json.loads(step(name, "ENTRYPOINT")) for name in ("tools", "gateway")]
    assert entries == [["alula"], ["alula", "gateway"]]
    for entry in entries:
        done = run(root, *entry, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage: alula" in done.stdout
    assert (root / "opt/alula/bin/alula").read_text().startswith(f"#!{root}/opt/alula/bin/python")


def applies(requirement: Requirement) -> bool:
    """True for this Python, which made the environment."""
    return requirement.marker is None or requirement.marker.evaluate()


def test_the_environment_has_what_a_gateway_imports_and_no_torch(root):
    modules = "alula.gateway.server, tokenizers, opentelemetry.sdk.trace, alula.ingest.load"
    assert run(root, "python", "-c", f"import {modules}").stderr == ""
    assert run(root, "python", "-c", "import torch").returncode != 0
    lines = re.findall(r"^[\w.-]+==.*", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pins = {canonicalize_name(pin.name): pin.specifier for pin in map(Requirement, lines) if applies(pin)}
    found = json.loads(run(root, "python", "-m", "pip", "list", "--format", "json").stdout)
    versions = {canonicalize_name(one["name"]): one["version"] for one in found}
    assert {"pymilvus", "onnxruntime", "grpcio"} <= versions.keys() & pins.keys()
    del versions["pip"]
    versions.pop("setuptools", None)  # both come with the environment, before Python 3.12
    wrong = {name: version for name, version in versions.items() if name in pins and version not in pins[name]}
    assert not wrong, "constraints.txt has other versions"


def test_the_gateway_of_the_environment_answers_its_healthcheck_before_milvus_does(root):
    clients, pages, absent = free_ports(["clients", "pages", "absent"]).values()
    probe = json.loads(step("gateway", "HEALTHCHECK").partition("CMD ")[2])
    port = settings()["Dockerfile"][f"{PREFIX}METRICS"]
    assert port in probe[-1]
    probe[-1] = probe[-1].replace(port, f":{pages}")
    listen = {f"{PREFIX}LISTEN": f"127.0.0.1:{clients}", f"{PREFIX}METRICS": f"127.0.0.1:{pages}"}
    given = inside(root, stages=("tools", "gateway"), **listen, **{f"{PREFIX}UPSTREAM": f"http://127.0.0.1:{absent}"})
    entry = json.loads(step("gateway", "ENTRYPOINT"))
    program = shutil.which(entry[0], path=given["PATH"])
    assert program is not None
    with (root / "log").open("w") as log:
        process = subprocess.Popen([program, *entry[1:]], cwd=root, env=given, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or run(root, *probe).returncode == 0, "the health check")
        assert process.poll() is None, (root / "log").read_text()
    finally:
        process.kill()
        process.wait()


def test_what_runs_is_not_root():
    kinds = [kind for kind, _ in stage("tools")]
    assert step("tools", "USER") == "1000"
    assert kinds.index("RUN") < kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert "USER" not in [kind for kind, _ in stage("gateway")]
