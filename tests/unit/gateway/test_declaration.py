"""Declarations of index types: errors in the words of an SDK."""

from __future__ import annotations

import pytest
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.create import new_lowering
from alula.encoders import load_encoder
from alula.gateway.declaration import as_index_params, lowered
from alula.index_types import Capabilities, check_options, index_type
from tests.tiny_encoders import write_drq


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ('use layout="hamming".', 'use params={"layout": "hamming"}.'),
        ("without them (keep_vectors=False).", 'without them (params={"keep_vectors": false}).'),
        ("raise candidates=100 or rerank=...", 'raise params={"candidates": 100} or params={"rerank": ...}'),
        ('use index_type="DRQ" or metric="L2".', 'use index_type="DRQ" or metric_type="L2".'),
        ("The filter 'bits=3' and timeout=3 stay.", "The filter 'bits=3' and timeout=3 stay."),
    ],
)
def test_arguments_become_parameters(message, spelled):
    assert as_index_params(message) == spelled


def test_a_schema_says_which_fields_are_mapped_in_milvus_own_words(tmp_path):
    """FLAT indexes are never built, so the type parameters decide where vectors lie."""
    drq = index_type("DRQ")
    server = Capabilities("Milvus 9", frozenset({"BIN_FLAT", "several_vector_fields"}))
    lowering = new_lowering(
        drq,
        load_encoder(write_drq(tmp_path / "drq.onnx").path),
        "embedding",
        server,
        keep_vectors=True,
        options=check_options(drq.create_options, {"layout": "hamming"}, "DRQ"),
    )
    schema = schema_pb2.CollectionSchema()
    schema.fields.add(name="id", data_type=DataType.INT64, is_primary_key=True)
    schema.fields.add(name="embedding", data_type=DataType.FLOAT_VECTOR).type_params.add(key="dim", value="8")
    fields = {f.name: {pair.key: pair.value for pair in f.type_params} for f in lowered(schema, lowering).fields}
    assert fields["embedding"] == {"dim": "8", "mmap.enabled": "true"}
    assert fields["embedding__drq_sign"] == {"dim": "32", "mmap.enabled": "false", "warmup": "sync"}
