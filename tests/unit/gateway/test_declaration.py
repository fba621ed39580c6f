"""Declarations of index types: errors in the words of an SDK."""

from __future__ import annotations

import pytest
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.create import new_lowering
from alula.encoders import load_encoder
from alula.errors import UsageError
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


@pytest.fixture
def lowering(tmp_path):
    """DRQ on a field of 8 dimensions, on a server that keeps vectors in a field."""
    drq = index_type("DRQ")
    return new_lowering(
        drq,
        load_encoder(write_drq(tmp_path / "drq.onnx").path),
        "embedding",
        Capabilities("Milvus 9", frozenset({"BIN_FLAT", "several_vector_fields"})),
        keep_vectors=True,
        vector_type="FLOAT_VECTOR",
        options=check_options(drq.create_options, {"layout": "hamming"}, "DRQ"),
    )


def declared_schema(params=(("dim", "8"),), **extra):
    """A client's schema with a vector field."""
    schema = schema_pb2.CollectionSchema()
    schema.fields.add(name="id", data_type=DataType.INT64, is_primary_key=True)
    vector = schema.fields.add(name="embedding", data_type=DataType.FLOAT_VECTOR, **extra)
    for key, value in params:
        vector.type_params.add(key=key, value=value)
    return schema


def stored_params(schema, lowering):
    """The type parameters of the stored fields, by field."""
    return {f.name: {pair.key: pair.value for pair in f.type_params} for f in lowered(schema, lowering).fields}


def test_a_schema_says_which_fields_are_mapped_in_milvus_own_words(lowering):
    """FLAT indexes are never built, so the type parameters decide where vectors lie."""
    fields = stored_params(declared_schema(), lowering)
    assert fields["embedding"] == {"dim": "8", "mmap.enabled": "true"}
    assert fields["embedding__drq_sign"] == {"dim": "32", "mmap.enabled": "false", "warmup": "sync"}


def test_a_vector_field_keeps_its_clients_attributes(lowering):
    given = declared_schema((("dim", "8"), ("mmap.enabled", "false"), ("warmup", "sync")), description="words")
    assert stored_params(given, lowering)["embedding"] == {"dim": "8", "mmap.enabled": "false", "warmup": "sync"}
    assert [f.description for f in lowered(given, lowering).fields if f.name == "embedding"] == ["words"]


def test_a_nullable_vector_field_is_refused(lowering):
    with pytest.raises(UsageError, match="'embedding' is nullable, and DRQ encodes a vector for each row"):
        lowered(declared_schema(nullable=True), lowering)
