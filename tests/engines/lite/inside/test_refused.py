"""What cannot work in Milvus Lite 3 is refused with a sentence that reaches the client, and never goes unseen."""

import logging
import shutil

import numpy as np
import pytest
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.encoders import load_encoder
from tests.engines.lite.inside.mirror import FIELD, QUERIES
from tests.tiny_encoders import write_drq, write_flops


@pytest.fixture
def encoder(tmp_path):
    return write_drq(tmp_path / "drq.onnx")


@pytest.fixture
def plain(mirror, encoder):
    """A collection without an index."""
    return mirror(encoder, "DRQ", index=False)


@pytest.fixture
def rows(mirror, encoder):
    """A collection with 300 rows in one segment."""
    rows = mirror(encoder, "DRQ")
    rows.put(range(300))
    rows.flush()
    return rows


def test_no_encoder(plain):
    with pytest.raises(MilvusException, match=r"DRQ needs an encoder: params=\{'encoder': '/path/to"):
        plain.create_index()


def test_an_encoder_that_is_not_there(plain):
    with pytest.raises(MilvusException, match=r"There is no encoder /nowhere/drq\.onnx\."):
        plain.create_index(encoder="/nowhere/drq.onnx")


def test_a_file_that_is_no_encoder(plain, tmp_path):
    (tmp_path / "other.onnx").write_text("no model")
    with pytest.raises(MilvusException, match=r"other\.onnx"):
        plain.create_index(encoder=str(tmp_path / "other.onnx"))


def test_an_encoder_of_another_dimension(plain, tmp_path):
    wide = write_drq(tmp_path / "wide.onnx", input_dim=12)
    with pytest.raises(
        MilvusException, match=r"'embedding' has vectors of dimension 8, and the encoder .*wide\.onnx takes 12"
    ):
        plain.create_index(encoder=str(wide.path))


def test_an_encoder_of_another_kind(plain, tmp_path):
    flops = write_flops(tmp_path / "flops.onnx")
    with pytest.raises(MilvusException, match=r"DRQ needs an encoder of the kind 'drq', and .*is of the kind 'flops'"):
        plain.create_index(encoder=str(flops.path))


def test_another_metric_than_the_encoders(plain, encoder):
    message = r"has the metric L2, and the encoder .* was trained for COSINE; choose COSINE"
    with pytest.raises(MilvusException, match=message):
        plain.create_index(encoder=str(encoder.path), metric="L2")


def test_an_unknown_build_option(plain, encoder):
    with pytest.raises(MilvusException, match="DRQ has no option nlist; it has: encoder"):
        plain.create_index(encoder=str(encoder.path), nlist=128)


def test_what_was_refused_leaves_no_index(plain, encoder):
    with pytest.raises(MilvusException):
        plain.create_index(encoder="/nowhere/drq.onnx")
    assert plain.client.list_indexes(plain.name) == []
    plain.create_index(encoder=str(encoder.path))
    assert plain.client.list_indexes(plain.name) == [FIELD]


def test_a_field_of_another_type(database, encoder):
    client = database.client()
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=8)
    client.create_collection("two", schema=schema)
    for field, name in (("sparse", "SPARSE_FLOAT_VECTOR"), ("id", "INT64")):
        index = client.prepare_index_params()
        index.add_index(field, index_type="DRQ", metric_type="IP", params={"encoder": str(encoder.path)})
        with pytest.raises(MilvusException, match=f"'{field}' is a {name}, and DRQ indexes FLOAT_VECTOR"):
            client.create_index("two", index)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"search_list": 64}, "DRQ has no option search_list; it has: bits, oversample, candidates, nprobe, ef"),
        ({"bits": 12}, "bits is 12; this encoder's codes have a multiple of 8 bits up to 32"),
        ({"candidates": 0}, "candidates is 0, and must be at least 1"),
        ({"candidates": "many"}, "candidates is 'many', and a whole number is needed"),
    ],
)
def test_search_options(rows, params, words):
    with pytest.raises(MilvusException, match=words):
        rows.search(params={"candidates": 200, **params})


def test_search_options_are_checked_while_there_is_no_index_to_search_yet(mirror, encoder):
    rows = mirror(encoder, "DRQ")
    rows.put(range(10))
    with pytest.raises(MilvusException, match="DRQ has no option search_list"):
        rows.search(params={"search_list": 64})


