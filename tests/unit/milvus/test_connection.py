"""Addresses with a login: it is used, and neither shown nor kept."""

from __future__ import annotations

import pytest

from alula.errors import AlulaError
from alula.gateway.config import Options
from alula.milvus.connection import connect, without_login


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://host:19530", ("http://host:19530", "", "")),
        ("http://root:secret@host:19530", ("http://host:19530", "root", "secret")),
        ("https://root:se%40c%2Fret@host/db", ("https://host/db", "root", "se@c/ret")),
        ("https://root:a@b:c@host", ("https://host", "root", "a@b:c")),
        ("root:secret@host:19530", ("host:19530", "root", "secret")),
        ("http://token@host", ("http://host", "token", "")),
        ("http://host/a@b", ("http://host/a@b", "", "")),
    ],
)
def test_without_a_login(uri, expected):
    assert without_login(uri) == expected


@pytest.mark.parametrize("uri", ["root:secret@host", "ftp://root:secret@host", "http://root:secret@host:port"])
def test_a_wrong_address_is_shown_without_it(uri):
    with pytest.raises(AlulaError) as caught:
        connect(uri)
    assert "secret" not in str(caught.value)
    with pytest.raises(AlulaError) as caught:
        Options(uri)
    assert "secret" not in str(caught.value)


def test_an_unreachable_address_is_shown_without_it(dead_port):
    with pytest.raises(AlulaError) as caught:
        connect(f"http://root:secret@127.0.0.1:{dead_port}", timeout=1)
    assert f"http://127.0.0.1:{dead_port}" in str(caught.value)
    assert "secret" not in str(caught.value)
