"""``alula tune``: its choice is what searches use from then on, until it is taken back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.fixtures.command_line import Place
from tests.tiny_encoders import random_vectors

ONES = json.dumps([1.0] * 8)


@pytest.fixture
def tune(place: Place):
    return lambda *args: ["tune", place.name, *place.opened, *args]


@pytest.fixture
def refused(in_lite):
    return lambda *args: ["tune", in_lite.name, *in_lite.opened, *args]


def hits(alula, place, *args):
    result = alula("search", place.name, *place.opened, "--vector", ONES, "--format", "json", *args)
    assert result.code == 0, result
    return result.json[0]["hits"]


def test_the_choice_holds_for_searches_until_it_is_taken_back(alula, tune, place, tmp_path):
    before = hits(alula, place)
    # on a slow machine there would be progress
    quiet = ("--sample", "60", "--save", "choice.json", "--seconds", "20", "--quiet")
    result = alula(*tune("--target", "recall=0.5", *quiet))
    assert (result.code, result.err) == (0, ""), result
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert choice["kept"] == "stored"
    assert choice["held"]
    options = [word for name, value in choice["options"].items() for word in (f"--{name}", str(value))]
    assert "Stored" in result.out
    stored = {name: str(value) for name, value in choice["options"].items()}
    about = alula("describe", place.name, *place.at, "--format", "json").json[0]
    assert about["defaults"] == stored
    assert "alula tune" in alula("describe", place.name, *place.at).out
    assert hits(alula, place) == hits(alula, place, *options)
    # the defaults; Milvus Lite scores all of these candidates
    few = [] if place.embedded else ["--rerank", "100"]
    assert hits(alula, place, "--candidates", "300", *few) == before
    dry = alula("tune", place.name, *place.at, "--reset", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert all(f"{name} {value}" in dry.out for name, value in stored.items())
    assert "Nothing was removed" in dry.out
    assert alula("describe", place.name, *place.at, "--format", "json").json[0]["defaults"] == stored
    assert alula("tune", place.name, *place.at, "--reset").code == 0
    assert alula("describe", place.name, *place.at, "--format", "json").json[0]["defaults"] == {}
    assert hits(alula, place) == before
    assert "has no default" in alula("tune", place.name, *place.at, "--reset", "--dry-run").out
    assert "had none" in alula("tune", place.name, *place.at, "--reset").out


def test_a_dry_run_stores_nothing(alula, refused, in_lite):
    result = alula(*refused("--target", "recall=0.5", "--sample", "60", "--dry-run"))
    assert (result.code, result.err) == (0, "")
    assert "Nothing was stored" in result.out
    assert f"alula search {in_lite.name} --candidates" in result.out
    assert alula("describe", in_lite.name, *in_lite.at, "--format", "json").json[0]["defaults"] == {}


def test_a_target_out_of_reach_says_what_would_help(alula, in_lite, drq, rows_file):
    at = ["--uri", in_lite.uri, "--encoder", drq]
    assert alula("create", "bare", "--index-type", "DRQ", "--like", rows_file, "--drop-vectors", *at).code == 0
    assert alula("load", "bare", rows_file, *at).code == 0
    result = alula("tune", "bare", *at, "--target", "recall=0.99", "--vectors", rows_file, "--sample", "60")
    assert result.code == 1
    assert "No setting reaches recall@10 0.99: the best found" in result.err
    assert "--drop-vectors" in result.err
    assert "more than 32 bits" in result.err
    assert len(result.err.splitlines()) == 1
    assert alula("drop", "bare", "--uri", in_lite.uri, "--yes").code == 0


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(alula, fails, refused, in_lite, tmp_path):
    (tmp_path / "folder").mkdir()
    asked = refused("--target", "recall=0.5", "--sample", "60", "--save")
    fails(2, [*asked, "missing/choice.json"], "missing", "choice.json")
    fails(2, [*asked, "folder"], "directory")
    assert alula("describe", in_lite.name, *in_lite.at, "--format", "json").json[0]["defaults"] == {}


def test_wrong_ways_to_ask(fails, refused, in_lite, tmp_path):
    np.save(tmp_path / "narrow.npy", random_vectors(70, 7))
    fails(2, refused(), "--target")
    fails(2, ["tune", in_lite.name, *in_lite.at, "--target", "recall=0.9"], "--encoder")
    for target in ("recall=abc", "0.9", "speed=3", "recall="):
        fails(2, refused("--target", target), "recall=0.95")
    for target in ("recall=1.5", "recall=0", "recall=1", "recall=-1", "recall=inf"):
        fails(2, refused("--target", target), "between 0 and 1")
    fails(2, refused("--target", "recall=0.9", "--sample", "10"), "--sample")
    fails(2, refused("--target", "recall=0.99999", "--sample", "60"), "--sample")
    fails(2, refused("--target", "recall=0.9", "--sample", "101"), "--sample")  # 202 rows are not there
    fails(2, refused("--target", "recall=0.999"), "has 200 rows, too few", "--target", "--queries")
    fails(1, refused("--target", "recall=0.9", "--queries", "narrow.npy"), "7")
    np.save(tmp_path / "one.npy", random_vectors(1, 8))
    fails(2, refused("--target", "recall=0.9", "--queries", "one.npy"), "cannot show a recall@10", "--queries")
    fails(2, ["tune", "nothing", *in_lite.opened, "--target", "recall=0.9"], "nothing")
    fails(2, ["tune", "nothing", *in_lite.at, "--reset"], "nothing")
