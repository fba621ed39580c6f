"""Logins without some rights: a probe takes no refusal for a missing ability, and leaves nothing behind."""

from __future__ import annotations

import pytest

import alula
from alula.errors import ServerError
from alula.milvus import probe
from tools.servers.versions.limits import Rights


@pytest.fixture
def login(on_lite, collection_name):
    """Connects as a user of this test without the right to call some methods."""

    def connect(*methods):
        on_lite.rule(Rights).deny(collection_name, *methods)
        return alula.connect(on_lite.uri, user=collection_name, password="secret")

    return connect


def test_a_server_that_may_not_be_tried_is_known_by_its_version(login, profile):
    with login("CreateCollection") as reader:
        found = probe(reader)
    expected = {"BIN_FLAT", "BIN_IVF_FLAT", "array_field", "half_vectors", "several_vector_fields", "sparse_index"}
    assert found.supported == expected | ({"HNSW"} if profile in {"2.6", "3.0"} else set())


def test_a_probe_without_the_right_to_index_leaves_nothing(login, lite):
    before = lite.client.list_collections()
    with login("CreateIndex") as reader:
        assert probe(reader).several_vector_fields
    assert lite.client.list_collections() == before


def test_a_probe_that_may_not_be_dropped_is_named_once(login, lite):
    before = set(lite.client.list_collections())
    with login("DropCollection") as reader, pytest.raises(ServerError, match="not drop them") as raised:
        probe(reader)
    (left,) = set(lite.client.list_collections()) - before
    assert left in str(raised.value)
    lite.client.drop_collection(left)


def test_a_login_that_may_only_read_opens_and_searches(login, lite, drq, collection_name):
    made = alula.Collection.create(
        lite, collection_name, encoder=drq.path, index_type="DRQ", consistency_level="Strong"
    )
    made.insert([[1.0] * 8, [-1.0] * 8], {"id": [1, 2]})
    with login("CreateCollection", "DropCollection", "CreateIndex", "Insert", "Upsert", "Delete", "Flush") as reader:
        opened = alula.Collection.open(reader, collection_name, encoder=drq.path)
        (hits,) = opened.search([[1.0] * 8], limit=1)
    assert [hit.id for hit in hits] == [1]
    made.drop()
