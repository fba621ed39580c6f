"""Loading waits for an engine that answers before it is ready."""

from __future__ import annotations

import pytest
from pymilvus.exceptions import MilvusException

from alula.milvus import load_collection, retrying

NOT_READY = MilvusException(2000, 'Assert "init_flag_ == true" => Mmap manager has not been init. : segcore error')


def test_a_collection_is_loaded_once_the_engine_is_ready(lite, collection_name, monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    lite.client.create_collection(collection_name, dimension=4)
    lite.client.release_collection(collection_name)
    load, errors = lite.client.load_collection, [NOT_READY, NOT_READY]

    def loading(*arguments):
        if errors:
            raise errors.pop()
        load(*arguments)

    monkeypatch.setattr(lite.client, "load_collection", loading)
    load_collection(lite, collection_name)
    assert errors == []
    assert lite.client.get_load_state(collection_name)["state"].name == "Loaded"
    with pytest.raises(MilvusException, match="not found"):
        load_collection(lite, "nowhere")
    lite.client.drop_collection(collection_name)
