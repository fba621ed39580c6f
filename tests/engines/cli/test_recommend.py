"""``alula recommend``: what it shows and writes, what it leaves behind, and every way to ask wrongly."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from alula.evaluation.native import PREFIX
from alula.evaluation.native_types import FAISS, NATIVE
from tests.fixtures.command_line import finish, start
from tests.tiny_encoders import random_vectors, write_drq
from tests.waiting import wait_until

QUICK = ["--k", "5", "--target", "recall=0.9", "--seconds", "2", "--build-timeout", "5"]


@pytest.fixture
def rows(tmp_path) -> Path:
    np.save(tmp_path / "rows.npy", random_vectors(800))
    return tmp_path / "rows.npy"


def test_without_a_server_or_an_encoder(starts_engine, alula, rows, tmp_path):
    result = alula("recommend", "rows.npy", *QUICK, "--output", "figures.json", "--report", "page.html")
    assert (result.code, result.err) == (0, ""), result
    for words in (
        "800 rows x 8, COSINE, at Milvus Lite",
        "measured on 720 of them, with 80 other rows of rows.npy",
        "alula train drq rows.npy",
        "Not measured: HNSW. Milvus could not make a collection with HNSW",
        "720 sample rows",
        "name a server",
        "Written: figures.json",
    ):
        assert words in " ".join(result.out.split())
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["taken"] in ("FLAT", "IVF_FLAT")
    assert result.out.splitlines()[-1] == figures["reason"]
    assert {one["name"] for one in figures["contenders"]} == {"FLAT", "IVF_FLAT"}
    assert set(figures["refused"]) == {*NATIVE} - {FAISS, "FLAT", "IVF_FLAT"}
    page = (tmp_path / "page.html").read_text()
    assert figures["reason"].replace("'", "&#39;") in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "page.html", "rows.npy"]


def test_json_with_encoders_and_queries(starts_engine, alula, rows, drq, flops, tmp_path):
    np.save(tmp_path / "asked.npy", random_vectors(40, seed=5))
    encoders = ["--encoder", drq, "--encoder", flops, "--queries", "asked.npy"]
    result = alula(
        "recommend", "rows.npy", *QUICK, *encoders, "--sample-rows", "500", "--rows", "9000000", "--format", "json"
    )
    assert (result.code, result.err) == (0, ""), result
    (figures,) = result.json
    assert (figures["rows"], figures["file_rows"], figures["sample_rows"]) == (9_000_000, 800, 500)
    assert (figures["queries"], figures["queries_from"]) == (40, "asked.npy, 40 queries")
    names = {one["name"] for one in figures["contenders"]}
    learned = {"DRQ (drq), vectors kept", "DRQ (drq), vectors dropped", "FLOPS_SPARSE (flops), vectors kept"}
    assert names == {"FLAT", "IVF_FLAT", *learned}
    assert figures["prospects"] == []


def test_a_server_is_left_as_it_was(alula, in_database, database):
    # with no time to build DISKANN is given up at once: this server takes it, and never builds it
    np.save("many.npy", random_vectors(1300))
    result = alula("recommend", "many.npy", *QUICK, "--build-timeout", "0", "--output", "figures.json", *in_database)
    assert result.code == 0, result
    refused = json.loads(Path("figures.json").read_text())["refused"]
    assert "not built the index in 0 seconds" in refused["DISKANN"]
    assert "raise --build-timeout" in refused["DISKANN"]
    assert "raise --build-timeout" in " ".join(result.out.split())
    assert database.client.list_collections() == []


def test_wrong_ways_to_ask(starts_engine, fails, rows, drq, other_drq, tmp_path):
    np.save(tmp_path / "narrow.npy", random_vectors(100, 7))
    np.save(tmp_path / "few.npy", random_vectors(12, 8))
    write_drq(tmp_path / "l2.onnx", metric="L2")
    ask = ["recommend", "rows.npy"]
    fails(2, ["recommend"], "VECTORS")
    fails(2, ["recommend", "missing.npy"], "missing.npy")
    fails(2, [*ask, "--target", "recall=1.5"], "1.5", "between 0 and 1")
    fails(2, [*ask, "--target", "speed=1"], "recall=NUMBER")
    fails(2, [*ask, "--target", "recall=0.99999"], "800 rows, too few", "38,", "to show a recall of 0.99999")
    fails(2, [*ask, "--rows", "0"], "--rows")
    fails(2, [*ask, "--k", "900"], "800 rows", "--k")
    fails(2, ["recommend", "few.npy"], "12 rows, too few", "--k")
    fails(2, [*ask, "--queries", "few.npy"], "few.npy has 12 queries", "takes 30")
    fails(1, [*ask, "--queries", "narrow.npy"], "7")
    fails(1, ["recommend", "narrow.npy", "--encoder", drq], "drq.onnx takes vectors of 8 numbers", "have 7")
    fails(2, [*ask, "--encoder", drq, "--metric", "L2"], "COSINE, L2")
    fails(2, [*ask, "--encoder", drq, "--encoder", "l2.onnx"], "COSINE, L2")
    fails(2, [*ask, "--metric", "HAMMING"], "HAMMING")
    fails(2, [*ask, "--output", "missing/figures.json"], "missing")
    fails(2, [*ask, "--uri", "nowhere.db"], "nowhere.db")


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_interrupted_it_leaves_nothing_behind(request, engine, tmp_path):
    np.save(tmp_path / "rows.npy", random_vectors(20_000, 64))
    given = ["recommend", "rows.npy"]
    if engine == "server":
        database = request.getfixturevalue("database")
        given += request.getfixturevalue("in_database")
    else:
        request.getfixturevalue("starts_engine")
        (tmp_path / "temporary").mkdir()
    process = start(*given, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "temporary")})
    if engine == "server":
        wait_until(lambda: any(name.startswith(PREFIX) for name in database.client.list_collections()), "a collection")
    else:
        wait_until(lambda: list((tmp_path / "temporary").glob("alula-*/*.db")), "the embedded database")
    os.killpg(process.pid, signal.SIGINT)
    result = finish(process)
    assert (result.code, result.out) == (130, "")
    if engine == "server":
        assert database.client.list_collections() == []
    else:
        assert not list((tmp_path / "temporary").glob("alula-*"))
