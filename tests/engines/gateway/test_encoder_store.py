"""Encoders are pushed, pulled and removed through a gateway as they are without one."""

from __future__ import annotations

import pytest

import alula
from alula.encoder_store import COLLECTION, entries, find, pull, push, querying, remove
from alula.errors import UsageError
from tests.tiny_encoders import write_drq
from tools.servers.lite import connected


@pytest.fixture(params=["lite", "standalone"])
def sides(request):
    """A connection through a gateway and one without; no other test uses the database."""
    if request.param == "lite":
        through, direct = (connected(request.getfixturevalue(name).uri) for name in ("gateway_to_lite", "lite_server"))
        with through, direct:
            yield through, direct
        return
    direct = request.getfixturevalue("database")
    gateway = request.getfixturevalue("gateway_to_standalone")
    with alula.connect(gateway.uri, database=direct.login["database"]) as through:
        yield through, direct


def test_through_a_gateway(sides, tmp_path, collection_name):
    through, direct = sides
    encoder = write_drq(tmp_path / f"{collection_name}.onnx", seed=77)
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
