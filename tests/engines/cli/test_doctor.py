"""``alula doctor``: it tries things and leaves nothing behind."""

from __future__ import annotations

from pymilvus import MilvusClient


def test_milvus(alula, database, in_database):
    result = alula("doctor", *in_database)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Milvus 2.3.5")
    assert "DRQ: yes, layout hamming" in result.out
    assert "FLOPS_SPARSE: no: " in result.out
    assert database.client.list_collections() == []


def test_milvus_lite(alula, in_lite):
    (found,) = alula("doctor", *in_lite.at, "--format", "json").json
    assert found["sparse_index"] is True
    assert found["binary_indexes"] == ["BIN_FLAT"]
    assert found["reasons"]["BIN_IVF_FLAT"][-1].isalnum()
    client = MilvusClient(in_lite.uri)
    assert client.list_collections() == [in_lite.name]
    client.close()


def test_rows_of_an_encoder(alula, in_server, in_lite, drq, flops):
    own = alula("doctor", *in_server.at).out
    # a byte for each dimension and an id of 8, rounded up by the allocator
    assert "768 dimensions: HNSW" in own
    assert "IVF_SQ8 846 bytes" in own
    for place in (in_server, in_lite):
        out = alula("doctor", *place.at, "--encoder", drq).out
        assert "drq sign 4, kept vectors" in out
        assert "--drop-vectors" in out
        (found,) = alula("doctor", *place.at, "--encoder", drq, "--format", "json").json
        assert found["row"]["memory"]["drq sign"] == 4
    assert "cannot index sparse vectors" in alula("doctor", *in_server.at, "--encoder", flops).out
    (found,) = alula("doctor", *in_server.at, "--encoder", flops, "--format", "json").json
    assert "sparse" in found["row"]["reason"]


def test_no_server(fails):
    fails(1, ["doctor", "--uri", "http://127.0.0.1:1", "--timeout", "2"], "Nothing can be reached")
    fails(2, ["doctor"], "--uri")


def test_milvus_lite_before_there_is_a_database(starts_engine, alula, tmp_path):
    result = alula("doctor", "--uri", tmp_path / "new.db")
    assert (result.code, result.err) == (0, "")
    assert "DRQ: yes, layout hamming" in result.out
    assert list(tmp_path.iterdir()) == []
