"""Registering changes Milvus Lite 3 only as far as it must, says when it cannot, and can be taken back."""

import importlib
import subprocess
import sys

import pytest
from pymilvus.exceptions import MilvusException

import alula.lite
from alula.errors import UnsupportedError
from tests.engines.lite.inside.mirror import FIELD, Mirror
from tests.tiny_encoders import write_drq, write_flops
from tools.servers.lite import LiteDatabase

# every module and class of Milvus Lite that could be changed, as one dictionary of names
SURVEY = """
import importlib, json, pkgutil, sys
import milvus_lite

def survey():
    seen = {}
    for module in pkgutil.walk_packages(milvus_lite.__path__, "milvus_lite."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            seen[module.name, name] = id(value)
            if isinstance(value, type) and value.__module__ == module.name:
                seen |= {(module.name, name, key): id(member) for key, member in vars(value).items()}
    return seen

survey()  # imports
before = survey()
import alula.lite
alula.lite.register()
changed = {".".join(key) for key, value in survey().items() if before.get(key) != value}
alula.lite.register()
alula.lite.unregister()
assert survey() == before
alula.lite.unregister()
print(*sorted(changed), sep="\\n")
"""


def test_what_is_changed_and_that_it_is_put_back():
    # in a new process: nothing of Milvus Lite was imported or changed before
    done = subprocess.run([sys.executable, "-c", SURVEY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    changed = [name for name in done.stdout.split() if not name.rpartition(".")[2].startswith("_")]
    assert changed == [
        "milvus_lite.adapter.grpc.servicer.kv_pairs_to_index_params_dict",
        "milvus_lite.engine.collection.Collection.create_index",
        "milvus_lite.engine.collection.Collection.load",
        "milvus_lite.engine.collection.Collection.search",
        "milvus_lite.index.factory.build_index_from_spec",
        "milvus_lite.index.factory.load_index_from_spec",
        "milvus_lite.storage.segment.Segment.attach_index",
    ]


def test_registering_while_a_database_is_open(tmp_path):
    alula.lite.unregister()
    encoder = write_flops(tmp_path / "flops.onnx", max_nnz=24)
    with LiteDatabase() as database:
        rows = Mirror(database, encoder, "FLOPS_SPARSE", index=False)
        rows.put(range(200))
        alula.lite.register()
        rows.create_index(encoder=str(encoder.path))
        rows.flush()
        rows.check(params={"candidates": 190})


@pytest.fixture
def rows(database, tmp_path):
    rows = Mirror(database, write_drq(tmp_path / "drq.onnx"), "DRQ")
    rows.put(range(200))
    rows.flush()
    return rows


def test_what_is_loaded_can_be_searched_after_unregistering(rows):
    alula.lite.unregister()
    rows.check(params={"candidates": 190})
    rows.check()


def test_a_database_opened_without_registering_says_that_it_does_not_know_the_index(rows):
    alula.lite.unregister()
    with pytest.raises(MilvusException, match="unknown index_type: 'DRQ'"):
        rows.restart()
    with pytest.raises(MilvusException, match="load"):
        rows.search()
    alula.lite.register()
    rows.client.load_collection(rows.name)
    rows.check(params={"candidates": 190})


def test_an_index_created_without_registering_says_so_when_it_is_loaded(mirror, tmp_path):
    encoder = write_drq(tmp_path / "drq.onnx")
    rows = mirror(encoder, "DRQ", index=False)
    rows.put(range(200))
    rows.client.flush(rows.name)
    rows.client.release_collection(rows.name)
    alula.lite.unregister()
    with pytest.raises(MilvusException, match="unknown index_type: 'DRQ'"):  # Milvus Lite keeps the index all the same
        rows.create_index(encoder=str(encoder.path))
    alula.lite.register()
    rows.client.release_collection(rows.name)
    with pytest.raises(MilvusException, match=r"created before alula\.lite\.register\(\) was called"):
        rows.client.load_collection(rows.name)
    rows.client.drop_index(rows.name, FIELD)
    rows.create_index(encoder=str(encoder.path))
    rows.client.load_collection(rows.name)
    rows.settle()
    rows.check(params={"candidates": 190})


@pytest.mark.parametrize(
    ("module", "attribute", "change"),
    [
        ("milvus_lite.storage.segment", "Segment.build_or_load_index", lambda was: lambda *_: None),
        ("milvus_lite.storage.segment", "Segment.attach_index", lambda was: lambda *_: None),
        ("milvus_lite.index.factory", "build_index_from_spec", None),
        (
            "milvus_lite.engine.collection",
            "execute_search_with_index",
            lambda was: lambda **given: was(**{**given, "search_params": None}),
        ),
    ],
)
def test_a_milvus_lite_that_works_in_another_way_is_refused(monkeypatch, module, attribute, change):
    alula.lite.unregister()
    where = importlib.import_module(module)
    *owner, name = attribute.split(".")
    where = getattr(where, owner[0]) if owner else where
    if change is None:
        monkeypatch.delattr(where, name)
    else:
        monkeypatch.setattr(where, name, change(getattr(where, name)))
    with pytest.raises(UnsupportedError, match="does not use an index as the tested versions do"):
        alula.lite.register()
    monkeypatch.undo()
    alula.lite.register()  # nothing was left behind


def test_another_version_is_refused(monkeypatch):
    alula.lite.unregister()
    monkeypatch.setattr(alula.lite.registration, "TESTED_VERSIONS", ("3.0.1", "3.0.2"))
    sentence = (
        r"Milvus Lite 3\.2\.2 is installed, .* works with 3\.0\.1, 3\.0\.2 only\. pip install milvus-lite==3\.0\.2"
    )
    with pytest.raises(UnsupportedError, match=sentence):
        alula.lite.register()


def test_an_index_type_that_cannot_be_held_in_a_process_is_not_registered(monkeypatch):
    from tests.unit.index_types.test_registry import Plain

    monkeypatch.setattr("alula.lite.index_type.index_types", lambda: {"PLAIN": Plain()})
    assert alula.lite.index_type.local_index_types() == {}
