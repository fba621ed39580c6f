"""Fields without a value, which of the engines of these tests Milvus Lite 3 alone has."""

from __future__ import annotations

import json

import pytest
from pymilvus import DataType

import alula
from alula.catalog.schema import ScalarField
from alula.ingest.collection_source import CollectionSource
from alula.migration.migrate import Migration
from alula.migration.source_collection import read_source_collection
from alula.milvus.schema_fields import add_field
from tests.tiny_encoders import random_vectors, write_drq

DIM = 8
ROWS = [
    {"year": 1, "word": None, "about": {"a": 1}, "tags": None, "share": 0.5},
    {"year": None, "word": "a", "about": None, "tags": [7], "share": None},
    {"year": -(2**60), "word": "", "about": {}, "tags": [], "share": -0.0},
    {"year": None, "word": None, "about": None, "tags": None, "share": None},
]
FIELDS = {
    "year": "INT64",
    "word": "VARCHAR(9)",
    "about": "JSON",
    "tags": "ARRAY<INT32>(3)",
    "share": "DOUBLE",
}


@pytest.fixture
def server(database):
    with alula.connect(database.uri) as connected:
        yield connected


@pytest.fixture
def drq(tmp_path):
    return write_drq(tmp_path / "drq.onnx", input_dim=DIM).path


def stored(server, name):
    rows = server.client.query(name, filter="id >= 0", output_fields=["id", *FIELDS])
    return [{field: row[field] for field in FIELDS} for row in sorted(rows, key=lambda row: row["id"])]


def test_rows_without_values_are_loaded(server, drq, tmp_path):
    columns = [f"{name}:{kind}:nullable" for name, kind in FIELDS.items()]
    made = alula.Collection.create(server, "one", encoder=drq, index_type="DRQ", columns=columns)
    vectors = random_vectors(len(ROWS), DIM).tolist()
    lines = [json.dumps({"id": i, "vector": vectors[i], **row}) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    report = made.load(tmp_path / "rows.jsonl", vector_column="vector")
    assert (report.rows, report.bad, report.verification.different) == (4, 0, ())
    assert stored(server, "one") == ROWS
    (hits,) = made.search(random_vectors(1, DIM), filter="year is null", output_fields=["tags"])
    assert {hit.id: hit.fields["tags"] for hit in hits} == {1: [7], 3: None}


def test_rows_without_values_are_migrated(server, drq):
    client = server.client
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    for name, kind in FIELDS.items():
        add_field(schema, ScalarField.parse(f"{name}:{kind}:nullable").spec)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("plain", schema=schema, index_params=index)
    vectors = random_vectors(len(ROWS), DIM).tolist()
    client.insert("plain", [{"id": i, "vector": vectors[i], **row} for i, row in enumerate(ROWS)])
    (batch,) = CollectionSource(server, "plain").batches()
    assert batch.columns["year"].to_pylist() == [row["year"] for row in ROWS]
    described = read_source_collection(server, "plain")
    assert [str(field) for field in described.fields] == [f"{name}:{kind}:nullable" for name, kind in FIELDS.items()]
    done = Migration(described, "new", encoder=drq, index_type="DRQ").run(queries=2)
    assert (done.settled, done.bad) == (True, 0)
    assert stored(server, "new") == ROWS


def test_a_source_may_lack_such_a_column(server, drq):
    columns = ["year:INT64:nullable", "word:VARCHAR(9)"]
    made = alula.Collection.create(server, "one", encoder=drq, index_type="DRQ", columns=columns)
    made.insert(random_vectors(2, DIM), {"id": [1, 2], "word": ["a", "b"]})
    assert made.fetch([1, 2], ["year", "word"]) == {1: {"year": None, "word": "a"}, 2: {"year": None, "word": "b"}}
    with pytest.raises(alula.AlulaError, match="lacks the column 'word'"):
        made.insert(random_vectors(2, DIM), {"id": [1, 2], "year": [1, None]})
