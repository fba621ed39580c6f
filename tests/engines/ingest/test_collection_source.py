"""A collection as a source gives each row once, in the order of its keys, from every engine."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from pymilvus import DataType

from alula.errors import UsageError
from alula.ingest.collection_source import CollectionSource
from alula.ingest.journal import Journal
from alula.ingest.pipeline import LocalEngine
from alula.ingest.plan import plan_load
from alula.milvus import any_of, reading
from alula.milvus.wire.query_results import to_float32
from alula.sources.json_values import DOCUMENT
from tests.small_collections import ROWS, Rows
from tests.tiny_encoders import random_vectors, write_drq

COUNT, DIM = 2400, 6
BEGINNINGS = ["é", "a", "Z", "😀", "_", 'say "', "back\\", "b c", "ﬀ", "%"]


def keys(kind):
    rng = random.Random(1)
    if kind == "INT64":
        found = [*range(-COUNT // 2, COUNT // 2 - 2), 2**63 - 2, -(2**63) + 1]  # 2.3 never gives 2**63 - 1 back
    else:
        found = [f"{BEGINNINGS[i % len(BEGINNINGS)]}{i}" for i in range(COUNT)]
    rng.shuffle(found)
    return found


def make(server, name, kind):
    """Rows in several segments, some deleted, replaced or written again; what is there in the end, by key."""
    client = server.client
    if client.has_collection(name):
        client.drop_collection(name)
    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType[kind], is_primary=True, **({"max_length": 60} if kind == "VARCHAR" else {}))
    schema.add_field("number", DataType.INT32)
    schema.add_field("word", DataType.VARCHAR, max_length=40)
    schema.add_field("share", DataType.DOUBLE)
    schema.add_field("extra", DataType.JSON)
    schema.add_field("emb", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index("emb", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)
    ids, vectors, held = keys(kind), random_vectors(COUNT, DIM), {}

    def rows(some, number):
        made = [
            {"key": key, "number": number, "word": f"w{key}", "share": 0.5, "extra": {}, "emb": vectors[i].tolist()}
            for i, key in enumerate(some)
        ]
        held.update((row["key"], row) for row in made)
        return made

    for start in range(0, COUNT, 600):
        client.insert(name, rows(ids[start : start + 600], start))
        if start == 600 and not server.embedded:
            client.flush(name)
    for key in ids[100:2300:10]:
        del held[key]
    client.delete(name, filter=any_of("key", ids[100:2300:10]))
    client.upsert(name, rows(ids[1::40], -1))
    client.insert(name, rows(ids[100:2300:100], -2))
    return held


@pytest.fixture(scope="module", params=["INT64", "VARCHAR"])
def filled(request, engine):
    name = f"source_{request.param.lower()}"
    yield name, make(engine, name, request.param)
    engine.client.drop_collection(name)


def in_order(held):
    return sorted(held, key=lambda key: key.encode() if isinstance(key, str) else key)


@pytest.mark.parametrize("most", [70, 16384])
def test_every_row_once_in_the_order_of_the_keys(engine, filled, monkeypatch, most):
    monkeypatch.setattr(reading, "MAX_PAGE_ROWS", most)
    name, held = filled
    source = CollectionSource(engine, name)
    assert (source.rows, source.dim, source.unique, source.fingerprint) == (len(held), DIM, True, "")
    assert source.left_out == {}
    key_type = pa.string() if isinstance(next(iter(held)), str) else pa.int64()
    types = {"key": key_type, "number": pa.int32(), "word": pa.string(), "share": pa.float64(), "extra": DOCUMENT}
    assert source.scalars == types
    batches = list(source.batches(500))
    assert [len(batch) for batch in batches[:-1]] == [500] * (len(batches) - 1)
    assert [batch.start for batch in batches] == list(range(0, len(held), 500))
    found = [key for batch in batches for key in batch.columns["key"].to_pylist()]
    wanted = in_order(held)
    assert found == wanted
    assert [batch.span for batch in batches] == [
        (wanted[start], wanted[min(start + 500, len(held)) - 1]) for start in range(0, len(held), 500)
    ]
    for column in ("number", "word", "share"):
        values = [value for batch in batches for value in batch.columns[column].to_pylist()]
        assert values == [held[key][column] for key in wanted]
    vectors = np.concatenate([batch.inputs for batch in batches])
    np.testing.assert_array_equal(vectors, np.array([held[key]["emb"] for key in wanted], np.float32))
    assert batches[1].row(3).to_pylist()[0]["key"] == wanted[503]
    assert [key for page in source.keys("key") for key in page.to_pylist()] == wanted
    assert [word for page in source.keys("word") for word in page.to_pylist()] == [f"w{key}" for key in wanted]


def test_from_a_cursor_on(engine, filled):
    name, held = filled
    source, wanted = CollectionSource(engine, name), in_order(held)
    first, *rest = source.batches(700)
    again = list(source.batches(700, after=first.span[1], start=700))
    assert [batch.start for batch in again] == [batch.start for batch in rest]
    assert [key for batch in again for key in batch.columns["key"].to_pylist()] == wanted[700:]
    assert list(source.batches(700, after=wanted[-1])) == []


def test_with_a_filter(engine, filled):
    name, held = filled
    source = CollectionSource(engine, name, filter="number < 0 or number == 600")
    wanted = [key for key in in_order(held) if held[key]["number"] in (-1, -2, 600)]
    assert source.rows == len(wanted)
    assert [key for batch in source.batches(100) for key in batch.columns["key"].to_pylist()] == wanted
    with pytest.raises(UsageError, match="cannot use the filter"):
        CollectionSource(engine, name, filter="number <")


def test_texts(engine, filled):
    name, held = filled
    source = CollectionSource(engine, name, input="text", text_field="word", filter="number == -2")
    (batch,) = source.batches()
    assert batch.inputs == batch.columns["word"].to_pylist()
    assert batch.inputs == [f"w{key}" for key in in_order(held) if held[key]["number"] == -2]
    assert source.left_out == {"emb": "FLOAT_VECTOR"}


def test_rows_too_long_for_one_reply(engine, collection_name, monkeypatch):
    """Pages grow by what the rows before took, so a page of short rows must not be followed by one too large."""
    monkeypatch.setattr(reading, "PAGE_BYTES", 200_000)
    client = engine.client
    client.create_collection(collection_name, dimension=2000, metric_type="L2", auto_id=False)
    vectors = random_vectors(300, 2000)
    for start in range(0, 300, 100):
        client.insert(collection_name, [{"id": i, "vector": vectors[i]} for i in range(start, start + 100)])
    pages = []
    query = client.query
    monkeypatch.setattr(client, "query", lambda *args, **rest: pages.append(query(*args, **rest)) or pages[-1])
    source = CollectionSource(engine, collection_name)
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in source.batches(64)]), vectors)
    assert max(map(len, pages[3:])) <= 3 * 25  # a row takes 8 kB; before came two counts and the first page
    client.drop_collection(collection_name)


def test_one_of_alulas_own(engine, collection_name, tmp_path):
    """The vectors may be kept as lists of floats; the companion fields are nobody's scalars."""
    rows = Rows()
    drq = write_drq(tmp_path / "drq.onnx", input_dim=8)
    made = rows.filled(engine, collection_name, drq, "DRQ")
    source = CollectionSource(engine, collection_name)
    assert (source.dim, source.rows, source.left_out) == (8, ROWS, {})
    assert source.scalars == {"id": pa.string(), "year": pa.int64(), "word": pa.string()}
    order = sorted(range(ROWS), key=lambda i: rows.ids[i])
    batches = list(source.batches(250))
    assert [key for batch in batches for key in batch.columns["id"].to_pylist()] == [rows.ids[i] for i in order]
    assert not any(batch.bad for batch in batches)
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), rows.vectors[order])
    made.drop()


