"""The Helm chart: linted and rendered by Helm, and its objects against Kubernetes' schemas."""

from __future__ import annotations

import re
import sys

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from alula.cli.gateway import command
from tests.deploy.chart import CHART, EVERYTHING, POLICY, of_kind, render
from tests.deploy.test_files import KUBERNETES, PREFIX

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VALUES = {"defaults": {}, "everything": EVERYTHING, "no network policy": {"networkPolicy": {"enabled": False}}}
CUSTOM = "monitoring.coreos.com/v1"  # of the Prometheus operator, whose schema is not Kubernetes'


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_finds_nothing_to_say_about_it(values):
    report = helm.lint(CHART, values, strict=True)
    worse = [message for message in report["messages"] if message["severity"] >= 2]
    assert (worse, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_objects_keep_to_the_schemas_of_kubernetes(values, version):
    kinds = []
    for document in render(values):
        kinds.append(document["kind"])
        if document["apiVersion"] != CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)
    assert {"ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"} <= set(kinds)
    assert ("NetworkPolicy" in kinds) == values.get("networkPolicy", {}).get("enabled", True)
    assert ("ServiceMonitor" in kinds) == (values is EVERYTHING)


def test_two_gateways_by_default_and_a_drain_takes_one_at_a_time():
    assert of_kind("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2
    assert "replicas" not in of_kind("Deployment")["spec"]  # the autoscaler's; an upgrade must not set it back
    assert of_kind("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ({}, "alula-gateway:0.1.0"),
        ({"tag": "0.1.1"}, "alula-gateway:0.1.1"),
        (EVERYTHING["image"], "registry.example/alula-gateway@sha256:" + 64 * "a"),
    ],
)
def test_the_image_has_a_version_or_a_digest(image, shown):
    assert of_kind("Deployment", {"image": image})["spec"]["template"]["spec"]["containers"][0]["image"] == shown


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"tag": "latest"}},
        {"image": {"digest": "sha256:abc"}},
        {"milvus": {"uri": "milvus:19530"}},
        {"tls": {"clientCa": True}},
        {"settings": {"WORKERS": "32"}},
        {"replicas": 3},
        {"networkPolicy": {"milvusPort": 0}},
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(values):
    with pytest.raises(helm.HelmError):
        render(values)


def test_settings_reach_the_gateway_by_names_that_it_has():
    options = {PREFIX + option.name.upper() for option in command.params}
    data = of_kind("ConfigMap", EVERYTHING)["data"]
    assert data.keys() <= options
    assert all(isinstance(value, str) for value in data.values())
    assert (data[f"{PREFIX}UPSTREAM"], data[f"{PREFIX}WORKERS"]) == ("https://milvus.data.svc:19531", "32")
    documented = set(re.findall(rf"({PREFIX}\w+)", (CHART / "values.yaml").read_text()))
    assert documented <= options


def test_files_that_settings_name_are_mounted():
    pod = of_kind("Deployment", EVERYTHING)["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == volumes.keys()
    for value in of_kind("ConfigMap", EVERYTHING)["data"].values():
        if value.startswith("/"):
            assert any(value.startswith(f"{mount}/") for mount in mounts), value
    assert volumes["tls"]["secret"]["secretName"] == "alula-gateway-tls"
    assert volumes["milvus"]["secret"] == {"secretName": "milvus-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    policy = of_kind("ConfigMap", EVERYTHING, name="alula-gateway-policy")["data"]["policy.toml"]
    assert tomllib.loads(policy) == tomllib.loads(POLICY)
    assert [volume["name"] for volume in of_kind("Deployment")["spec"]["template"]["spec"]["volumes"]] == ["tmp"]


def test_a_changed_setting_replaces_the_pods():
    def annotations(values):
        return of_kind("Deployment", values)["spec"]["template"]["metadata"]["annotations"]

    assert annotations({}) == annotations({"service": {"port": 1}})
    assert annotations({})["checksum/settings"] != annotations({"drainSeconds": 60})["checksum/settings"]
    assert annotations({"policy": POLICY}) != annotations({})


@pytest.mark.parametrize("release", ["alula-gateway", "search"])
def test_what_selects_pods_finds_them_and_no_other_releases(release):
    objects = {
        one["kind"]: one for one in render(EVERYTHING, release) if one["metadata"]["name"].endswith("alula-gateway")
    }
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    other = next(one for one in render({}, "another") if one["kind"] == "Deployment")["spec"]["template"]["metadata"][
        "labels"
    ]
    for selector in (
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= other.items()
    scaled = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
    assert scaled == objects["Deployment"]["metadata"]["name"]


def test_the_service_monitor_finds_the_metrics_and_nothing_else():
    services = [one for one in render(EVERYTHING) if one["kind"] == "Service"]
    monitor = of_kind("ServiceMonitor", EVERYTHING)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (found,) = (one for one in services if wanted <= one["metadata"]["labels"].items())
    assert found["spec"]["ports"] == [{"name": "metrics", "port": 9091, "targetPort": "metrics"}]
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == ["metrics"]
    annotations = of_kind("Deployment", EVERYTHING)["spec"]["template"]["metadata"]["annotations"]
    assert "prometheus.io/scrape" not in annotations
    assert of_kind("Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9091"


def test_the_network_policy_lets_in_clients_and_metrics_and_out_to_milvus():
    policy = of_kind("NetworkPolicy", EVERYTHING)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    inward = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["ingress"]}
    assert inward["milvus"] is None
    assert inward["metrics"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    out = {port["port"]: rule.get("to") for rule in policy["egress"] for port in rule["ports"]}
    assert out.keys() == {53, 19531}
    assert out[19531][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "data"}


def test_chart_and_program_have_one_version():
    from alula import __version__

    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == __version__
    assert about["version"] == __version__
