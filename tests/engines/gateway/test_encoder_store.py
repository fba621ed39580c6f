"""Encoders are pushed, pulled and removed through a gateway as they are without one."""

from __future__ import annotations

import pytest

import alula
from alula.encoder_store import COLLECTION, entries, find, pull, push, querying, remove
from alula.errors import UsageError
from tests.tiny_encoders import write_drq
from tools.servers.lite import connected


@pytest.mark.parametrize(
    ("gateway", "upstream"), [("gateway_to_lite", "lite_server"), ("gateway_to_standalone", "milvus_server")]
)
def test_through_a_gateway(request, gateway, upstream, tmp_path, collection_name):
    encoder = write_drq(tmp_path / f"{collection_name}.onnx", seed=77)
    with (
        connected(request.getfixturevalue(gateway).uri) as through,
        connected(request.getfixturevalue(upstream).uri) as direct,
    ):
        entry = push(through, encoder.path).entry
        assert find(querying(direct), collection_name) == entry
        through.client.release_collection(COLLECTION)
        _, path = pull(through, collection_name, tmp_path / "pulled.onnx")
        assert path.read_bytes() == encoder.path.read_bytes()
        collection = alula.Collection.create(direct, collection_name, encoder=encoder.path, index_type="DRQ")
        try:
            for server in (through, direct):
                with pytest.raises(UsageError, match=f"made with: {collection_name}"):
                    remove(server, collection_name)
        finally:
            collection.drop()
        assert remove(through, collection_name).gone
        assert entry.sha256 not in {other.sha256 for other in entries(querying(direct))}
