"""The command line, called in process; and one small collection, loaded once in each of the real engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.cli import main
from tests.engines import AWKWARD_IDS
from tests.servers.lite import LiteDatabase
from tests.tiny_encoders import random_vectors, write_drq, write_flops

ROWS = 200


@dataclass(frozen=True)
class Result:
    """What one call of the command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Place:
    """Where a loaded collection is."""

    uri: str
    name: str
    encoder: str
    embedded: bool

    @property
    def at(self) -> list[str]:
        return ["--uri", self.uri]

    @property
    def opened(self) -> list[str]:
        return [*self.at, "--encoder", self.encoder]


def check_failure(result: Result, code: int, *words: str) -> None:
    """One sentence on standard error that holds these words, the exit code, and nothing on standard output."""
    assert result.code == code, result
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith("Error: ")
    assert result.err.rstrip()[-1] in ".'", result.err
    assert "unexpected" not in result.err
    for word in words:
        assert word in result.err
    assert result.out == ""


@pytest.fixture
def alula(capfd, monkeypatch, tmp_path):
    """``alula("search", ...)``: a `Result`; what child processes print is caught too, and files lie in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("ALULA_"):
            monkeypatch.delenv(name)

    def call(*args) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(arg) for arg in args])
        return Result(stopped.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def fails(alula):
    """``fails(2, ["search", ...], "a word")``: the call fails with that code and one sentence that holds the words."""

    def call(code, args, *words) -> None:
        check_failure(alula(*args), code, *words)

    return call


def start(*args, **options) -> subprocess.Popen:
    """The command as a process of its own, in its own process group, that heeds Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "alula.cli", *map(str, args)],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        **options,
    )


def finish(process: subprocess.Popen) -> Result:
    out, err = process.communicate(timeout=100)
    return Result(process.returncode, out or "", err)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def drq(folder) -> Path:
    return write_drq(folder / "drq.onnx").path


@pytest.fixture(scope="session")
def other_drq(folder) -> Path:
    return write_drq(folder / "other.onnx", seed=1).path


@pytest.fixture(scope="session")
def flops(folder) -> Path:
    return write_flops(folder / "flops.onnx").path


def write_rows(path: Path, rows: int, *, seed: int = 0, dim: int = 8, ids: list | None = None) -> Path:
    """A Parquet file of rows with ids, years and vectors."""
    ids = [f"row {i}" for i in range(rows)] if ids is None else ids
    vectors = random_vectors(rows, dim, seed=seed)
    years = pa.array(np.arange(rows) % 100 + 1900)
    pq.write_table(pa.table({"id": ids, "year": years, "embedding": list(vectors)}), path)
    return path


@pytest.fixture(scope="session")
def rows_file(folder) -> Path:
    """`ROWS` rows, the first with awkward ids."""
    ids = AWKWARD_IDS + [f"row {i}" for i in range(len(AWKWARD_IDS), ROWS)]
    return write_rows(folder / "rows.parquet", ROWS, ids=ids)


def fill(uri: str, name: str, encoder: Path, file: Path) -> None:
    at = ["--uri", uri, "--encoder", str(encoder)]
    journal = ["--journal", str(encoder.with_name("fill.journal"))]
    create = ["create", name, "--index-type", "DRQ", "--like", str(file), *at]
    for args in (create, ["load", name, str(file), *at, *journal]):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 0


@pytest.fixture(scope="session")
def in_lite(drq, rows_file):
    with LiteDatabase() as database:
        fill(database.uri, "rows", drq, rows_file)
        yield Place(database.uri, "rows", str(drq), True)


@pytest.fixture(scope="session")
def in_server(milvus_server, drq, rows_file):
    fill(milvus_server.uri, "cli_rows", drq, rows_file)
    yield Place(milvus_server.uri, "cli_rows", str(drq), False)
    milvus_server.client().drop_collection("cli_rows")


@pytest.fixture(params=["lite", "server"])
def place(request) -> Place:
    """A loaded collection, in each engine."""
    return request.getfixturevalue(f"in_{request.param}")