def test_what_is_not_there(engine, filled):
    name, _ = filled
    with pytest.raises(UsageError, match="no collection 'nowhere'"):
        CollectionSource(engine, "nowhere")
    with pytest.raises(UsageError, match=r"has no column 'vec'; its columns are key, number, word, share, extra, emb"):
        CollectionSource(engine, name, vector_field="vec")
    with pytest.raises(UsageError, match="holds no images"):
        CollectionSource(engine, name, input="images")


def test_half_precision():
    numbers = np.array([[1.5, -2.25, 3e-5], [0, 65504, -1]], np.float32)
    halves = numbers.astype(np.float16)
    for given in ([row.tobytes() for row in halves], [[row.tobytes()] for row in halves]):
        np.testing.assert_array_equal(to_float32(given, "FLOAT16_VECTOR"), halves.astype(np.float32))
    exact = np.array([[1.0, -2.5, 3.0e38], [0.0, 1.0078125, -(2.0**-100)]], np.float32)  # 7 bits of fraction suffice
    exact[0, 2] = np.float32(2.0**127)
    upper = [(row.view(np.uint32) >> 16).astype("<u2").tobytes() for row in exact]
    np.testing.assert_array_equal(to_float32(upper, "BFLOAT16_VECTOR"), exact)
    np.testing.assert_array_equal(to_float32(numbers.tolist(), "FLOAT_VECTOR"), numbers)


