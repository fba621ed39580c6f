"""``alula evaluate``: what it shows and writes, what it leaves behind, and every way to ask wrongly."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from alula.evaluation.native import PREFIX
from tests.fixtures.command_line import ROWS, fill, finish, start, write_rows
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors
from tests.waiting import wait_until

QUICK = ["--sample", "20", "--seconds", "0.05", "--clients", "2"]


@pytest.fixture
def evaluate(place):
    return lambda *args: ["evaluate", place.name, *place.opened, *QUICK, *args]


@pytest.fixture
def refused(in_lite):
    return lambda *args: ["evaluate", in_lite.name, *in_lite.opened, *QUICK, *args]


def test_a_collection(alula, evaluate, tmp_path):
    result = alula(*evaluate("--candidates", "15,100", "--output", "figures.json", "--report", "page.html"))
    assert (result.code, result.err) == (0, ""), result
    for words in ("DRQ hamming", "candidates 15", "candidates 100", "recall@10", "p50", "QPS", "drq sign"):
        assert words in result.out
    figures = json.loads((tmp_path / "figures.json").read_text())
    (subject,) = figures["subjects"]
    assert [point["settings"] for point in subject["points"]] == [{"candidates": 15}, {"candidates": 100}]
    assert (figures["rows"], figures["k"], figures["queries"]) == (ROWS, 10, 20)
    assert subject["points"][0]["recall"]["value"] <= subject["points"][1]["recall"]["value"]
    assert figures["samples"][0]["true"][0]["columns"].keys() == {"year"}
    page = (tmp_path / "page.html").read_text()
    assert "candidates 100" in page
    assert "Neighbours" in page


def test_json_of_queries_against_brute_force(alula, refused, tmp_path):
    queries = random_vectors(12, seed=5)
    np.save(tmp_path / "q.npy", queries)
    all_rows = ["--queries", "q.npy", "--candidates", str(ROWS), "--rerank", "all,0", "--k", "5"]
    result = alula(*refused(*all_rows, "--format", "json"))
    assert (result.code, result.err) == (0, "")
    (figures,) = result.json
    (subject,) = figures["subjects"]
    exact, by_signs = subject["points"]
    assert (exact["settings"], exact["recall"]["value"]) == ({"candidates": ROWS}, 1.0)
    assert by_signs["settings"]["rerank"] == 0
    assert by_signs["recall"]["value"] < 1.0
    vectors = random_vectors(ROWS, 8)
    shown = figures["samples"][0]
    number = int(shown["query"].removeprefix("query "))
    ids = [key["key"] for key in shown["true"]]
    ranked = best(scores(queries[number], vectors, "COSINE"), 5, "COSINE")
    assert [id_ for id_ in ids if id_.startswith("row ")] == [f"row {i}" for i in ranked if i >= 10]


def test_index_types_on_vectors_without_a_server(starts_engine, alula, drq, flops, tmp_path):
    np.save(tmp_path / "rows.npy", random_vectors(300))
    rivals = ["--compare", "FLAT,HNSW", "--compare", "FAISS:IVF4,PQ4", "--compare", "FAISS:HNSW8,Flat"]
    encoders = ["--encoder", drq, "--encoder", flops, *rivals, "--candidates", "20,100"]
    result = alula("evaluate", "--vectors", "rows.npy", *encoders, *QUICK, "--output", "figures.json")
    assert (result.code, result.err) == (0, ""), result
    figures = json.loads((tmp_path / "figures.json").read_text())
    names = [subject["name"] for subject in figures["subjects"]]
    assert names == ["DRQ hamming (drq)", "DRQ adc (drq)", "FLOPS_SPARSE (flops)", "FLAT"]
    assert figures["subjects"][-1]["points"][0]["recall"]["value"] == 1.0
    strings = [f"FAISS faiss_index_name={string}" for string in ("IVF4,PQ4", "HNSW8,Flat")]
    assert list(figures["refused"]) == ["HNSW", *strings]
    assert all("local mode only" in reason for reason in figures["refused"].values())
    assert "Not measured: HNSW" in result.out
    assert len(list(tmp_path.glob("rows.npy.*.truth.npz"))) == 1


def test_equal_rows_are_as_good_as_each_other(starts_engine, alula, drq, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((120, 8), np.float32))
    given = ["--encoder", drq, "--compare", "FLAT", "--candidates", "20", "--format", "json"]
    result = alula("evaluate", "--vectors", "rows.npy", *given, *QUICK)
    assert (result.code, result.err) == (0, ""), result
    recalls = [point["recall"]["value"] for subject in result.json[0]["subjects"] for point in subject["points"]]
    assert len(recalls) >= 3
    assert set(recalls) == {1.0}


def test_the_rows_of_a_collection_in_milvus_own_index(alula, evaluate, place):
    result = alula(*evaluate("--compare", "FLAT", "--candidates", "20", "--format", "json"))
    assert (result.code, result.err) == (0, "")
    (figures,) = result.json
    assert [subject["name"] for subject in figures["subjects"]] == ["DRQ hamming", "FLAT"]
    assert figures["subjects"][1]["points"][0]["recall"]["value"] == 1.0


def test_a_collection_without_vectors(alula, fails, in_lite, drq, rows_file, tmp_path):
    name = "bare"
    at = ["--uri", in_lite.uri, "--encoder", drq]
    assert alula("create", name, "--index-type", "DRQ", "--like", rows_file, "--drop-vectors", *at).code == 0
    assert alula("load", name, rows_file, *at).code == 0
    fails(2, ["evaluate", name, *at, *QUICK], "keeps no vectors", "--vectors", "--truth")
    found = alula("evaluate", name, *at, *QUICK, "--vectors", rows_file, "--candidates", "200", "--format", "json")
    assert found.code == 0, found
    np.save(tmp_path / "q.npy", random_vectors(9, seed=3))
    truth = [[f"row {i}" for i in range(20, 30)]] * 9
    np.save(tmp_path / "truth.npy", np.array(truth))
    given = ["--queries", "q.npy", "--truth", "truth.npy", "--candidates", "200"]
    found = alula("evaluate", name, *at, *QUICK, *given, "--format", "json")
    assert found.code == 0, found
    assert found.json[0]["samples"][0]["true"][0]["key"] == "row 20"
    assert alula("drop", name, "--uri", in_lite.uri, "--yes").code == 0


def test_wrong_ways_to_ask(fails, refused, in_lite, drq, other_drq, tmp_path):
    np.save(tmp_path / "narrow.npy", random_vectors(5, 7))
    np.save(tmp_path / "five.npy", random_vectors(5, 8))
    at = ["--uri", in_lite.uri]
    fails(2, ["evaluate"], "--vectors")
    fails(2, ["evaluate", "rows"], "--uri")
    fails(2, ["evaluate", "rows", *at], "--encoder")
    fails(2, ["evaluate", "nothing", *in_lite.opened], "nothing", "rows")
    fails(1, ["evaluate", "rows", *at, "--encoder", other_drq], "created with the encoder")
    fails(2, refused("--encoder", other_drq), "no other")
    fails(2, refused("--k", "500"), "--k")
    fails(2, refused("--k", "0"), "--k")
    fails(2, refused("--sample", "5000"), "--sample")
    fails(1, refused("--queries", "narrow.npy"), "7")
    np.save(tmp_path / "numbers.npy", np.ones((5, 10), int))
    fails(1, refused("--queries", "five.npy", "--truth", "numbers.npy"), "contains integers", "strings")
    fails(2, refused("--candidates", "many"), "--candidates", "many")
    fails(2, refused("--candidates", "0"), "candidates")
    fails(2, refused("--terms", "3"), "terms")
    fails(2, refused("--bits", "20"), "bits")
    fails(2, refused("--metric", "L2"), "--metric")
    fails(2, refused("--layout", "hamming"), "--layout")
    fails(2, refused("--output", "missing/figures.json"), "missing", "figures.json")
    fails(2, refused("--report", "missing/page.html"), "missing", "page.html")
    fails(2, refused("--compare", "ANNOY"), "ANNOY", "HNSW")
    fails(2, refused("--compare", "HNSW:M=many"), "HNSW:M=32")
    fails(2, refused("--compare", "IVF_FLAT:nlist=0"), "nlist=0", "from 1 on")
    fails(2, refused("--compare", "HNSW", "--compare", "FAISS"), "factory string", "FAISS:IVF1024,PQ48x4fs")
    fails(2, ["evaluate", "--vectors", "missing.npy"], "missing.npy")
    fails(2, ["evaluate", "--vectors", "five.npy", "--sample", "2", "--metric", "HAMMING"], "HAMMING")
    fails(2, ["evaluate", "--vectors", "five.npy", "--sample", "2"], "--k")
    fails(2, ["evaluate", "--vectors", "five.npy", "--encoder", drq, "--metric", "L2", "--sample", "2"], "metric")
    fails(2, ["evaluate", "--vectors", "five.npy", "--encoder", drq, "--layout", "x", "--sample", "2", "--k", "2"], "x")


def test_a_report_without_its_extra(fails, refused, monkeypatch):
    monkeypatch.delitem(sys.modules, "alula.evaluation.report", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    fails(1, refused("--report", "page.html"), "jinja2", "pip install 'alula[report]'")


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_interrupted_it_leaves_nothing_behind(request, engine, milvus_server, drq, tmp_path):
    np.save(tmp_path / "rows.npy", random_vectors(3000))
    uri = milvus_server.uri if engine == "server" else str(tmp_path / "stopped.db")
    if engine == "lite":
        fill(uri, "other", drq, write_rows(tmp_path / "few.parquet", 30))
        release(uri)
    args = ["evaluate", "--vectors", tmp_path / "rows.npy", "--uri", uri, "--compare", "FLAT", "--clients", "2"]
    process = start(*args, "--seconds", "60", "--sample", "100", cwd=tmp_path)
    if engine == "server":
        wait_until(lambda: temporary(milvus_server.client()), "a collection of the evaluation")
    else:  # another process cannot look into the database
        wait_until(lambda: list(tmp_path.glob("*.truth.npz")), "the true neighbours")
        size = Path(uri).stat().st_size
        wait_until(lambda: Path(uri).stat().st_size > size, "rows in the database")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the embedded engine hears it too
    result = finish(process)
    assert (result.code, result.out) == (130, "")
    client = milvus_server.client() if engine == "server" else connected(uri)
    assert temporary(client) == []
    client.close()
    if engine == "lite":
        release(uri)


def temporary(client):
    return [name for name in client.list_collections() if name.startswith(PREFIX)]


def connected(uri):
    from pymilvus import MilvusClient

    return MilvusClient(uri)


def release(uri):
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)
