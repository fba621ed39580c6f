"""Collections are created whole or not at all, found again by every client, and opened by their own encoder only."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

import alula
import alula.catalog.create
from alula.errors import EncoderError, UnsupportedError, UsageError
from alula.index_types import FieldSpec, NativeIndex, Probe
from tests.small_collections import DIM, ROWS, Rows
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.cutting_proxy import CuttingProxy

ROWS_HELD = Rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def drq(folder):
    return write_drq(folder / "drq.onnx", input_dim=DIM)


@pytest.fixture(scope="module")
def flops(folder):
    return write_flops(folder / "flops.onnx", input_dim=DIM)


def test_a_collection_is_found_again_with_all_it_was_created_with(engine, drq, collection_name):
    made = ROWS_HELD.filled(engine, collection_name, drq, "DRQ", description="words of 1900")
    about = alula.describe(engine, collection_name)
    assert about.rows == ROWS
    assert about.text == "words of 1900"
    assert about.settings["type"] == "DRQ"
    assert about.settings["encoder"] == alula.load_encoder(drq.path).sha256
    assert str(about.primary_key) == "id:VARCHAR(100)"
    assert [str(field) for field in about.fields] == ["year:INT64", "word:VARCHAR(16)"]
    opened = alula.Collection.open(engine, collection_name, encoder=drq.path)
    assert repr(opened) == (
        f"<Collection {collection_name!r} at {engine.uri}: DRQ on 'embedding', {DIM} dimensions, COSINE, vectors kept>"
    )
    query = random_vectors(1, DIM, seed=5)
    assert opened.search(query) == made.search(query)
    made.drop()
    assert not engine.has_collection(collection_name)


def test_an_embedded_database_is_opened_again(drq, lite_uri):
    query = random_vectors(1, DIM, seed=5)
    with alula.connect(lite_uri) as server:
        first = ROWS_HELD.filled(server, "kept", drq, "DRQ").search(query)
    with alula.connect(lite_uri) as server:
        assert alula.Collection.open(server, "kept", encoder=drq.path).search(query) == first


def test_settings_are_found_in_the_description_when_the_index_lost_them(engine, drq, collection_name, monkeypatch):
    monkeypatch.setattr(alula.catalog.create, "as_index_params", lambda settings: {})
    ROWS_HELD.create(engine, collection_name, drq, "DRQ", description="a text")
    about = alula.describe(engine, collection_name)
    assert (about.settings["type"], about.text) == ("DRQ", "a text")
    alula.drop(engine, collection_name)


def test_another_encoder_is_refused_with_both_fingerprints(engine, drq, folder, collection_name):
    other = write_drq(folder / "other.onnx", input_dim=DIM, seed=9)
    ROWS_HELD.create(engine, collection_name, drq, "DRQ")
    with pytest.raises(EncoderError) as refused:
        alula.Collection.open(engine, collection_name, encoder=other.path)
    for path in (drq.path, other.path):
        assert alula.load_encoder(path).sha256[:16] in str(refused.value)
    alula.drop(engine, collection_name)


def test_an_encoder_of_the_wrong_kind_is_refused(engine, flops, collection_name):
    with pytest.raises(EncoderError, match="train one with 'alula train drq'"):
        ROWS_HELD.create(engine, collection_name, flops, "DRQ")
    assert not engine.has_collection(collection_name)


def test_another_metric_than_the_encoders_is_refused(engine, drq, collection_name):
    with pytest.raises(UsageError, match=r"has the metric L2, and the encoder .* was trained for COSINE"):
        ROWS_HELD.create(engine, collection_name, drq, "DRQ", metric="L2")


def test_an_index_type_that_the_server_cannot_hold_is_refused(milvus_server, flops, collection_name):
    with alula.connect(milvus_server.uri) as server:
        before = sorted(server.client.list_collections())
        with pytest.raises(UnsupportedError, match="cannot index sparse vectors"):
            ROWS_HELD.create(server, collection_name, flops, "FLOPS_SPARSE")
        assert sorted(server.client.list_collections()) == before


def test_an_engine_that_builds_no_indexes_builds_none_for_sindi(lite, flops, collection_name):
    with pytest.raises(UnsupportedError, match=r"builds no index for SINDI \(it builds no indexes\)"):
        ROWS_HELD.create(lite, collection_name, flops, "FLOPS_SPARSE", options={"inverted_index_algo": "SINDI"})
    assert not lite.has_collection(collection_name)


def test_an_index_that_a_server_accepts_is_built_if_that_is_asked(milvus_server, monkeypatch):
    """Milvus 2.3.5 accepts DISKANN, and does not build it here."""
    monkeypatch.setattr(alula.milvus.capabilities, "_BUILD_SECONDS", 5.0)
    fields, row = (FieldSpec("v", "FLOAT_VECTOR", 32, {"dim": 8}),), {"v": [1.0] * 8}
    hnsw = NativeIndex("v", "HNSW", "L2", {"M": 8, "efConstruction": 16})
    diskann = NativeIndex("v", "DISKANN", "L2")
    asked = [Probe("accepted", "", fields, diskann), Probe("late", "", fields, diskann, row=row)]
    with alula.connect(milvus_server.uri) as server:
        before = sorted(server.client.list_collections())
        found = alula.milvus.probe(server, [*asked, Probe("built", "", fields, hnsw, row=row)])
        assert found.supported >= {"accepted", "built"}
        assert "not built the index in 5 seconds, and 1,200 rows are not indexed" in found.reasons["late"]
        assert sorted(server.client.list_collections()) == before


def test_an_existing_collection_is_not_touched(engine, drq, collection_name):
    kept = ROWS_HELD.filled(engine, collection_name, drq, "DRQ")
    with pytest.raises(UsageError, match="exists"):
        ROWS_HELD.create(engine, collection_name, drq, "DRQ")
    assert kept.count() == ROWS
    kept.drop()


def test_a_create_that_fails_half_way_leaves_nothing(engine, drq, collection_name, monkeypatch):
    def fail(*_, **__):
        raise alula.ServerError("the index could not be built")

    alula.milvus.probe(engine)  # which is done once
    monkeypatch.setattr(engine.client, "create_index", fail)
    with pytest.raises(alula.ServerError, match="could not be built"):
        ROWS_HELD.create(engine, collection_name, drq, "DRQ")
    assert not engine.has_collection(collection_name)


def test_a_server_is_asked_once_what_it_can_do_and_nothing_is_left(engine, monkeypatch):
    monkeypatch.setattr(alula.milvus.capabilities, "_probed", WeakKeyDictionary())
    before, made = sorted(engine.client.list_collections()), []
    create = engine.client.create_collection
    monkeypatch.setattr(engine.client, "create_collection", lambda *a, **k: (made.append(a), create(*a, **k))[1])
    first = alula.milvus.probe(engine)
    assert sorted(engine.client.list_collections()) == before
    asked = len(made)
    assert asked > 0
    assert alula.milvus.probe(engine) is first
    assert len(made) == asked


def test_a_connection_that_breaks_tells_nothing_of_what_a_server_can_do(milvus_server, monkeypatch):
    create = MilvusClient.create_collection
    with CuttingProxy(milvus_server.port) as proxy, alula.connect(proxy.uri) as server:

        def broken(client, name, **arguments):
            if any(field.dtype == DataType.SPARSE_FLOAT_VECTOR for field in arguments["schema"].fields):
                proxy.target = 1  # nothing listens there
                proxy.cut_now()
            return create(client, name, **arguments)

        monkeypatch.setattr(MilvusClient, "create_collection", broken)
        with pytest.raises(alula.ServerError, match="could not be asked what it can do"):
            alula.milvus.probe(server)


def test_an_engine_that_is_not_ready_is_asked_again(lite, monkeypatch):
    monkeypatch.setattr(alula.milvus.retrying, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(alula.milvus.capabilities, "_probed", WeakKeyDictionary())
    starting = MilvusException(2000, 'Assert "init_flag_ == true" => Mmap manager has not been init. : segcore error')
    before, create, errors = sorted(lite.client.list_collections()), lite.client.create_index, [starting] * 2

    def creating(*arguments, **named):
        if errors:
            raise errors.pop()
        create(*arguments, **named)

    monkeypatch.setattr(lite.client, "create_index", creating)
    able = Probe("able", "", (FieldSpec("v", "FLOAT_VECTOR", 32, {"dim": 8}),), NativeIndex("v", "FLAT", "L2"))
    assert "able" in alula.milvus.probe(lite, [able]).supported
    assert errors == []
    assert sorted(lite.client.list_collections()) == before


def test_collections_of_others_are_neither_opened_nor_dropped(engine, drq, collection_name):
    engine.client.create_collection(collection_name, dimension=4)
    for attempt in (
        lambda: alula.describe(engine, collection_name),
        lambda: alula.drop(engine, collection_name),
        lambda: alula.Collection.open(engine, collection_name, encoder=drq.path),
    ):
        with pytest.raises(UsageError, match="no Alula index type"):
            attempt()
    assert engine.has_collection(collection_name)
    engine.client.drop_collection(collection_name)


def test_a_missing_collection_is_named_beside_those_there_are(engine, drq, collection_name):
    ROWS_HELD.create(engine, collection_name, drq, "DRQ")
    with pytest.raises(UsageError, match=f"no collection 'typo'.*{collection_name}"):
        alula.Collection.open(engine, "typo", encoder=drq.path)
    alula.drop(engine, collection_name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"columns": ["year:INT64", "year:INT64"]}, "'year' is named twice"),
        ({"columns": ["embedding__drq_sign:INT64"]}, "named twice"),
        ({"columns": ["year:DATE"]}, "NAME:TYPE"),
        ({"columns": ["2year:INT64"]}, "'2year' cannot be a field name"),
        ({"columns": ["word:VARCHAR(70000)"]}, "1 to 65535"),
        ({"primary_key": "id:FLOAT"}, "INT64 or VARCHAR"),
        ({"index_type": "HNSW"}, "no index type 'HNSW'"),
        ({"options": {"layout": "flat"}}, "hamming, adc"),
        ({"options": {"m": 4}}, "no option m"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_created(engine, drq, collection_name, arguments, says):
    given = {"encoder": drq.path, "index_type": "DRQ", **arguments}
    with pytest.raises(UsageError, match=says):
        alula.Collection.create(engine, collection_name, **given)
    assert not engine.has_collection(collection_name)


def test_a_bad_collection_name_is_refused(engine, drq):
    with pytest.raises(UsageError, match="'bad-name' cannot be a collection name"):
        ROWS_HELD.create(engine, "bad-name", drq, "DRQ")


def test_vectors_are_kept_where_the_server_has_a_place(engine, drq, collection_name):
    collection = ROWS_HELD.create(engine, collection_name, drq, "DRQ")
    about = collection.describe()
    wanted = ("field", "FLOAT_VECTOR") if engine.embedded else ("column", "ARRAY")
    assert (about.settings["vectors"], about.companions["embedding"]) == wanted
    collection.drop()


def test_a_collection_opened_by_its_address_alone(drq, lite_uri):
    made = alula.Collection.create(lite_uri, "words", encoder=drq.path, index_type="DRQ")
    made.insert(ROWS_HELD.vectors, {"id": np.arange(ROWS)})
    assert alula.Collection.open(lite_uri, "words", encoder=drq.path).count() == ROWS


@pytest.mark.parametrize("given", [{"mode": "upsrt"}, {"via": "upsert"}])
def test_a_misspelt_way_to_load_is_refused_and_nothing_written(engine, drq, collection_name, given):
    collection = ROWS_HELD.filled(engine, collection_name, drq, "DRQ")
    ((name, value),) = given.items()
    with pytest.raises(UsageError, match=f"{name} is {value!r}, and must be one of auto, insert"):
        collection.insert(ROWS_HELD.vectors, ROWS_HELD.columns, **given)
    assert collection.count() == ROWS
    collection.drop()
