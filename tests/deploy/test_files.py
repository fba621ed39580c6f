"""The files of deploy/, against the schemas and checkers of those who read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

from alula.cli.gateway import command
from alula.gateway.config import split_address
from tests.deploy.chart import of_kind, render

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*.yaml"))
# what clusters run today, and the newest that the package knows
KUBERNETES = ("1.29", "1.32", kubernetes_validate.latest_version())
PREFIX = "ALULA_GATEWAY_"


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def compose() -> dict:
    return documents(DEPLOY / "compose.yaml")[0]


def check(*args: str, cwd: Path = DEPLOY) -> None:
    done = subprocess.run(args, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def beside_python(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def needs(program: str) -> pytest.MarkDecorator:
    package = {"promtool": "prometheus"}.get(program, program)
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is missing: apt-get install {package}")


def test_compose_file_keeps_to_the_schema_of_compose():
    check(beside_python("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_dockerfile_satisfies_hadolint():
    check(beside_python("hadolint"), "Dockerfile")


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_keep_to_the_schemas_of_kubernetes(path, version):
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


@needs("promtool")
def test_prometheus_reads_its_configuration():
    check("promtool", "check", "config", "prometheus/prometheus.yml")


@needs("haproxy")
def test_haproxy_reads_its_configuration():
    check("haproxy", "-c", "-f", "haproxy.cfg")


def test_files_that_compose_mounts_exist():
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_pods_have_no_rights_that_they_do_not_need(kind):
    every = [*render(), *(document for path in MANIFESTS for document in documents(path))]
    (workload,) = (document for document in every if document["kind"] == kind)
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    claims = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert not claims or pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]


def test_images_have_versions():
    images = [service.get("image") for service in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+:\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    images += re.findall(r"^ +image: (\S+)", "".join(path.read_text() for path in MANIFESTS), re.MULTILINE)
    images.append(of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"])
    assert len(images) > 5
    for image in filter(None, images):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", image), image


def settings() -> dict[str, dict[str, str]]:
    """The gateway's environment in each file."""
    dockerfile = re.findall(rf"({PREFIX}\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text())
    return {
        "Dockerfile": dict(dockerfile),
        "compose.yaml": compose()["services"]["gateway"]["environment"],
        "chart": of_kind("ConfigMap")["data"],
    }


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "chart"])
def test_settings_are_options_with_values_that_they_take(name):
    options = {PREFIX + option.name.upper(): option for option in command.params}
    given = settings()[name]
    assert len(given) >= 3
    for variable, value in given.items():
        assert isinstance(value, str), f"{variable} must be quoted"
        option = options[variable]
        option.type_cast_value(click.Context(command), value)


def test_ports_agree():
    environment = settings()["Dockerfile"]
    _, clients = split_address(environment[f"{PREFIX}LISTEN"], "listen")
    _, pages = split_address(environment[f"{PREFIX}METRICS"], "metrics")
    exposed = re.search(r"^EXPOSE (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert exposed.split() == [str(clients), str(pages)]
    container = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"milvus": clients, "metrics": pages}
    haproxy = (DEPLOY / "haproxy.cfg").read_text()
    assert f"gateway:{clients} " in haproxy
    assert f" port {pages} " in haproxy
    assert f"bind :{clients} " in haproxy
    jobs = {job["job_name"]: job for job in documents(DEPLOY / "prometheus/prometheus.yml")[0]["scrape_configs"]}
    assert jobs["alula-gateway"]["dns_sd_configs"][0] == {"names": ["gateway"], "type": "A", "port": pages}
    assert f"127.0.0.1:{pages}/healthz" in (DEPLOY / "Dockerfile").read_text()


def test_a_pod_may_live_as_long_as_its_drain():
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = float(settings()["chart"][f"{PREFIX}DRAIN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] > pause + drain
    stop = compose()["services"]["gateway"]["stop_grace_period"]
    assert int(stop.removesuffix("s")) > float(settings()["compose.yaml"][f"{PREFIX}DRAIN_SECONDS"])


def test_the_image_installs_what_the_gateway_needs_and_no_torch():
    pip = re.search(r"pip install .* '\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    extras = pip[1].split(",")
    assert "gateway" in extras
    from tests.test_architecture import PROJECT

    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    names = {Requirement(line).name for line in wanted}
    assert "alula" not in names
    assert not {name for name in names if "torch" in name}
