"""The fields of a collection that can be read as columns."""

from __future__ import annotations

import pyarrow as pa
from pymilvus import DataType
from pymilvus.client.utils import convert_struct_fields_to_user_format

from alula.ingest.collection_source import _schema

KEY = {"name": "id", "type": DataType.INT64, "is_primary": True}


def test_struct_arrays_are_left_out_with_their_type():
    """As pymilvus describes them: Milvus has a struct of arrays, and shows an array of structs."""
    parts = {"max_capacity": 8}
    text = {"name": "chunks[text]", "type": DataType.ARRAY, "element_type": DataType.VARCHAR, "params": parts}
    chunks = convert_struct_fields_to_user_format([{"name": "chunks", "fields": [text]}])
    tags = {"name": "tags", "type": DataType.ARRAY, "element_type": DataType.VARCHAR, "params": {"max_length": 9}}
    schema, others = _schema({"fields": [KEY, tags, *chunks]}, None)
    assert {field.name: field.type for field in schema} == {"id": pa.int64(), "tags": pa.list_(pa.string())}
    assert others == {"chunks": "ARRAY of STRUCT"}
