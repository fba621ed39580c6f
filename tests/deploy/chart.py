"""The Helm chart of deploy/, rendered by Helm's own library."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

CHART = Path(__file__).parents[2] / "deploy/helm/alula-gateway"
POLICY = '[[rules]]\ncollection = "docs_*"\nindex_type = "DRQ"\nencoder = "words"\n'
EVERYTHING = {  # every part of the chart that values turn on
    "image": {"repository": "registry.example/alula-gateway", "digest": "sha256:" + 64 * "a"},
    "imagePullSecrets": [{"name": "registry"}],
    "milvus": {"uri": "https://milvus.data.svc:19531", "caSecret": "milvus-ca", "serverName": "milvus"},
    "tls": {"secret": "alula-gateway-tls", "clientCa": True},
    "policy": POLICY,
    "settings": {"ALULA_GATEWAY_WORKERS": 32},
    "nodeSelector": {"pool": "search"},
    "tolerations": [{"key": "search", "operator": "Exists"}],
    "service": {"type": "LoadBalancer", "annotations": {"example.org/internal": "true"}},
    "networkPolicy": {"milvusNamespace": "data", "milvusPort": 19531},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}


def render(values: dict[str, Any] | None = None, release: str = "alula-gateway") -> list[dict]:
    """The chart's objects with some values in the place of its own."""
    return [
        document
        for text in _texts(json.dumps(values or {}), release)
        for document in yaml.safe_load_all(text)
        if document
    ]


def of_kind(
    kind: str, values: dict[str, Any] | None = None, name: str = "alula-gateway", release: str = "alula-gateway"
) -> dict:
    """The object of a kind with this name."""
    (found,) = (one for one in render(values, release) if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


@cache
def _texts(values: str, release: str) -> list[str]:
    given = json.loads(values)
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(given))
        found = chart.render(given, name=release, namespace="alula")
    return [text for name, text in found.items() if name.endswith(".yaml")]
