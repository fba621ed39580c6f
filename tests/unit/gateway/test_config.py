"""Settings of a gateway: addresses, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from alula.errors import UsageError
from alula.gateway.config import Options, split_address


@pytest.mark.parametrize(
    ("upstream", "target"),
    [
        ("http://milvus:19530", "milvus:19530"),
        ("http://milvus", "milvus:19530"),
        ("https://milvus.example.com/", "milvus.example.com:443"),
        ("https://10.0.0.1:19530/", "10.0.0.1:19530"),
        ("http://[::1]:19530", "[::1]:19530"),
        ("http://[fe80::1:19530]", "[fe80::1:19530]:19530"),
    ],
)
def test_upstream_as_grpc_names_it(upstream, target):
    assert Options(upstream).upstream_target == target


@pytest.mark.parametrize(
    "upstream", ["milvus:19530", "ftp://milvus", "http://", "http://a b", "", "words.db", "http://a/b", "http://me@a"]
)
def test_what_is_no_upstream(upstream):
    with pytest.raises(UsageError, match='set upstream="http://HOST:PORT"'):
        Options(upstream)


@pytest.mark.parametrize(
    ("address", "split"),
    [
        (":19540", ("[::]", 19540)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:80", ("[::1]", 80)),
    ],
)
def test_addresses_to_listen_on(address, split):
    assert split_address(address, "listen") == split


@pytest.mark.parametrize(
    "address", ["", "19540", "host", "host:", ":65536", "::1:80", "http://host:80", "host:80/", "a b:1"]
)
def test_what_is_no_address_to_listen_on(address):
    with pytest.raises(UsageError, match='set metrics="HOST:PORT"'):
        Options("http://milvus", metrics=address)
    with pytest.raises(UsageError, match='set listen="HOST:PORT"'):
        Options("http://milvus", listen=address)


@pytest.mark.parametrize("given", [{"ca_file": Path("ca.pem")}, {"server_name": "milvus"}])
def test_tls_settings_for_an_upstream_without_tls(given):
    with pytest.raises(UsageError, match="https://"):
        Options("http://milvus", **given)
    assert Options("https://milvus", **given)
