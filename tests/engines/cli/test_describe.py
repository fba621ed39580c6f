"""``alula describe``."""

from __future__ import annotations

from tests.fixtures.command_line import ROWS


def test_table(alula, place):
    result = alula("describe", place.name, *place.at)
    assert (result.code, result.err) == (0, "")
    for words in (place.name, "DRQ, layout hamming", f"{ROWS}", "8 dimensions, COSINE", "id:VARCHAR", "year:INT64"):
        assert words in result.out


def test_json(alula, place):
    (about,) = alula("describe", place.name, *place.at, "--format", "json").json
    assert about["rows"] == ROWS
    assert about["settings"]["type"] == "DRQ"
    assert about["primary_key"]["name"] == "id"


def test_the_bytes_of_a_row(alula, place):
    (about,) = alula("describe", place.name, *place.at, "--format", "json").json
    memory, disk = about["cost"]["memory"], about["cost"]["disk"]
    kept = memory.pop("kept vectors")
    # 32 sign bits, and 8 floats that neither engine maps
    assert (memory, disk) == ({"drq sign": 4}, {})
    assert kept == 32 if place.embedded else kept > 32
    out = alula("describe", place.name, *place.at).out
    assert f"{4 + kept:.0f} bytes (drq sign 4" in out
    assert "HNSW" in out
    assert "IVF_SQ8 17 bytes" in out


def test_no_such_collection(fails, place):
    fails(2, ["describe", "missing", *place.at], "no collection 'missing'", f"{place.name}")


def test_a_collection_of_somebody_else(fails, milvus_server, collection_name):
    client = milvus_server.client()
    client.create_collection(collection_name, dimension=4)
    try:
        fails(2, ["describe", collection_name, "--uri", milvus_server.uri], "no Alula index type", "alula create")
    finally:
        client.drop_collection(collection_name)
