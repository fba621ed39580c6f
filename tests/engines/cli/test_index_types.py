"""``alula index-types``."""

from __future__ import annotations


def test_lists_them(alula):
    result = alula("index-types")
    assert (result.code, result.err) == (0, "")
    assert "DRQ" in result.out
    assert "FLOPS_SPARSE" in result.out
    names = {line["name"]: line for line in alula("index-types", "--format", "json").json}
    assert names["DRQ"]["encoder"] == "drq"
    assert "server" not in names["DRQ"]


def test_says_what_a_server_holds(alula, in_server, in_lite):
    answers = {}
    for place in (in_server, in_lite):
        lines = alula("index-types", *place.at, "--format", "json").json
        answers[place.embedded] = {line["name"]: line["server"] for line in lines}
        assert alula("index-types", *place.at).code == 0
    assert answers[True]["FLOPS_SPARSE"] == "yes, inverted_index_algo TAAT_NAIVE"
    assert answers[False]["FLOPS_SPARSE"].startswith("no: Milvus 2.3.5")
    assert answers[False]["DRQ"].startswith("yes, layout hamming")


def test_no_server(fails):
    fails(1, ["index-types", "--uri", "http://127.0.0.1:1", "--timeout", "2"], "Nothing can be reached")
