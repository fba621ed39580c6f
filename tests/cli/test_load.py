"""``alula load``: bad files write nothing; a load that broke off is completed by the next."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import ROWS, check_failure, finish, start, write_rows
from tests.servers.standalone import MilvusStandalone

MANY = 40_000


def vectors(rows=3, dim=8):
    return np.random.default_rng(5).standard_normal((rows, dim)).astype(np.float32)


def json_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def count(alula, place) -> int:
    (about,) = alula("describe", place.name, *place.at, "--format", "json").json
    return about["rows"]


def test_loads_rows(alula, lite_uri, drq, tmp_path):
    file = write_rows(tmp_path / "r.parquet", 50)
    opened = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", "--like", file, *opened).code == 0
    result = alula("load", "w", file, *opened)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Loaded 50 rows in ")
    assert result.out.endswith("w now holds 50.\n")
    again = alula("load", "w", file, *opened)
    assert "50 of them in place of rows with the same id. w now holds 50." in again.out


def test_rows_of_a_plain_array_are_numbered(alula, lite_uri, drq, tmp_path):
    opened = ["--uri", lite_uri, "--encoder", drq]
    np.save(tmp_path / "v.npy", vectors(20))
    assert alula("create", "w", "--index-type", "DRQ", *opened).code == 0
    assert "numbered from 0" in alula("load", "w", tmp_path / "v.npy", *opened).out


def test_files_that_cannot_be_read(alula, fails, in_server, rows_file, tmp_path):
    np.save(tmp_path / "good.npy", vectors())
    for name, content, word in (
        ("empty.npy", b"", "is empty"),
        ("empty.parquet", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("cut.npy", (tmp_path / "good.npy").read_bytes()[:140], "truncated"),
        ("cut.parquet", rows_file.read_bytes()[:-200], "truncated"),
        ("cut.jsonl", b'{"id": "a", "year": 1, "embedding": [1, 2', "truncated"),
        ("text.npy", b"these are no vectors", "not a .npy array"),
    ):
        (tmp_path / name).write_bytes(content)
        fails(1, ["load", in_server.name, tmp_path / name, *in_server.opened], name, word)
    (tmp_path / "rows.xml").write_text("<a/>")
    fails(2, ["load", in_server.name, tmp_path / "rows.xml", *in_server.opened], "rows.xml", ".parquet")
    fails(2, ["load", in_server.name, tmp_path / "none.npy", *in_server.opened], "none.npy", "does not exist")
    assert count(alula, in_server) == ROWS


def test_rows_that_cannot_be_loaded(alula, fails, in_server, tmp_path):
    good = {"id": "new", "year": 1, "embedding": [1.0] * 8}
    for code, change, *words in (
        (1, {"embedding": [1.0] * 7 + [float("nan")]}, "Row 1", "NaN"),
        (1, {"embedding": [1.0] * 7 + [float("inf")]}, "Row 1", "infinite"),
        (1, {"embedding": [1.0] * 5}, "Row 1", "a vector of length 5"),
        (1, {"embedding": None}, "Row 1", "no vector"),
        (1, {"id": "new"}, "Row 1", "'new'", "unique"),
        (1, {"id": None}, "Row 1", "'id'", "no value"),
        (1, {"year": None}, "Row 1", "'year'", "no value"),
    ):
        rows = json_lines(tmp_path / "r.jsonl", good, {**good, "id": "second", **change})
        fails(code, ["load", in_server.name, rows, *in_server.opened], *words)
    without = json_lines(tmp_path / "r.jsonl", {"id": "a", "embedding": [1.0] * 8})
    fails(1, ["load", in_server.name, without, *in_server.opened], "lacks the column 'year'")
    np.save(tmp_path / "v.npy", vectors())
    fails(1, ["load", in_server.name, tmp_path / "v.npy", *in_server.opened], "'id'", "string ids")
    wide = json_lines(tmp_path / "r.jsonl", {**good, "embedding": [1.0] * 9})
    fails(1, ["load", in_server.name, wide, *in_server.opened], "dimension 9", "takes 8")
    assert count(alula, in_server) == ROWS


def test_partitions(alula, fails, place, rows_file):
    words = ("no partitions",) if place.embedded else ("no partition 'nowhere'", "_default")
    fails(2, ["load", place.name, rows_file, "--partition", "nowhere", *place.opened], *words)
    assert count(alula, place) == ROWS


def test_wrong_encoder_and_collection(fails, in_server, rows_file, other_drq, flops):
    load = ["load", in_server.name, rows_file, *in_server.at, "--encoder"]
    fails(1, [*load, other_drq], "was created with the encoder", "other.onnx")
    fails(1, [*load, flops], "was created with the encoder")
    fails(2, ["load", "missing", rows_file, *in_server.opened], "no collection 'missing'", in_server.name)


def created(alula, uri, name, drq, file):
    opened = ["--uri", uri, "--encoder", drq]
    assert alula("create", name, "--index-type", "DRQ", "--like", file, *opened).code == 0
    return opened


def wait_for_rows(client, name, at_least=1):
    """Return when a load, in another process, has had some rows acknowledged."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        rows = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
        if rows >= at_least:
            return
    raise AssertionError("the load wrote nothing")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("many") / "many.parquet", MANY)


def test_ctrl_c_and_again(alula, milvus_server, drq, many):
    name = "cli_ctrl_c"
    client = milvus_server.client()
    try:
        opened = created(alula, milvus_server.uri, name, drq, many)
        process = start("load", name, many, *opened)
        wait_for_rows(client, name)
        os.killpg(process.pid, signal.SIGINT)
        stopped = finish(process)
        check_failure(stopped, 130, "Stopped.", f"of {MANY:,} rows were written", "load the file again")
        again = alula("load", name, many, *opened)
        assert (again.code, again.err) == (0, "")
        assert f"{name} now holds {MANY:,}." in again.out
    finally:
        client.drop_collection(name)


def test_ctrl_c_in_milvus_lite(alula, lite_uri, drq, many):
    opened = created(alula, lite_uri, "w", drq, many)
    process = start("load", "w", many, *opened, "--debug")
    size = Path(lite_uri).stat().st_size
    deadline = time.monotonic() + 60
    while Path(lite_uri).stat().st_size < size + 500_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    stopped = finish(process)
    assert stopped.code == 130
    assert "Error: Stopped. " in stopped.err.splitlines()[-1]
    again = alula("load", "w", many, *opened)
    assert (again.code, again.err) == (0, "")
    assert f"w now holds {MANY:,}." in again.out


def test_a_server_that_is_killed(alula, drq, many):
    with MilvusStandalone() as server:
        opened = created(alula, server.uri, "w", drq, many)
        process = start("load", "w", many, *opened)
        wait_for_rows(server.client(), "w")
        server.kill()
        check_failure(finish(process), 1, "rows were written", "load the file again")
        server.start()
        again = alula("load", "w", many, *opened)
        assert (again.code, again.err) == (0, "")
        assert f"w now holds {MANY:,}." in again.out
