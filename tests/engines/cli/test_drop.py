"""``alula drop``: it asks, and drops nothing without a yes."""

from __future__ import annotations

import io

import pytest


@pytest.fixture
def w(alula, lite_uri, drq):
    assert alula("create", "w", "--uri", lite_uri, "--index-type", "DRQ", "--encoder", drq).code == 0
    return ["w", "--uri", lite_uri]


def test_yes(alula, fails, w, monkeypatch):
    result = alula("drop", *w, "--yes")
    assert (result.code, result.out, result.err) == (0, "Dropped w.\n", "")
    fails(2, ["drop", *w, "--yes"], "no collection 'w'", "none")


def test_it_asks(alula, w, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    result = alula("drop", *w)
    assert (result.code, result.out) == (1, "")
    assert "with 0 rows? This cannot be undone." in result.err
    assert result.err.endswith("Error: w was not dropped.\n")
    assert alula("describe", *w).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert alula("drop", *w).out == "Dropped w.\n"


@pytest.mark.parametrize("stdin", [io.StringIO(""), None], ids=["empty", "closed"])
def test_nobody_to_ask(alula, w, monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", stdin)
    result = alula("drop", *w)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith("Error: Not a terminal, so nothing can be asked. Pass --yes to drop it.\n")
    assert alula("describe", *w).code == 0


def test_a_collection_of_somebody_else(fails, milvus_server, collection_name):
    client = milvus_server.client()
    client.create_collection(collection_name, dimension=4)
    try:
        fails(2, ["drop", collection_name, "--yes", "--uri", milvus_server.uri], "no Alula index type")
        assert client.has_collection(collection_name)
    finally:
        client.drop_collection(collection_name)


def test_a_misspelt_database_is_not_made(fails, tmp_path):
    fails(2, ["drop", "w", "--yes", "--uri", tmp_path / "typo.db"], "There is no database")
    assert list(tmp_path.iterdir()) == []