def test_a_search_in_another_metric(rows):
    with pytest.raises(
        MilvusException, match=r"DRQ index of the field 'embedding' has the metric COSINE, and .* asks for L2"
    ):
        rows.client.search(rows.name, QUERIES.tolist(), search_params={"metric_type": "L2"})
    assert rows.client.search(rows.name, QUERIES.tolist(), search_params={"metric_type": "COSINE"})


def test_a_query_of_another_dimension(rows):
    with pytest.raises(MilvusException, match=r"The queries have dimension 3, and the encoder drq\.onnx takes 8"):
        rows.search(queries=np.ones((1, 3)))


def test_indexes_of_milvus_lite_itself_are_as_they_were(plain):
    index = plain.client.prepare_index_params()
    index.add_index(FIELD, index_type="HNSW", metric_type="COSINE", params={"M": 8})
    plain.client.create_index(plain.name, index)
    plain.client.load_collection(plain.name)
    plain.put(range(100))
    plain.client.flush(plain.name)
    plain.engine._wait_for_bg()
    plain.check(params={"ef": 100})


def break_encoder(encoder):
    """The file is there, and is another encoder."""
    write_drq(encoder.path, seed=1)
    return load_encoder(encoder.path).sha256


def test_a_build_in_the_background_that_fails_is_reported_by_the_next_search(rows, encoder, caplog):
    before = load_encoder(encoder.path).sha256
    kept = shutil.copy(encoder.path, encoder.path.with_suffix(".kept"))
    now = break_encoder(encoder)
    rows.put(range(300, 600))
    with caplog.at_level(logging.ERROR, "alula.lite"):
        rows.client.flush(rows.name)
        rows.engine._wait_for_bg()
    assert "The DRQ index of the field 'embedding' could not be built" in caplog.text
    sentence = f"could not be built: .*created with the encoder {before[:16]}, and .*drq.onnx is {now[:16]}; give the"
    for _ in range(2):
        with pytest.raises(MilvusException, match=sentence):
            rows.search()
    rows.client.release_collection(rows.name)
    with pytest.raises(MilvusException, match=f"created with the encoder {before[:16]}"):
        rows.client.load_collection(rows.name)
    shutil.copy(kept, encoder.path)
    rows.client.load_collection(rows.name)
    rows.settle()
    rows.check(params={"candidates": 290})


def test_an_encoder_that_is_missing_or_changed_at_load(rows, encoder):
    sha256 = load_encoder(encoder.path).sha256
    kept = encoder.path.rename(encoder.path.with_suffix(".kept"))
    with pytest.raises(
        MilvusException, match=f"There is no encoder .*drq.onnx. The index was created with the .*{sha256[:16]}"
    ):
        rows.restart()
    write_drq(encoder.path, seed=1)
    with pytest.raises(MilvusException, match=f"created with the encoder {sha256[:16]}, and .*drq.onnx is "):
        rows.client.load_collection(rows.name)
    with pytest.raises(MilvusException, match="load"):
        rows.search()
    kept.rename(encoder.path)
    rows.client.load_collection(rows.name)
    rows.check(params={"candidates": 290})


def test_an_index_file_made_with_another_encoder(rows, encoder, tmp_path):
    (file,) = rows.database.path.rglob("*.idx")
    kept = file.read_bytes()
    other = write_drq(tmp_path / "other.onnx", seed=1)
    rows.client.release_collection(rows.name)
    rows.client.drop_index(rows.name, FIELD)
    rows.create_index(encoder=str(other.path))
    rows.client.release_collection(rows.name)
    file.write_bytes(kept)
    shas = [load_encoder(path).sha256[:16] for path in (encoder.path, other.path)]
    with pytest.raises(MilvusException, match=f"was created with the encoder {shas[0]}, and .*other.onnx is {shas[1]}"):
        rows.client.load_collection(rows.name)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"x" * 999]
)
def test_a_damaged_index_file(rows, damage):
    (file,) = rows.database.path.rglob("*.idx")
    file.write_bytes(damage(file.read_bytes()))
    rows.client.release_collection(rows.name)
    with pytest.raises(MilvusException, match=r"The index file .*\.idx cannot be read .*; delete it, and load"):
        rows.client.load_collection(rows.name)
    file.unlink()
    rows.client.load_collection(rows.name)
    rows.check(params={"candidates": 290})


def test_describe_shows_what_was_asked(rows, encoder):
    about = rows.client.describe_index(rows.name, FIELD)
    assert (about["index_type"], about["metric_type"]) == ("DRQ", "COSINE")
    assert about["params"] == {"encoder": str(encoder.path), "encoder_sha256": load_encoder(encoder.path).sha256}
