"""Default search options are kept with a collection, in both engines, hold for searches, and can be removed."""

from __future__ import annotations

import pytest

import alula
from alula.catalog.search_defaults import write_defaults
from tests.small_collections import Rows
from tests.tiny_encoders import write_drq


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoder") / "drq.onnx")


@pytest.fixture
def collection(engine, encoder, collection_name):
    made = Rows().filled(engine, collection_name, encoder, "DRQ", options={"code_bits": 32})
    yield made
    made.drop()


def found(collection, **options):
    return [(hit.id, hit.exact) for hits in collection.search(Rows().vectors[:5], **options) for hit in hits]


def opened(collection, encoder):
    return alula.Collection.open(collection.server, collection.name, encoder=encoder.path)


def test_they_hold_for_all_who_open_the_collection(collection, encoder):
    plain, wanted = found(collection), found(collection, candidates=15, bits=8, rerank=0)
    assert plain != wanted
    collection.set_defaults(candidates=15, bits=8, rerank=0)
    again = opened(collection, encoder)
    assert again.defaults == {"candidates": 15, "bits": 8, "rerank": 0}
    assert found(again) == found(collection) == wanted
    # each can be given otherwise
    assert found(again, candidates=300, bits=32, rerank=100) == plain


def test_they_are_replaced_and_removed(collection, encoder):
    plain = found(collection)
    collection.set_defaults(candidates=15, rerank=0)
    collection.set_defaults(candidates=20)
    assert opened(collection, encoder).defaults == {"candidates": 20}
    assert alula.describe(collection.server, collection.name).defaults == {"candidates": "20"}
    collection.set_defaults()
    collection.set_defaults()
    again = opened(collection, encoder)
    assert again.defaults == {}
    assert found(again) == plain
    collection.set_defaults(candidates=30)
    assert opened(collection, encoder).defaults == {"candidates": 30}


def test_the_collection_is_as_it_was_otherwise(collection, encoder):
    before = alula.describe(collection.server, collection.name)
    collection.set_defaults(candidates=15)
    after = opened(collection, encoder)
    about = alula.describe(collection.server, collection.name)
    assert (about.settings, about.fields, about.rows) == (before.settings, before.fields, before.rows)
    after.insert(Rows().vectors[:2], {"id": ["row 50", "new"], "year": [1, 2], "word": ["a", "b"]})
    assert after.count() == before.rows + 1
    (hits,) = after.search(Rows().vectors[0], filter="id == 'row 50'", output_fields=["year"])
    assert [hit.fields for hit in hits] == [{"year": 1}]
    after.delete(["new"])
    assert after.count() == before.rows


def test_wrong_ones_are_refused(collection):
    for options in ({"candidate": 3}, {"candidates": 0}, {"bits": 12}, {"rerank": -1}, {"bits": 4000}):
        with pytest.raises(alula.UsageError):
            collection.set_defaults(**options)
    assert collection.defaults == {}


def test_defaults_that_this_version_does_not_know(lite, encoder, collection_name):
    made = Rows().filled(lite, collection_name, encoder, "DRQ")
    write_defaults(lite, made.name, "id", {"candidates": "15", "beams": "3", "bits": "many"})
    assert opened(made, encoder).defaults == {"candidates": 15}
    made.drop()


def test_they_survive_a_restart_of_the_embedded_engine(starts_engine, tmp_path, encoder):
    uri = str(tmp_path / "kept.db")
    with alula.connect(uri) as server:
        Rows().filled(server, "kept", encoder, "DRQ").set_defaults(candidates=77)
    with alula.connect(uri) as server:
        assert alula.Collection.open(server, "kept", encoder=encoder.path).defaults == {"candidates": 77}