@pytest.mark.parametrize("kind", [DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR])
def test_half_precision_out_of_an_engine(lite, collection_name, kind):
    client = lite.client
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", kind, dim=4)
    index = client.prepare_index_params()
    index.add_index("v", index_type="FLAT", metric_type="L2")
    client.create_collection(collection_name, schema=schema, index_params=index)
    vectors = np.array([[1, 2, -3.5, 0.25], [4, 5, 6, 7]], np.float32)  # exact in both
    half = vectors.astype(np.float16)
    if kind == DataType.BFLOAT16_VECTOR:
        half = (vectors.view(np.uint32) >> 16).astype("<u2")
    client.insert(collection_name, [{"id": i, "v": half[i].tobytes()} for i in range(2)])
    (batch,) = CollectionSource(lite, collection_name).batches()
    np.testing.assert_array_equal(batch.inputs, vectors)
    client.drop_collection(collection_name)


def test_several_vector_fields_need_a_name(lite, collection_name):
    client = lite.client
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    index = client.prepare_index_params()
    for name in ("v", "w"):
        schema.add_field(name, DataType.FLOAT_VECTOR, dim=4)
        index.add_index(name, index_type="FLAT", metric_type="L2")
    client.create_collection(collection_name, schema=schema, index_params=index)
    with pytest.raises(
        UsageError, match=r"2 columns of number lists \(v, w\); name the one .* \(vector_field=\.\.\.\)"
    ):
        CollectionSource(lite, collection_name)
    assert CollectionSource(lite, collection_name, vector_field="w").column == "w"
    client.drop_collection(collection_name)


def test_a_load_is_resumed_with_the_same_filter_alone(lite, collection_name, tmp_path):
    rows, drq = Rows(), write_drq(tmp_path / "drq.onnx", input_dim=8)
    made = rows.filled(lite, collection_name, drq, "DRQ")
    copy = rows.create(lite, f"{collection_name}_copy", drq, "DRQ")

    def planned(filter):
        source = CollectionSource(lite, collection_name, filter=filter)
        with Journal(tmp_path / "copy.journal") as journal:
            options = {"partition": None, "mode": "auto", "via": "auto", "stage": None, "engine": LocalEngine()}
            return plan_load(journal, copy.target(), source, **options)

    plan = planned("year > 1950")
    for other in ("year > 1960", ""):
        with pytest.raises(UsageError, match=r"another source .* where year > 1950, and now the collection"):
            planned(other)
    assert planned("year > 1950") == plan
    made.drop()
    copy.drop()
