"""The description of the package, as an index shows it."""

from __future__ import annotations

import re
from email import message_from_string
from pathlib import Path

import pytest
from hatchling import build

ROOT = Path(__file__).parents[1]
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
