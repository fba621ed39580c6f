"""The description of the package, as an index shows it."""

from __future__ import annotations

import re
import subprocess
from email import message_from_string
from pathlib import Path

import pytest
import uv
import yaml
from hatchling import build

ROOT = Path(__file__).parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


@pytest.fixture
def description(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = build.prepare_metadata_for_build_wheel(str(tmp_path))
    return message_from_string((tmp_path / folder / "METADATA").read_text("utf-8")).get_payload()


def test_an_index_shows_the_readme_without_links_to_files(description):
    """There are no files beside an index's page."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert any(not target.startswith("https://") for _, target in LINK.findall(readme))
    assert [target for _, target in LINK.findall(description) if not target.startswith("https://")] == []
    assert (
        description.strip()
        == LINK.sub(lambda link: link[0] if link[2].startswith("https://") else link[1], readme).strip()
    )


def test_the_workflow_and_the_classifiers_name_the_same_pythons():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert workflow["jobs"]["quick"]["strategy"]["matrix"]["python"] == PYTHONS
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert named == PYTHONS


@pytest.mark.parametrize("version", PYTHONS)
def test_what_make_installs_has_wheels_for_every_python(takes_long, tmp_path, version):
    """pip would build what has none, which needs compilers and time."""
    python = ("--python-version", f"{version}.9", "--python-platform", "x86_64-manylinux_2_36")
    chosen = ("--extra", "dev", "--constraints", ROOT / "constraints.txt", "--only-binary", ":all:", "--no-sources")
    found = subprocess.run(
        [uv.find_uv_bin(), "pip", "compile", "--quiet", *python, *chosen, ROOT / "pyproject.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "torch==" in found.stdout
