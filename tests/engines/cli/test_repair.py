"""``alula repair``, after an index was dropped."""

from __future__ import annotations

from pymilvus import MilvusClient


def test_repair(alula, fails, lite_uri, drq, rows_file):
    at = ["--uri", lite_uri, "--encoder", drq]
    assert alula("create", "w", "--index-type", "DRQ", "--like", rows_file, *at).code == 0
    assert alula("load", "w", rows_file, *at).code == 0
    assert "has all its indexes" in alula("repair", "w", *at).out
    client = MilvusClient(lite_uri)
    client.release_collection("w")
    client.drop_index("w", "embedding__drq_sign")
    client.close()
    shown = alula("describe", "w", "--uri", lite_uri).out
    assert "lost indexes" in shown
    assert "embedding__drq_sign; 'alula repair w'" in shown
    fails(2, ["search", "w", "--id", "word 1", *at], "lost the index of embedding__drq_sign", "alula repair w")
    assert "Created the index of embedding__drq_sign again" in alula("repair", "w", *at).out
    assert alula("search", "w", "--vector", "[1,1,1,1,1,1,1,1]", *at).code == 0
    fails(2, ["repair", "nothing", *at], "no collection 'nothing'")
