"""Loaders and servers that are killed while rows are written: the next load completes what is there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import alula as alula_library
from alula.milvus import any_of
from tests.fixtures.command_line import MANY, check_failure, created, finish, start, wait_for_rows
from tests.waiting import wait_until

JOURNAL = "alula-killed.journal"


@pytest.mark.parametrize("where", ["lite", "server", "server, import"])
def test_a_loader_that_is_killed(alula, where, drq, many, tmp_path, request, chance):
    """Killed at a random moment, twice, and gone on with: exactly the rows are there."""
    name = "killed"
    more = ["--resume", *(["--via", "import", "--stage", tmp_path / "stage"] if "import" in where else [])]
    uri = request.getfixturevalue("lite_uri") if where == "lite" else request.getfixturevalue("milvus_server").uri
    opened = created(alula, uri, name, drq, many)
    for _ in range(2):
        process = start("load", name, many, *opened, *more, cwd=tmp_path)
        wait_until(lambda process=process: Path(JOURNAL).exists() or process.poll() is not None, "the journal")
        time.sleep(chance.uniform(0, 1.5))  # the moment of the kill, which is what the test draws
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = alula("load", name, many, *opened, *more)
    assert (last.code, last.err) == (0, "")
    with alula_library.connect(uri) as server:
        rows = server.client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
        assert rows[0]["count(*)"] == MANY
        found = set()
        for i in range(0, MANY, 10_000):
            ids = any_of("id", [f"row {j}" for j in range(i, i + 10_000)])
            found |= {row["id"] for row in server.client.query(name, filter=ids, output_fields=["id"])}
        assert len(found) == MANY
        server.client.drop_collection(name)


def test_a_server_that_is_killed_and_comes_back(alula, own_server, drq, many, tmp_path):
    server = own_server()
    opened = created(alula, server.uri, "w", drq, many)
    process = start("load", "w", many, *opened, cwd=tmp_path)
    wait_for_rows(server.client(), "w")
    server.kill()
    server.start()
    done = finish(process)
    assert (done.code, done.err) == (0, "")
    assert f"w now contains {MANY:,}." in done.out


def test_a_server_that_stays_away(alula, own_server, drq, many, tmp_path):
    server = own_server()
    opened = created(alula, server.uri, "w", drq, many)
    process = start("load", "w", many, *opened, "--retry-timeout", "1", cwd=tmp_path)
    wait_for_rows(server.client(), "w")
    server.kill()
    check_failure(finish(process), 1, "Milvus could not", "acknowledged", "--resume")
    server.start()
    again = alula("load", "w", many, *opened, "--resume")
    assert (again.code, again.err) == (0, "")
    assert f"w now contains {MANY:,}." in again.out
