"""A collection that has lost its indexes is found out, and gets them back with its rows."""

from __future__ import annotations

import pytest

import alula
from alula.errors import EncoderError, UsageError
from tests.small_collections import DIM, ROWS, Rows
from tests.tiny_encoders import random_vectors, write_drq

QUERIES = random_vectors(3, DIM, seed=4)
ROWS_HELD = Rows()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("repair") / "drq.onnx", input_dim=DIM)


@pytest.fixture
def made(engine, collection_name, encoder):
    collection = ROWS_HELD.filled(engine, collection_name, encoder, "DRQ", description="restored")
    yield collection
    engine.client.drop_collection(collection_name)


def lose_indexes(collection):
    client = collection.server.client
    client.release_collection(collection.name)
    for index in client.list_indexes(collection.name):
        client.drop_index(collection.name, index)


def test_lost_indexes_come_back_with_all_rows(made, encoder):
    expected, before = made.search(QUERIES), made.describe()
    assert alula.repair(made.server, made.name, encoder=encoder.path) == ()
    lose_indexes(made)
    about = alula.describe(made.server, made.name)
    vectors = ["embedding"] if made.lowering.field.storage == "field" else []
    assert sorted(about.unindexed) == sorted(["embedding__drq_sign", *vectors])
    assert (about.rows, about.text, about.settings) == (None, "restored", before.settings)
    with pytest.raises(UsageError, match=rf"has lost the index of .*; 'alula repair {made.name}' creates it again"):
        alula.Collection.open(made.server, made.name, encoder=encoder.path)
    assert sorted(alula.repair(made.server, made.name, encoder=encoder.path)) == sorted(about.unindexed)
    opened = alula.Collection.open(made.server, made.name, encoder=encoder.path)
    assert opened.search(QUERIES) == expected
    assert (opened.count(), opened.describe().settings) == (ROWS, before.settings)


def test_another_encoder_repairs_nothing(made, tmp_path):
    lose_indexes(made)
    other = write_drq(tmp_path / "other.onnx", input_dim=DIM, seed=9)
    with pytest.raises(EncoderError, match="was created with the encoder"):
        alula.repair(made.server, made.name, encoder=other.path)
    assert alula.describe(made.server, made.name).unindexed
