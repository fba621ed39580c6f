"""The roles of the documents are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from alula.milvus.privileges import ROLES

PAGE = Path(__file__).parents[3] / "docs/servers.md"


@pytest.mark.parametrize("name", ROLES)
def test_the_page_has_each_role(name):
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |"))
    *_, collections, everywhere = (part.strip() for part in row.strip("|").split("|"))
    privileges = ROLES[name].privileges
    assert collections.split(", ") == list(privileges["Collection"])
    assert everywhere.split(", ") == list(privileges["Global"])
    assert set(privileges) == {"Collection", "Global"}


def test_roles_grow():
    roles = [set(role.methods) for role in ROLES.values()]
    assert roles[0] < roles[1] < roles[2]
