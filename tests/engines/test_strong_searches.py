"""A Strong search sees what was written before it, and all of its calls wait for one moment."""

from __future__ import annotations

import pytest
from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel

import alula
from tests.small_collections import DIM
from tests.tiny_encoders import random_vectors, write_drq

VECTORS, QUERIES = random_vectors(200, DIM, seed=1), random_vectors(5, DIM, seed=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoder") / "drq.onnx", input_dim=DIM)


@pytest.fixture(params=["Strong", "Bounded"])
def collection(request, standalone, encoder, collection_name):
    """Collections with this default level."""
    made = alula.Collection.create(
        standalone,
        collection_name,
        encoder=encoder.path,
        index_type="DRQ",
        columns=["year:INT64"],
        consistency_level=request.param,
    )
    made.insert(VECTORS, {"id": list(range(len(VECTORS))), "year": [7] * len(VECTORS)})
    yield made
    made.drop()


@pytest.fixture
def sent(standalone, monkeypatch):
    """The levels and timestamps of the calls that pymilvus is asked for."""
    calls = []
    for name in ("search", "query"):
        real = getattr(standalone.client, name)

        def watched(*arguments, real=real, **options):
            calls.append((options.get("consistency_level"), options.get("guarantee_timestamp", 0)))
            return real(*arguments, **options)

        monkeypatch.setattr(standalone.client, name, watched)
    return calls


def test_the_calls_of_a_strong_search_have_one_timestamp(collection, sent):
    """Milvus makes each call of its own moment wait until it has reached that, 0.2 s."""
    own = collection.server.client.describe_collection(collection.name)["consistency_level"]
    for level in ("Strong", None, "Bounded", "Eventually"):
        sent.clear()
        collection.search(QUERIES, limit=5, output_fields=["year"], consistency_level=level)
        assert len(sent) > 1
        assert len(set(sent)) == 1, "one scope for all calls"
        given, timestamp = sent[0]
        strong = level == "Strong" or (level is None and own == ConsistencyLevel.Strong)
        assert (given, timestamp > 2) == (("Customized", True) if strong else (level, False))


def test_rows_that_were_just_written_are_found(collection):
    for number, query in enumerate(QUERIES, 1000):
        collection.insert(query[None], {"id": [number], "year": [8]})
        ((hit,),) = collection.search(query, limit=1, output_fields=["year"], consistency_level="Strong")
        assert (hit.id, hit.fields) == (number, {"year": 8})
        collection.delete([number])
        ((hit,),) = collection.search(query, limit=1, consistency_level="Strong")
        assert hit.id != number
