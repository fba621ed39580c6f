"""Expressions on keys: templates where a server has them, texts elsewhere."""

from __future__ import annotations

import re

import pytest

from alula.milvus.dialect import LITE, MILVUS
from alula.milvus.expressions import IdTemplates, any_of


class Parser:
    """A server's parser: takes texts of known fields, and placeholders if it has templates."""

    def __init__(self, *, templates: bool) -> None:
        self.templates = templates
        self.seen: list[str] = []

    def __call__(self, expression, values):
        self.seen.append(expression)
        names = re.findall(r"\{(\w+)\}", expression)
        if "nowhere" in expression or (names and not self.templates):
            raise ValueError(f"failed to create query plan: cannot parse expression: {expression}")
        assert set(names) == set(values)
        return values.get(names[0]) if names else expression


def test_keys_go_beside_a_template_where_the_server_has_them():
    server, templates = Parser(templates=True), IdTemplates()
    assert templates.send(server, "id", [3, 5], dialect=MILVUS) == [3, 5]
    assert templates.send(server, "id", ["a"], "year > 3 or year < 1", dialect=MILVUS) == ["a"]
    assert server.seen == ["id in {alula_ids}", "(id in {alula_ids}) and (year > 3 or year < 1)"]


def test_a_server_without_templates_is_asked_once():
    server, templates = Parser(templates=False), IdTemplates()
    for _ in range(2):
        found = templates.send(server, "id", [3, 5], "year > 3", dialect=MILVUS)
        assert found == "(id in [3, 5]) and (year > 3)"
    assert server.seen == ["(id in {alula_ids}) and (year > 3)", *["(id in [3, 5]) and (year > 3)"] * 2]


def test_a_wrong_filter_says_nothing_of_templates():
    server, templates = Parser(templates=True), IdTemplates()
    with pytest.raises(ValueError, match=r"in \[3\].*nowhere"):  # as the user would have written it
        templates.send(server, "id", [3], "nowhere > 3", dialect=MILVUS)
    assert templates.send(server, "id", [3], dialect=MILVUS) == [3]


def test_milvus_lite_is_not_asked():
    server = Parser(templates=True)
    assert IdTemplates().send(server, "id", [3, 5], dialect=LITE) == "id in [3, 5]"


def test_other_failures_are_not_repeated():
    calls = []

    def fail(expression, values):
        calls.append(expression)
        raise ConnectionError("connection refused")

    with pytest.raises(ConnectionError):
        IdTemplates().send(fail, "id", [1], dialect=MILVUS)
    assert len(calls) == 1


def test_keys_are_written_as_literals():
    assert any_of("id", [1, -2]) == "id in [1, -2]"
    assert any_of("name", ['a"b', "c\\d", "e\nf"]) == 'name in ["a\\"b", "c\\\\d", "e\\nf"]'
