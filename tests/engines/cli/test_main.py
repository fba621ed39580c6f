"""The command group: help, usage errors, exit codes, streams that are closed, servers that cannot be reached."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import alula as package
from alula.cli.main import COMMANDS
from tests.fixtures.command_line import check_failure, finish, start
from tests.waiting import wait_until


def test_help_lists_every_command(alula):
    result = alula("--help")
    assert result.code == 0
    for name in (*COMMANDS, "train", "export", "card"):
        assert f"\n  {name} " in result.out
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("name", [*COMMANDS, "train", "export", "card"])
def test_each_command_has_help(alula, name):
    result = alula(name, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: alula {name}")
    assert result.err == ""


def test_the_version(alula):
    assert alula("--version").out == f"alula, version {version('alula')}\n"
    assert package.__version__ == version("alula")


@pytest.mark.parametrize("module", ["alula", "alula.cli"])
def test_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"alula, version {version('alula')}\n"


def test_no_command_shows_the_help_as_wrong_usage(alula):
    result = alula()
    assert result.code == 2
    assert "Commands:" in result.err


def test_wrong_usage(fails, drq):
    fails(2, ["sarch"], "'sarch'", "Did you mean 'search'?", "alula --help")
    fails(2, ["nonsense"], "No such command 'nonsense'. See 'alula --help'.")
    fails(2, ["describe", "w"], "--uri", "alula describe --help")
    fails(2, ["describe", "--uri", "x.db"], "NAME")
    fails(2, ["describe", "w", "--uri", "x.db", "--nonsense"], "--nonsense")
    fails(2, ["search", "w", "--uri", "x.db", "--encoder", drq, "--limit", "many"], "--limit")


def test_debug_shows_the_traceback_in_any_place(alula, drq):
    result = alula("inspect", "--debug", drq.parent / "nothing.db")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    "uri", ["localhost:19530", "./words", "http://", "http://host:abc", "http://host:99999", "ftp://host", "", "db"]
)
def test_what_is_no_address(fails, uri):
    fails(2, ["describe", "w", "--uri", uri], "is not a Milvus address", ".db")


def test_no_server(fails):
    fails(
        1, ["describe", "w", "--uri", "http://127.0.0.1:1", "--timeout", "2"], "127.0.0.1:1", "check that Milvus runs"
    )
    fails(1, ["doctor", "--uri", "http://nowhere.invalid:19530", "--timeout", "2"], "nowhere.invalid")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_silent_port_does_not_hang(fails, scheme):
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        uri = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        fails(1, ["describe", "w", "--uri", uri, "--timeout", "1"], "does not answer")


@pytest.fixture
def apart():
    """As ``fails``, in a process of its own: pymilvus shares one process's connections to one address."""

    def call(code, args, *words) -> None:
        check_failure(finish(start(*args)), code, *words)

    return call


def test_tls_to_a_plain_server(apart, milvus_server):
    uri = milvus_server.uri.replace("http:", "https:")
    apart(1, ["describe", "w", "--uri", uri, "--timeout", "3"], "does not speak TLS", "http://")


def test_plain_to_a_tls_server(apart, milvus_server_with_auth):
    uri = milvus_server_with_auth.uri.replace("https:", "http:")
    apart(1, ["describe", "w", "--uri", uri, "--timeout", "3"], "https://", "--ca-file")


def test_logins(apart, milvus_server_with_auth, monkeypatch, tmp_path):
    server = milvus_server_with_auth
    at = ["describe", "nothing", "--uri", server.uri, "--timeout", "3"]
    trusted = [*at, "--ca-file", server.ca_file]
    for wrong in (["--user", "root", "--password", "wrong"], []):
        apart(1, [*trusted, *wrong], "refused the login", "--password")
    apart(1, [*at, "--user", "root", "--password", server.password], "certificate", "--ca-file")
    (tmp_path / "ca.pem").write_text("no certificate")
    apart(2, [*at, "--ca-file", tmp_path / "ca.pem"], "contains no certificate")
    apart(2, [*at, "--ca-file", tmp_path / "nothing.pem"], "nothing.pem", "does not exist")
    monkeypatch.setenv("ALULA_PASSWORD", server.password)
    monkeypatch.setenv("ALULA_USER", server.user)
    apart(2, trusted, "There is no collection 'nothing'")
    apart(1, [*trusted, "--database", "nowhere"], "nowhere", "--database")


def test_a_user_without_rights(apart, milvus_server_with_auth, drq):
    server = milvus_server_with_auth
    root = server.client()
    if "guest" not in root.list_users():
        root.create_user("guest", "Guest123")
    at = ["--uri", server.uri, "--ca-file", server.ca_file, "--user", "guest", "--password", "Guest123"]
    apart(1, ["doctor", *at], "rights to create")
    apart(1, ["create", "w", "--index-type", "DRQ", "--encoder", drq, *at], "rights to create")
    assert "w" not in root.list_collections()
    # another worker may probe the same server, and drops its probes; those of a guest would stay
    wait_until(lambda: not [name for name in root.list_collections() if name.startswith("alula_probe")], "no probes")


def test_files_that_are_no_database(fails, tmp_path):
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("this is not a database at all")
    for name in ("folder.db", "text.db"):
        fails(2, ["describe", "w", "--uri", tmp_path / name], "is not a Milvus Lite 2.5 database")
    fails(2, ["describe", "w", "--uri", tmp_path / "typo.db"], "There is no database", "alula create")
    fails(2, ["describe", "w", "--uri", tmp_path / "no" / "x.db"], "There is no folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.db", "text.db"]
    assert (tmp_path / "text.db").read_text() == "this is not a database at all"


def test_a_reader_that_goes_away(drq):
    process = start("inspect", drq, "--format", "json")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_a_full_disk():
    with Path("/dev/full").open("w") as full:
        check_failure(finish(start("index-types", stdout=full)), 1, "no space left")


def test_closed_streams(in_lite):
    command = 'exec "$0" -m alula.cli describe "$1" --uri "$2" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, in_lite.name, in_lite.uri], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_without_streams_opens_a_database(in_lite):
    # both descriptors are free until the database is opened, whatever else was opened before
    program = """
import os, sys
from alula.milvus.connection import connect
os.close(1), os.close(2)
try:
    connect(sys.argv[1])
except OSError:
    os._exit(3)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program, in_lite.uri], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_options_from_the_environment(alula, in_lite, monkeypatch):
    monkeypatch.setenv("ALULA_URI", in_lite.uri)
    monkeypatch.setenv("ALULA_ENCODER", in_lite.encoder)
    result = alula("search", in_lite.name, "--id", "it's", "--format", "json")
    assert result.code == 0
    assert len(json.loads(result.out)["hits"]) == 10
