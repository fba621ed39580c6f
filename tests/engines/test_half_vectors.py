"""Vectors kept in half precision: the rounded vectors rank, in every way of reading them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymilvus import DataType

import alula
from alula.errors import DataError, UnsupportedError, UsageError
from alula.migration.migrate import Migration
from alula.migration.source_collection import read_source_collection
from tests.small_collections import DIM, ROWS, Rows, best, scores
from tests.tiny_encoders import random_vectors, write_drq

HALF = "FLOAT16_VECTOR"
ROWS_HELD = Rows()
QUERIES = random_vectors(5, DIM, seed=7)
EXACT = {"candidates": ROWS}  # every row, so that ranks are those of brute force
ERROR = 2e-3  # 11 bits of both vectors, with cosines up to 1


@pytest.fixture(scope="module")
def drq(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoders") / "drq.onnx", input_dim=DIM)


@pytest.fixture
def filled(lite, drq, collection_name):
    return ROWS_HELD.filled(lite, collection_name, drq, "DRQ", vector_type=HALF)


def rounded(vectors):
    return vectors.astype(np.float16).astype(np.float32)


def test_searches_rank_by_the_rounded_vectors(filled):
    found = filled.search(QUERIES, limit=20, **EXACT)
    for query, hits in zip(QUERIES, found, strict=True):
        # Milvus takes queries of the field's own type, so that its scores are those of a rounded query
        true = scores(rounded(query), rounded(ROWS_HELD.vectors), "COSINE")
        assert [hit.id for hit in hits] == [ROWS_HELD.ids[i] for i in best(true, 20, "COSINE")]
        assert all(hit.exact for hit in hits)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(true)[::-1][:20], rtol=0, atol=1e-6)
        np.testing.assert_allclose(true, scores(query, ROWS_HELD.vectors, "COSINE"), rtol=0, atol=ERROR)


def test_scores_stay_when_fields_are_read_with_them(filled):
    (hits,) = filled.search(QUERIES[:1], limit=5, **EXACT, output_fields=["word"])
    true = scores(QUERIES[0], rounded(ROWS_HELD.vectors), "COSINE")
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(true)[::-1][:5], rtol=0, atol=1e-6)
    assert [hit.fields["word"] for hit in hits] == [f"w{i}" for i in best(true, 5, "COSINE")]


def test_a_row_is_found_by_its_own_vector(filled):
    liked = filled.search_like("it's", limit=3, **EXACT)
    true = scores(rounded(ROWS_HELD.vectors)[0], rounded(ROWS_HELD.vectors), "COSINE")
    assert [hit.id for hit in liked] == [ROWS_HELD.ids[i] for i in best(true, 4, "COSINE")[1:]]


def test_the_collection_says_what_a_vector_takes(filled, lite, drq):
    opened = alula.Collection.open(lite, filled.name, encoder=drq.path)
    assert opened.lowering.field.vector_type == HALF
    assert opened.spec.cost.memory["kept vectors"] == 2 * DIM  # Milvus Lite maps nothing
    fields = {field["name"]: field["type"] for field in lite.client.describe_collection(filled.name)["fields"]}
    assert fields["embedding"] == DataType.FLOAT16_VECTOR
    # an Alula that knows no half precision must not open it
    assert alula.describe(lite, filled.name).settings["format"] == "2"


def test_collections_of_float_vectors_stay_readable_for_earlier_versions(lite, drq, collection_name):
    ROWS_HELD.create(lite, collection_name, drq, "DRQ")
    settings = alula.describe(lite, collection_name).settings
    assert settings["format"] == "1"
    assert "vector_type" not in settings


def test_a_replica_holds_the_rounded_vectors(filled):
    replica = alula.Replica(filled, vectors=True)
    for query, hits in zip(QUERIES, replica.search(QUERIES, limit=10, **EXACT), strict=True):
        true = scores(query, rounded(ROWS_HELD.vectors), "COSINE")
        assert [hit.id for hit in hits] == [ROWS_HELD.ids[i] for i in best(true, 10, "COSINE")]


def test_a_load_rejects_vectors_that_half_precision_cannot_hold(lite, drq, collection_name, tmp_path):
    collection = alula.Collection.create(lite, collection_name, encoder=drq.path, index_type="DRQ", vector_type=HALF)
    vectors = random_vectors(50, DIM, seed=3)
    vectors[7] *= 1e5 / np.abs(vectors[7]).max()
    vectors[8] *= 65504 / np.abs(vectors[8]).max()  # the largest that fits
    vectors[9] *= 1e-8  # kept as zeros, were it kept
    pq.write_table(pa.table({"id": np.arange(50), "embedding": list(vectors)}), tmp_path / "rows.parquet")
    report = collection.load(tmp_path / "rows.parquet", max_errors=2, dead_letters=tmp_path / "dead.parquet")
    assert (report.rows, report.bad) == (48, 2)
    dead = pq.read_table(tmp_path / "dead.parquet").to_pylist()
    assert "beyond 65,504" in str(dead[0])
    assert "no number as large as" in str(dead[1])
    assert report.verification.problem == ""
    with pytest.raises(DataError, match="beyond 65,504"):
        collection.insert(vectors[7:8], {"id": [1000]})


def test_what_cannot_be_is_said_before_anything_is_created(engine, drq, collection_name):
    if engine.embedded:
        cases = [({"keep_vectors": False}, UsageError, "drops them")]
    else:
        cases = [({}, UnsupportedError, "no vectors of half precision")]
    for arguments, error, says in [*cases, ({"vector_type": "FLOAT8"}, UsageError, "FLOAT_VECTOR or FLOAT16_VECTOR")]:
        with pytest.raises(error, match=says):
            ROWS_HELD.create(engine, collection_name, drq, "DRQ", **{"vector_type": HALF, **arguments})
    assert not engine.has_collection(collection_name)


@pytest.mark.parametrize("types", [("FLOAT_VECTOR", HALF), (HALF, HALF)], ids=" to ".join)
def test_a_migration_to_half_precision(lite, drq, collection_name, types):
    before, after = types
    old = ROWS_HELD.filled(lite, collection_name, drq, "DRQ", vector_type=before)
    name = f"{collection_name}_v2"
    report = Migration(
        read_source_collection(lite, old.name), name, encoder=drq.path, index_type="DRQ", vector_type=after
    ).run(queries=20)
    try:
        assert (report.rows, report.bad) == (ROWS, 0)
        new = alula.Collection.open(lite, name, encoder=drq.path)
        (hits,) = new.search(QUERIES[:1], limit=10, **EXACT)
        true = scores(QUERIES[0], rounded(ROWS_HELD.vectors), "COSINE")
        assert [hit.id for hit in hits] == [ROWS_HELD.ids[i] for i in best(true, 10, "COSINE")]
    finally:
        lite.client.drop_collection(name)
