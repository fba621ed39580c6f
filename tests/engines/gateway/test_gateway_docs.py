"""What docs/gateway.md says of options and metrics is all that there is."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

from alula.cli.gateway import command
from alula.gateway.ops import metrics

DOCS = (Path(__file__).parents[3] / "docs/gateway.md").read_text()


def section(title: str) -> str:
    return DOCS.split(f"\n### {title}\n")[1].split("\n### ")[0]


def test_options():
    cells = [line.split("|")[1] for line in section("Options").splitlines() if line.startswith("| `")]
    told = {name for cell in cells for name in re.findall(r"--[\w-]+", cell)}
    assert told == {option.opts[0] for option in command.params}


def test_defaults():
    defaults = {option.opts[0]: option.default for option in command.params}
    for name, default in re.findall(r"^\| `(--[\w-]+)` \| `?([:\d.]+)`? \|", section("Options"), re.MULTILINE):
        assert str(defaults[name]) in (default, f"{default}.0")


def test_metrics():
    told = re.findall(r"`(alula_gateway_\w+)`", section("Metrics"))
    families = [family for family in REGISTRY.collect() if family.name.startswith("alula_gateway_")]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert set(told) == names
    assert metrics.__name__  # which has put them there
