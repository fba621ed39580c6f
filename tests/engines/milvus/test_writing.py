"""Requests built from columns write what pymilvus would write from rows."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import scipy.sparse as sp
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError
from alula.index_types import FieldSpec
from alula.ingest.compare_rows import same_rows
from alula.milvus import send, slices, write_request
from alula.milvus import writing as requests

ROWS, DIM = 50, 8
SCALARS = (
    FieldSpec("id", "INT64", 8),
    FieldSpec("yes", "BOOL", 1),
    FieldSpec("tiny", "INT8", 1),
    FieldSpec("small", "INT16", 2),
    FieldSpec("medium", "INT32", 4),
    FieldSpec("single", "FLOAT", 4),
    FieldSpec("double", "DOUBLE", 8),
    FieldSpec("word", "VARCHAR", 0, {"max_length": 100}),
)
BINARY = FieldSpec("signs", "BINARY_VECTOR", 2, {"dim": 16})
FLOATS = FieldSpec("vector", "FLOAT_VECTOR", 4 * DIM, {"dim": DIM})
SPARSE = FieldSpec("weights", "SPARSE_FLOAT_VECTOR", 8 * 3)
ARRAY = FieldSpec("kept", "ARRAY", 4 * DIM, {"element_type": "FLOAT", "max_capacity": DIM})
IN_LITE = (*SCALARS, BINARY, FLOATS, SPARSE)
IN_SERVER = (*SCALARS, BINARY, ARRAY)


def columns(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "id": np.arange(ROWS) - 5,
        "yes": [bool(i % 3) for i in range(ROWS)],
        "tiny": rng.integers(-128, 128, ROWS).astype(np.int8),
        "small": rng.integers(-(2**15), 2**15, ROWS).astype(np.int16),
        "medium": rng.integers(-(2**31), 2**31, ROWS).astype(np.int32),
        "single": rng.standard_normal(ROWS).astype(np.float32),
        "double": rng.standard_normal(ROWS),
        "word": [f"wörd 🪁 {i} {seed}" for i in range(ROWS)],
        "signs": rng.integers(0, 256, (ROWS, 2), np.uint8),
        "vector": rng.standard_normal((ROWS, DIM)).astype(np.float32),
        "kept": rng.standard_normal((ROWS, DIM)).astype(np.float32),
        "weights": sp.random_array((ROWS, 1000), density=0.003, format="csr", dtype=np.float32, rng=rng)
        + sp.csr_array((np.ones(ROWS, np.float32), (np.arange(ROWS), np.full(ROWS, 999))), shape=(ROWS, 1000)),
    }


@pytest.fixture
def made(engine, collection_name):
    """An empty collection with every type that the engine has, and its fields."""
    fields = IN_LITE if engine.embedded else IN_SERVER
    client = engine.client
    schema, index = client.create_schema(auto_id=False), client.prepare_index_params()
    kinds = {"BINARY_VECTOR": ("BIN_FLAT", "HAMMING"), "FLOAT_VECTOR": ("FLAT", "L2")}
    for field in fields:
        params = dict(field.params)
        if "element_type" in params:
            params["element_type"] = DataType[params["element_type"]]
        schema.add_field(field.name, DataType[field.data_type], is_primary=field.name == "id", **params)
        if field.data_type.endswith("VECTOR"):
            index_type, metric = kinds.get(field.data_type, ("SPARSE_INVERTED_INDEX", "IP"))
            index.add_index(field.name, index_type=index_type, metric_type=metric)
    client.create_collection(collection_name, schema=schema)
    client.create_index(collection_name, index)
    client.load_collection(collection_name)
    yield collection_name, fields
    client.drop_collection(collection_name)


def write(engine, name, given, fields, start=0, stop=ROWS, *, upsert=False):
    send(engine, write_request(name, given, fields, start, stop, partition="", upsert=upsert), 30)


def stored(engine, name):
    rows = engine.client.query(
        name, filter="id >= -5", output_fields=["*"], consistency_level="Strong", limit=10 * ROWS
    )
    return {row["id"]: row for row in rows}, len(rows)


def test_every_type_arrives_bit_for_bit(engine, made):
    name, fields = made
    given = columns()
    write(engine, name, given, fields, 0, 20)
    write(engine, name, given, fields, 20, ROWS)
    rows, count = stored(engine, name)
    assert count == ROWS
    for i in range(ROWS):
        assert same_rows(rows[i - 5], given, i, fields) is None
    for field in fields[1:]:  # and the comparison sees a difference in each of them
        other = {**given, field.name: columns(seed=1)[field.name]}
        if field.name != "yes":
            assert same_rows(rows[20], other, 25, fields) == field.name


def test_rows_that_pymilvus_wrote_are_the_same(engine, made):
    name, fields = made
    given = columns()

    def plain(field, i):
        value = given[field.name][i]
        if field.data_type == "BINARY_VECTOR":
            return value.tobytes()
        if field.data_type == "SPARSE_FLOAT_VECTOR":
            row = given[field.name][[i]]
            return dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

    engine.client.insert(name, [{field.name: plain(field, i) for field in fields} for i in range(ROWS)])
    rows, _ = stored(engine, name)
    assert [same_rows(rows[i - 5], given, i, fields) for i in range(ROWS)] == [None] * ROWS


def test_an_upsert_replaces(standalone, collection_name, request):
    engine = standalone
    name, fields = collection_name, (*SCALARS[:1], BINARY)
    schema, index = engine.client.create_schema(auto_id=False), engine.client.prepare_index_params()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("signs", DataType.BINARY_VECTOR, dim=16)
    index.add_index("signs", index_type="BIN_FLAT", metric_type="HAMMING")
    engine.client.create_collection(name, schema=schema, index_params=index)
    request.addfinalizer(lambda: engine.client.drop_collection(name))
    write(engine, name, columns(), fields)
    write(engine, name, columns(seed=1), fields, upsert=True)
    rows, _ = stored(engine, name)
    count = engine.client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    assert count[0]["count(*)"] == ROWS
    assert [same_rows(rows[i - 5], columns(seed=1), i, fields) for i in range(ROWS)] == [None] * ROWS


def test_slices_are_of_the_wanted_size(monkeypatch):
    given = columns()
    for size in (1, 200, 1000, 10**6):
        monkeypatch.setattr(requests, "REQUEST_BYTES", size)
        cut = list(slices(given, IN_LITE))
        assert cut[0][0] == 0
        assert cut[-1][1] == ROWS
        assert [b for _, b in cut[:-1]] == [a for a, _ in cut[1:]]
        for a, b in cut:
            request = write_request("x", given, IN_LITE, a, b, partition="", upsert=False)
            assert b == a + 1 or request.ByteSize() < 1.5 * size + 1000
    assert list(slices({"id": np.arange(0)}, SCALARS[:1])) == []


def test_what_milvus_refuses_is_raised_once(engine, made, monkeypatch):
    name, fields = made
    request = write_request(f"{name}_missing", columns(), fields, 0, 5, partition="", upsert=False)
    with pytest.raises((MilvusException, grpc.RpcError)):
        send(engine, request, 10)
    with pytest.raises(ServerError, match="cannot write fields of the type GEOMETRY"):
        write_request(name, {"x": [1]}, [FieldSpec("x", "GEOMETRY", 8)], 0, 1, partition="", upsert=False)
