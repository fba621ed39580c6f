"""The fields of hits are read from the message as pymilvus unpacks them."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType
from pymilvus.client.search_result import SearchResult
from pymilvus.grpc_gen import schema_pb2

from alula.index_types import FieldSpec
from alula.milvus.wire.field_data import write_column
from alula.milvus.wire.query_results import hit_columns
from tests.tiny_encoders import random_vectors

DIM, HITS = 8, (3, 0, 2)  # of three queries


@pytest.mark.parametrize("data_type", ["FLOAT_VECTOR", "FLOAT16_VECTOR"])
def test_vectors_of_the_hits_of_each_query(data_type):
    vectors = random_vectors(sum(HITS), DIM, seed=3)
    found = schema_pb2.SearchResultData(num_queries=len(HITS), top_k=max(HITS), topks=HITS, output_fields=["vector"])
    found.ids.int_id.data.extend(range(sum(HITS)))
    found.scores.extend([0.0] * sum(HITS))
    field = found.fields_data.add(field_name="vector", type=DataType[data_type])
    write_column(field, vectors, FieldSpec("vector", data_type, 0, {"dim": DIM}))
    stored = vectors.astype(np.float16 if data_type == "FLOAT16_VECTOR" else np.float32)
    columns = hit_columns(SearchResult(found), ["vector"])
    start = 0
    for count, column in zip(HITS, columns, strict=True):
        assert np.array_equal(column["vector"], stored[start : start + count].astype(np.float32))
        start += count
