"""``alula create``: what it makes, and that a failure leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from alula.cli import main
from tests.tiny_encoders import write_drq


@pytest.fixture
def new(starts_engine, tmp_path):
    """The path of a database that is not there yet."""
    return tmp_path / "new.db"


def test_creates_from_a_file(alula, new, drq, rows_file):
    result = alula("create", "w", "--uri", new, "--index-type", "DRQ", "--encoder", drq, "--like", rows_file)
    assert (result.code, result.err) == (0, "")
    assert "Created w with DRQ, layout hamming, metric COSINE" in result.out
    assert "id:VARCHAR(65535), year:INT64" in result.out
    assert f"alula load w {rows_file} --uri {new} --encoder {drq}" in result.out


def test_the_next_command_quotes_paths(starts_engine, alula, tmp_path, drq):
    folder = tmp_path / "my data"
    folder.mkdir()
    result = alula("create", "w", "--uri", folder / "w.db", "--index-type", "DRQ", "--encoder", drq)
    assert f"--uri '{folder / 'w.db'}'" in result.out


def test_a_failure_leaves_no_file(fails, new, drq, flops, rows_file, tmp_path):
    base = ["create", "w", "--uri", new, "--index-type", "DRQ", "--encoder"]
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "cut.onnx").write_bytes(drq.read_bytes()[:5000])
    for code, args, *words in (
        (1, [*base, flops], "'drq'", "'flops'", "alula train drq"),
        (1, [*base, tmp_path / "junk.onnx"], "junk.onnx", "not an ONNX file"),
        (1, [*base, tmp_path / "empty.onnx"], "empty.onnx", "empty"),
        (1, [*base, tmp_path / "cut.onnx"], "cut.onnx", "truncated"),
        (2, [*base, tmp_path / "nothing.onnx"], "nothing.onnx", "does not exist"),
        (2, [*base, drq, "--metric", "L2"], "COSINE", "--metric L2"),
        (2, [*base, drq, "--column", "a"], "'a'", "NAME:TYPE"),
        (2, [*base, drq, "--column", "a:TEXT"], "VARCHAR"),
        (2, [*base, drq, "--column", "a b:INT64"], "'a b'", "letters"),
        (2, [*base, drq, "--column", "a:VARCHAR(70000)"], "65535"),
        (2, [*base, drq, "--column", "id:INT64"], "'id'", "twice"),
        (2, [*base, drq, "--column", "embedding__drq_sign:INT64"], "twice"),
        (2, [*base, drq, "--primary-key", "id:FLOAT"], "INT64 or VARCHAR"),
        (2, [*base, drq, "--like", rows_file, "--vector-column", "year"], "'year'"),
    ):
        fails(code, args, *words)
        assert not new.exists()
    fails(2, ["create", "bad-name", "--uri", new, "--index-type", "DRQ", "--encoder", drq], "'bad-name'", "letters")
    fails(2, ["create", "w", "--uri", new, "--index-type", "drk", "--encoder", drq], "'drk'", "DRQ, FLOPS_SPARSE")
    fails(2, ["create", "w", "--uri", new, "--index-type", "DRQ", "--layout", "x", "--encoder", drq], "--layout")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.onnx", "empty.onnx", "junk.onnx"]


def test_a_failure_leaves_a_database_that_was_there(alula, fails, new, drq, flops):
    make = ["create", "w", "--uri", new, "--index-type", "DRQ", "--encoder", drq]
    assert alula(*make).code == 0
    fails(2, make, "'w' exists", "alula drop w")
    fails(1, ["create", "v", "--uri", new, "--index-type", "DRQ", "--encoder", flops], "'flops'")
    assert alula("describe", "w", "--uri", new).code == 0
    fails(2, ["describe", "v", "--uri", new], "there are: w.")


def test_ctrl_c_leaves_nothing(new, drq, monkeypatch, capsys):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pymilvus.MilvusClient.create_index", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["create", "w", "--uri", str(new), "--index-type", "DRQ", "--encoder", str(drq)])
    assert stopped.value.code == 130
    assert capsys.readouterr().err.strip() == "Stopped."
    assert not new.exists()


def test_a_server_that_cannot_hold_the_type(fails, database, in_database, drq, flops):
    at = ["create", "cli_cannot", *in_database]
    fails(1, [*at, "--index-type", "FLOPS_SPARSE", "--encoder", flops], "cannot index sparse", "Milvus 2.4", "DRQ")
    fails(1, [*at, "--index-type", "DRQ", "--layout", "adc", "--encoder", drq], "--layout hamming")
    assert database.client.list_collections() == []


def test_a_server_that_fails_half_way(database, in_database, drq, monkeypatch, capsys):
    from pymilvus.exceptions import MilvusException

    def fail(*args, **options):
        raise MilvusException(message="the disk is full")

    monkeypatch.setattr("pymilvus.MilvusClient.load_collection", fail)
    with pytest.raises(SystemExit) as stopped:
        main(["create", "cli_half", *in_database, "--index-type", "DRQ", "--encoder", str(drq)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "Error: Milvus could not create the collection 'cli_half': the disk is full.\n"
    assert database.client.list_collections() == []


def test_paths_that_cannot_be_databases(fails, tmp_path, drq):
    for name in ("sp ace.db", "a" * 40 + ".db"):
        args = ["create", "w", "--uri", tmp_path / name, "--index-type", "DRQ", "--encoder", drq]
        fails(2, args, "cannot be a Milvus Lite file name", "36 letters")
    assert list(Path(tmp_path).iterdir()) == []


def test_a_file_of_vectors_of_another_dimension(fails, new, drq, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((5, 9), np.float32))
    base = ["create", "w", "--uri", new, "--index-type", "DRQ", "--encoder", drq]
    fails(2, [*base, "--schema-from", tmp_path / "wide.npy"], "wide.npy has vectors of dimension 9", "takes 8")
    assert not new.exists()


def test_an_index_type_in_lower_case(alula, new, drq):
    result = alula("create", "w", "--uri", new, "--index-type", "drq", "--encoder", drq)
    assert "Created w with DRQ" in result.out


def test_a_dry_run_makes_no_database(alula, new, drq):
    assert alula("create", "w", "--uri", new, "--index-type", "DRQ", "--encoder", drq, "--dry-run").code == 0
    assert not new.exists()
    assert alula("create", "w", "--uri", new, "--index-type", "DRQ", "--encoder", drq).code == 0
    assert new.exists()


def test_the_server_is_to_blame_before_the_encoder(fails, in_server):
    """No encoder helps where the index type cannot be."""
    args = ["create", "w", *in_server.at, "--index-type", "FLOPS_SPARSE", "--encoder", in_server.encoder]
    fails(1, args, "cannot index sparse vectors")


def test_a_dry_run_creates_nothing(alula, lite_uri, drq, rows_file):
    opened = ["--uri", lite_uri, "--encoder", drq, "--index-type", "DRQ"]
    result = alula("create", "w", "--like", rows_file, *opened, "--dry-run")
    assert result.code == 0
    assert "Would create w with DRQ" in result.out
    assert "id:VARCHAR(65535), year:INT64." in result.out
    assert "Nothing was created." in result.out
    assert alula("create", "w", "--like", rows_file, *opened).code == 0


def test_a_row_is_counted_before_anything_is_created(alula, lite_uri, drq):
    opened = ["--uri", lite_uri, "--encoder", drq, "--index-type", "DRQ"]
    out = alula("create", "w", *opened, "--drop-vectors", "--dry-run").out
    # 4 codes in one column of 8 bytes, 4 norms in another
    assert "Memory per row: 20 bytes (drq sign 4, drq code 8, drq norm 8)" in out
    assert "sign bits alone" not in out
    signs_only = alula("create", "w", *opened, "--drop-vectors", "--code-bits", "0", "--dry-run").out
    assert "Memory per row: 4 bytes (drq sign 4)" in signs_only
    assert "32 sign bits alone rank the rows" in signs_only
    assert "at 8 dimensions: HNSW " in out
    assert "IVF_SQ8 17 bytes" in out, "a byte for each dimension and an id of 8"
    assert "keeps the vectors" not in out
    made = alula("create", "w", *opened).out
    # 8 floats more, which Milvus Lite does not map
    assert made.index("Memory per row: 36 bytes") < made.index("Created w")
    assert "--drop-vectors" in made


def test_an_array_column_is_priced_with_its_remedy(alula, in_server, tmp_path):
    encoder = write_drq(tmp_path / "wide.onnx", input_dim=384, levels=128, sign_bits=1024).path
    create = ["create", "priced", "--index-type", "DRQ", "--uri", in_server.uri, "--encoder", encoder, "--dry-run"]
    out = alula(*create).out
    # 128 bytes of signs, and more than 1,536 of vectors: HNSW has 1,733
    assert "more memory than HNSW" in out
    assert "MALLOC_CONF=background_thread:true" in out
    assert "Drop them (--drop-vectors), or use Milvus 2.4 or later" in out
    dropped = alula(*create, "--drop-vectors").out
    assert "Memory per row: 264 bytes (drq sign 128, drq code 128, drq norm 8)" in dropped
    assert "more memory than" not in dropped
    narrow = write_drq(tmp_path / "narrow.onnx", input_dim=384, levels=8, sign_bits=64).path
    assert "of HNSW's memory" in alula(*create[:-2], narrow, "--dry-run").out


def test_a_partition_key(alula, fails, in_server, lite_uri, rows_file):
    create = ["create", "by_year", "--index-type", "DRQ", "--like", rows_file, "--uri", in_server.uri]
    create += ["--encoder", in_server.encoder]
    fails(2, [*create, "--partition-key", "id"], "partition key 'id'", "year")
    assert alula(*create, "--partition-key", "year").code == 0
    load = ["load", "by_year", rows_file, "--uri", in_server.uri, "--encoder", in_server.encoder]
    assert alula(*load).code == 0
    client = MilvusClient(in_server.uri)
    keys = {
        field["name"]: bool(field.get("is_partition_key")) for field in client.describe_collection("by_year")["fields"]
    }
    assert keys["year"]
    assert not keys["id"]
    assert len(client.list_partitions("by_year")) > 1
    found = client.query("by_year", filter="year == 1907", output_fields=["id"], consistency_level="Strong")
    assert len(found) == 2  # rows 7 and 107 of 200
    client.drop_collection("by_year")
    client.close()
    lite = [
        "create",
        "w",
        "--index-type",
        "DRQ",
        "--like",
        rows_file,
        "--uri",
        lite_uri,
        "--encoder",
        in_server.encoder,
    ]
    fails(2, [*lite, "--partition-key", "year"], "no partitions")
