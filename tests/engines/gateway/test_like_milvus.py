"""A field with an index type of Alula's behaves as an ordinary one of Milvus's: the same call to both.

Each collection has the same rows; with every row a candidate, a search ranks by the exact vectors, as FLAT does.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager

import numpy as np
import pytest
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, MilvusClient, MilvusException, connections

from alula import encoder_store
from alula.gateway import search as searching
from tests.engines.gateway.running import RunningGateway
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.lite import connected

ROWS, DIM = 40, 8
VECTORS = random_vectors(ROWS, DIM, seed=1)
OTHERS = random_vectors(ROWS, DIM, seed=2)
QUERY = random_vectors(1, DIM, seed=3).tolist()
KINDS = {
    "DRQ": lambda path: write_drq(path, metric="COSINE"),
    "FLOPS_SPARSE": lambda path: write_flops(path, dim=64, max_nnz=64, metric="COSINE"),
}
EVERY = {"params": {"candidates": ROWS}}


def row(i):
    dynamic = {"seen": i, "left": "x"} if i % 2 else {"seen": i}
    return {
        "id": i,
        "embedding": VECTORS[i].tolist(),
        "other": OTHERS[i].tolist(),
        "group": i % 4,
        "tags": [i],
        **dynamic,
    }


def create(client, name, kind):
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("other", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("group", DataType.INT64)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4)
    index = client.prepare_index_params()
    given = {} if kind == "FLAT" else {"params": {"encoder": kind}}
    index.add_index("embedding", index_type=kind, metric_type="COSINE", **given)
    index.add_index("other", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    client.insert(name, [row(i) for i in range(ROWS)])


@pytest.fixture(scope="module")
def gateway(lite_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    with connected(lite_server.uri) as server, RunningGateway(lite_server.uri) as running:
        for kind, write in KINDS.items():
            encoder_store.push(server, write(folder / f"{kind}.onnx").path, name=kind, replace=True)
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    found = MilvusClient(gateway.uri)
    yield found
    found.close()


@contextmanager
def made(client, kind):
    kinds = ("FLAT", kind)
    names = [f"like_{uuid.uuid4().hex[:12]}_{index}" for index in kinds]
    for name, index in zip(names, kinds, strict=True):
        create(client, name, index)
    yield names
    for name in names:
        client.drop_collection(name)


@pytest.fixture(params=KINDS)
def both(request, client):
    """The names of an ordinary collection and of one with an index type, which hold the same."""
    with made(client, request.param) as names:
        yield names


@pytest.fixture(scope="module", params=KINDS)
def read(request, client):
    """As `both`, for tests that change nothing."""
    with made(client, request.param) as names:
        yield names


def search(client, name, **given):
    given = {"anns_field": "embedding", "limit": 5, "search_params": {"params": {}}, **given}
    if "FLAT" not in name and given["anns_field"] == "embedding":
        given["search_params"] = {"params": {**given["search_params"]["params"], "candidates": ROWS}}
    (hits,) = client.search(name, QUERY, **given)
    return [(hit["id"], hit["distance"], hit["entity"]) for hit in hits]


def same(found, expected):
    assert [(id_, fields) for id_, _, fields in found] == [(id_, fields) for id_, _, fields in expected]
    np.testing.assert_allclose([hit[1] for hit in found], [hit[1] for hit in expected], atol=1e-5)


def test_fields_keep_their_places(client, read, gateway):
    ordinary, ours = (client.describe_collection(name)["fields"] for name in read)
    assert [field["name"] for field in ours] == [field["name"] for field in ordinary]


def test_columns_may_be_inserted_in_the_order_of_the_schema(gateway, client, collection_name):
    fields = [
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("embedding", DataType.FLOAT_VECTOR, dim=DIM),
        FieldSchema("other", DataType.FLOAT_VECTOR, dim=DIM),
    ]
    connections.connect("ordered", uri=gateway.uri)
    try:
        made = Collection(collection_name, CollectionSchema(fields), using="ordered", consistency_level="Strong")
        made.create_index("other", {"index_type": "FLAT", "metric_type": "COSINE"})
        declared = {"index_type": "DRQ", "metric_type": "COSINE", "params": {"encoder": "DRQ"}}
        made.drop_index(index_name="other")
        made.create_index("embedding", declared)
        made.create_index("other", {"index_type": "FLAT", "metric_type": "COSINE"})
        again = Collection(collection_name, CollectionSchema(fields), using="ordered")  # as a program's next start does
        again.insert([[1], VECTORS[:1].tolist(), OTHERS[:1].tolist()])
        again.load()
        (held,) = client.query(collection_name, "id == 1", output_fields=["*"])
    finally:
        connections.disconnect("ordered")
        client.drop_collection(collection_name)
    np.testing.assert_array_equal(np.float32(held["embedding"]), VECTORS[0])
    np.testing.assert_array_equal(np.float32(held["other"]), OTHERS[0])


@pytest.mark.parametrize("fields", [[], ["seen"], ["seen", "group"], ["*"], ["nothing"], ["group", "id"]])
@pytest.mark.parametrize("searched", ["embedding", "other"])
def test_dynamic_fields_are_those_that_were_asked_for(client, read, fields, searched):
    ordinary, ours = (search(client, name, anns_field=searched, output_fields=fields) for name in read)
    for hits in (ordinary, ours):
        for _, _, held in hits:
            for name in ("embedding", "other"):
                if name in held:
                    held[name] = np.round(held[name], 5).tolist()
    same(ours, ordinary)


@pytest.mark.parametrize("dropped", ["other", "nothing", "embedding"])
def test_an_index_is_dropped_by_its_own_name(client, both, dropped, lite_server):
    left = []
    for name in both:
        client.release_collection(name)
        client.drop_index(name, dropped)
        left.append(sorted(client.list_indexes(name)))
    assert left[0] == left[1]
    with connected(lite_server.uri) as server:
        behind = server.client.list_indexes(both[1])
        fields = {server.client.describe_index(both[1], index)["field_name"].split("__")[0] for index in behind}
    assert fields == set(left[0])


def test_a_search_without_its_index_names_the_field_that_clients_know(client, both):
    name = both[1]
    client.release_collection(name)
    client.drop_index(name, "embedding")
    with pytest.raises(MilvusException) as refused:
        search(client, name)
    assert "embedding" in refused.value.message
    assert "embedding__" not in refused.value.message


def walk(client, name):
    """What an iterator finds from its begin to its end."""
    given = {} if "FLAT" in name else {"search_params": EVERY}
    iterator = client.search_iterator(name, QUERY, anns_field="embedding", batch_size=7, **given)
    found = []
    while page := iterator.next():
        found += [hit["id"] for hit in page]
    iterator.close()
    return found


def test_a_new_iterator_sees_what_is_there_now(client, both):
    ordinary, ours = (walk(client, name) for name in both)
    assert ours == ordinary
    for name in both:
        client.delete(name, ids=ours[:3])
        client.insert(name, [{**row(0), "id": 1000, "embedding": QUERY[0]}])
    assert walk(client, both[1]) == walk(client, both[0]) == [1000, *ours[3:]]


def test_rows_that_are_deleted_under_an_iterator_do_not_end_it(client, both):
    name = both[1]
    order = walk(client, name)
    iterator = client.search_iterator(
        name, QUERY, anns_field="embedding", batch_size=4, output_fields=["group"], search_params=EVERY
    )
    found = [hit["id"] for hit in iterator.next()]
    client.delete(name, ids=order[4:14])
    while page := iterator.next():
        found += [hit["id"] for hit in page]
    assert found == order[:4] + order[14:]


def test_two_iterators_over_the_same_do_not_share_their_rows(client, both):
    name = both[1]
    given = {"anns_field": "embedding", "batch_size": 10, "search_params": EVERY}
    one = client.search_iterator(name, QUERY, **given)
    best = [hit["id"] for hit in one.next()]
    client.insert(name, [{**row(0), "id": 1000, "embedding": QUERY[0]}])
    two = client.search_iterator(name, QUERY, **given)
    assert [hit["id"] for hit in two.next()] == [1000, *best[:9]]
    assert best[0] not in [hit["id"] for hit in one.next()]


REFUSED = {
    "no such field": ({"group_by_field": "nothing"}, "'nothing'"),
    "a dynamic field": ({"group_by_field": "seen"}, "'seen'"),
    "an array": ({"group_by_field": "tags"}, "ARRAY"),
    "a vector": ({"group_by_field": "embedding"}, "FLOAT_VECTOR"),
    "a companion": ({"anns_field": "embedding__COMPANION"}, "has no field 'embedding__"),
    "no group": ({"group_by_field": "group", "group_size": 0}, "group_size"),
    "reversed": ({"search_params": {"params": {"radius": 0.9, "range_filter": 0.5}}}, "greater than radius"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_refusals_are_sentences_and_come_at_once(client, read, wrong):
    given, words = REFUSED[wrong]
    companion = "flops" if read[1].endswith("FLOPS_SPARSE") else "drq_sign"
    given = {k: v.replace("COMPANION", companion) if isinstance(v, str) else v for k, v in given.items()}
    with pytest.raises(MilvusException, match=words) as refused:
        search(client, read[1], **given)
    assert refused.value.code == 1100


def test_groups_are_milvus_own(client, read):
    found = [search(client, name, group_by_field="group", output_fields=["group"], limit=4) for name in read]
    same(found[1], found[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[]], "empty or not all of one length. It takes 8 dimensions"),
        ([VECTORS[0].tolist(), VECTORS[1].tolist()[:7]], "not all of one length. It takes 8 dimensions"),
    ],
)
def test_vectors_of_wrong_lengths_are_refused_with_the_right_one(client, read, given, words):
    rows = [{**row(0), "id": 2000 + i, "embedding": vector} for i, vector in enumerate(given)]
    with pytest.raises(MilvusException, match=words):
        client.insert(read[1], rows)


def test_texts_for_an_encoder_of_vectors(client, read):
    with pytest.raises(MilvusException, match="takes no texts"):
        client.search(read[1], ["hello"], anns_field="embedding", limit=3)


def test_an_encoder_of_the_other_kind_is_named_as_the_client_named_it(client, collection_name):
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLOPS_SPARSE", metric_type="COSINE", params={"encoder": "DRQ"})
    client.create_collection(collection_name, schema=schema)
    try:
        with pytest.raises(MilvusException, match="and DRQ is of the kind 'drq'"):
            client.create_index(collection_name, index)
    finally:
        client.drop_collection(collection_name)


def test_what_fails_unexpectedly_is_told_once(client, read, monkeypatch):
    asked = []

    def fails(*_):
        asked.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(searching, "rank", fails)
    with pytest.raises(MilvusException, match=r"failed unexpectedly \(ZeroDivisionError\)"):
        search(client, read[1])
    assert len(asked) == 1
