"""An answer's vectors are the same whether they are taken flat from it or unpacked by pymilvus."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pymilvus import DataType

from alula.index_types import FieldSpec
from alula.milvus.wire.query_results import to_arrow
from alula.milvus.wire.types import arrow_field
from alula.milvus.wire.vectors import SPARSE_PAIR
from tests.tiny_encoders import random_vectors

SPECS = [
    FieldSpec("key", "INT64", 8),
    FieldSpec("bits", "BINARY_VECTOR", 3, {"dim": 24}),
    FieldSpec("sparse", "SPARSE_FLOAT_VECTOR", 8),
    FieldSpec("floats", "FLOAT_VECTOR", 20, {"dim": 5}),
    FieldSpec("list", "ARRAY", 8, {"element_type": "FLOAT", "max_capacity": 4}),
    FieldSpec("word", "VARCHAR", 9),
]
COUNT = 30
FLOATS = random_vectors(COUNT, 5)
HELD = [
    {
        "key": i,
        "bits": bytes([i, 255 - i, 7]),
        "sparse": {3 * i: 0.5, 70_000 + i: 0.25 + i} if i % 2 else {i: 1.5},
        "floats": FLOATS[i].tolist(),
        "list": [float(i), 0.5],
        "word": f"w{i}",
    }
    for i in range(COUNT)
]


@pytest.fixture(scope="module")
def answer(lite):
    client = lite.client
    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("bits", DataType.BINARY_VECTOR, dim=24)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("floats", DataType.FLOAT_VECTOR, dim=5)
    schema.add_field("list", DataType.ARRAY, element_type=DataType.FLOAT, max_capacity=4)
    schema.add_field("word", DataType.VARCHAR, max_length=9)
    index = client.prepare_index_params()
    index.add_index("bits", index_type="BIN_FLAT", metric_type="HAMMING")
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    index.add_index("floats", index_type="FLAT", metric_type="L2")
    client.create_collection("answers", schema=schema, index_params=index)
    client.insert("answers", HELD)
    return lambda: client.query("answers", filter="key >= 0", output_fields=[spec.name for spec in SPECS], limit=COUNT)


def test_what_was_written_comes_back(answer):
    schema = pa.schema(map(arrow_field, SPECS))
    for rows in (answer(), list(answer()), [dict(row) for row in answer()]):
        page = to_arrow(rows, schema).sort_by("key")
        assert page.schema == schema
        for i, row in enumerate(page.to_pylist()):
            pairs = np.frombuffer(row["sparse"], SPARSE_PAIR)
            assert dict(pairs.tolist()) == HELD[i]["sparse"]
            np.testing.assert_array_equal(np.array(row["floats"], np.float32), FLOATS[i])
            assert {**row, "sparse": 0, "floats": 0} == {**HELD[i], "sparse": 0, "floats": 0}


def test_some_fields_in_another_order(answer):
    schema = pa.schema([arrow_field(SPECS[5]), arrow_field(SPECS[1])])
    page = to_arrow(answer(), schema)
    assert sorted(page.column("word").to_pylist()) == sorted(row["word"] for row in HELD)
