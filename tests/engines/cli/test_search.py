"""``alula search``: what it shows, and every way to ask wrongly."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from tests.fixtures.command_line import ROWS
from tests.small_collections import AWKWARD_IDS

ONES = json.dumps([1.0] * 8)


@pytest.fixture
def search(place):
    """Arguments of a search in the loaded collection."""
    return lambda *args: ["search", place.name, *place.opened, *args]


@pytest.fixture
def refused(in_server):
    """The same for what the client refuses, in one engine."""
    return lambda *args: ["search", in_server.name, *in_server.opened, *args]


def hits(alula, args):
    result = alula(*args, "--format", "json")
    assert (result.code, result.err) == (0, ""), result
    return [line["hits"] for line in result.json]


def test_table(alula, search):
    result = alula(*search("--id", "row 50", "--limit", "3", "-o", "year"))
    assert (result.code, result.err) == (0, "")
    assert "COSINE" in result.out
    assert "year" in result.out


def test_awkward_ids(alula, search):
    for id_ in AWKWARD_IDS:
        (found,) = hits(alula, search("--id", id_, "--limit", str(ROWS - 1)))
        assert {hit["id"] for hit in found} >= set(AWKWARD_IDS) - {id_}
        assert id_ not in {hit["id"] for hit in found}


def test_pages_of_rows_like_one(alula, search):
    (whole,) = hits(alula, search("--id", "row 50", "--limit", "10"))
    pages = [hits(alula, search("--id", "row 50", "--limit", "5", "--offset", str(n)))[0] for n in (0, 5)]
    assert [hit["id"] for page in pages for hit in page] == [hit["id"] for hit in whole]


def test_vectors_from_everywhere(alula, search, tmp_path, monkeypatch):
    np.save(tmp_path / "q.npy", np.ones((3, 8), np.float32))
    (expected,) = hits(alula, search("--vector", ONES, "--limit", "3"))
    monkeypatch.setattr("sys.stdin", io.StringIO(ONES + "\n"))
    assert hits(alula, search("--vector", "-", "--limit", "3")) == [expected]
    found = hits(alula, search("--vectors", tmp_path / "q.npy", "--limit", "3"))
    assert [[hit["id"] for hit in some] for some in found] == [[hit["id"] for hit in expected]] * 3


def test_every_field_is_json(alula, search):
    fields = ["id", "year", "embedding", "embedding__drq_sign"]
    (found,) = hits(alula, search("--vector", ONES, "--limit", "2", *(word for f in fields for word in ("-o", f))))
    assert set(found[0]["fields"]) == set(fields)


def test_vectors_that_cannot_be_searched(fails, refused, tmp_path, monkeypatch):
    for text, *words in (
        ("[1, 2", "JSON list"),
        ('{"a": 1}', "JSON list"),
        ("", "JSON list"),
        ('["a"]', "JSON list"),
        ("[[1], [2, 3]]", "JSON list"),
        ("[" * 5000, "JSON list"),
    ):
        fails(2, refused("--vector", text), *words)
    for text, *words in (
        ("[]", "dimension"),
        ("[1, 2]", "dimension 2", "takes 8"),
        (ONES.replace("1.0]", "NaN]"), "NaN or infinite"),
        (ONES.replace("1.0]", "1e300]"), "NaN or infinite"),
    ):
        fails(1, refused("--vector", text), *words)
    np.save(tmp_path / "wide.npy", np.ones((2, 9), np.float32))
    fails(1, refused("--vectors", tmp_path / "wide.npy"), "dimension 9", "takes 8")
    (tmp_path / "empty.npy").touch()
    fails(1, refused("--vectors", tmp_path / "empty.npy"), "empty.npy", "is empty")
    monkeypatch.setattr("sys.stdin", None)
    fails(2, refused("--vector", "-"), "JSON list")


def test_what_to_search_for(fails, refused):
    fails(2, refused(), "one of --id, --vector, --vectors, --text, --texts or --images")
    fails(2, refused("--id", "a", "--vector", ONES), "one of --id, --vector, --vectors, --text, --texts or --images")
    fails(2, refused("--id", "nobody"), "no row with the id 'nobody'")


def test_filters_that_do_not_parse(fails, search):
    for bad in ("year >", "yaer > 3", 'year > "x"', 'id == "x', "id like 5", "year in", "((("):
        fails(2, search("--vector", ONES, "--filter", bad), "filter", repr(bad), "heck field names")
    for bad in ("year = 1907", "id != '=' and year=1907"):
        fails(2, search("--vector", ONES, "--filter", bad), "filter", bad, "Write == to compare.")


def test_filters_of_awkward_ids(alula, search):
    from alula.milvus import any_of

    (found,) = hits(alula, search("--vector", ONES, "--limit", "20", "--filter", any_of("id", AWKWARD_IDS)))
    assert {hit["id"] for hit in found} == set(AWKWARD_IDS)


def test_limits(fails, refused):
    for args, *words in (
        (["--limit", "0"], "limit is 0", "at least 1"),
        (["--limit", "16385"], "16384"),
        (["--limit", "10", "--offset", "16380"], "16390", "16384"),
        (["--offset", "-1"], "offset is -1"),
        (["--candidates", "16385"], "16384"),
        (["--bits", "16"], "bits is 16", "stores no codes", "Leave --bits out"),
        (["--oversample", "2000"], "oversample is 2000", "16,384"),
        (["--terms", "4"], "no option terms", "bits"),
    ):
        fails(2, refused("--vector", ONES, *args), *words)
    fails(2, refused("--id", "row 50", "--limit", "0"), "at least 1")
    fails(2, refused("--id", "row 50", "--limit", "16384"), "16383")


def test_fewer_candidates_than_results(alula, search):
    result = alula(*search("--vector", ONES, "--limit", "20", "--candidates", "10", "--format", "json"))
    assert len(result.json[0]["hits"]) == 20
    assert result.err == "--candidates 10 is below --limit 20; more candidates are taken.\n"


def test_names_that_are_not_there(fails, search, place, other_drq):
    fails(2, search("--vector", ONES, "-o", "colour"), "no field 'colour'", "id, year, embedding")
    fails(2, search("--vector", ONES, "--partition", "nowhere"), "partition")
    fails(2, ["search", "missing", "--id", "1", *place.opened], "no collection 'missing'", place.name)
    fails(1, ["search", place.name, "--id", "1", *place.at, "--encoder", other_drq], "was created with the encoder")


def test_whole_number_ids(alula, fails, lite_uri, drq):
    at = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", *at).code == 0
    for wrong in ("cat", "1.5", str(2**63), ""):
        fails(2, ["search", "w", "--id", wrong, *at], "whole numbers", repr(wrong))
    assert alula("search", "w", "--vector", ONES, *at).out == "The search: no row matches.\n"


def test_a_misspelt_database_is_not_made(fails, tmp_path, drq):
    fails(2, ["search", "w", "--id", "1", "--uri", tmp_path / "typo.db", "--encoder", drq], "no database", "typo.db")
    assert list(tmp_path.iterdir()) == []


def test_a_very_long_id(alula, lite_uri, drq, tmp_path):
    from tests.fixtures.command_line import write_rows

    long = "é😀" * 10_000
    file = write_rows(tmp_path / "r.parquet", 3, ids=[long, "b", "c"])
    at = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", "--like", file, *at).code == 0
    assert alula("load", "w", file, *at).code == 0
    assert len(hits(alula, ["search", "w", "--id", long, *at])[0]) == 2
