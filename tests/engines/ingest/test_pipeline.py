"""Loads end with exactly the source's rows, and a bad row stops them before anything is written."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import alula
from alula.errors import DataError
from alula.ingest import target
from tests.small_collections import DIM, ROWS, Rows
from tests.tiny_encoders import random_vectors, write_drq, write_flops

ROWS_HELD = Rows()


@pytest.fixture(scope="module")
def drq(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoders") / "drq.onnx", input_dim=DIM)


@pytest.fixture
def collection(engine, drq, collection_name):
    made = ROWS_HELD.create(engine, collection_name, drq, "DRQ")
    yield made
    made.drop()


@pytest.fixture(scope="module")
def empty(engine, drq):
    """A collection that stays empty: for rows that must not arrive."""
    made = ROWS_HELD.create(engine, "stays_empty", drq, "DRQ")
    yield made
    made.drop()


@pytest.fixture
def parquet(tmp_path):
    columns = {name: pa.array(values) for name, values in ROWS_HELD.columns.items()}
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(ROWS_HELD.vectors.ravel()), DIM)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({**columns, "vec": vectors, "unknown": pa.array(range(ROWS))}), path)
    return path


def stored(collection):
    """Every row of the collection, by id."""
    rows = collection.server.client.query(
        collection.name, filter='id != ""', output_fields=["*"], limit=ROWS + 1, consistency_level="Strong"
    )
    return {row["id"]: row for row in rows}


def test_every_row_arrives_with_its_columns_and_codes(collection, drq, parquet, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 128)
    seen = []
    report = collection.load(parquet, progress=lambda status: seen.append(dataclasses.replace(status)))
    assert (report.rows, report.replaced, report.total) == (ROWS, 0, ROWS)
    assert report.ignored == ("unknown",)
    assert list(dict.fromkeys(status.stage for status in seen)) == ["checking", "loading", "verifying"]
    last = seen[-1]
    assert (last.total, last.read, last.encoded, last.written, last.bad) == (ROWS, ROWS, ROWS, ROWS, 0)
    assert last.bytes > ROWS * (DIM * 4 + 8)
    assert all(status.written <= status.encoded <= status.read <= ROWS for status in seen if status.stage != "checking")
    rows = stored(collection)
    signs = drq.row_signs(ROWS_HELD.vectors)
    assert set(rows) == set(ROWS_HELD.ids)
    for i in (0, 1, 9, 127, 128, ROWS - 1):
        row = rows[ROWS_HELD.ids[i]]
        assert (row["year"], row["word"]) == (1900 + i % 100, f"w{i}")
        assert bytes(row["embedding__drq_sign"][0]) == signs[i].tobytes()
        np.testing.assert_array_equal(np.asarray(row["embedding"], np.float32), ROWS_HELD.vectors[i])


def test_loading_again_replaces_instead_of_doubling(collection, parquet):
    ids = [i for i, id_ in enumerate(ROWS_HELD.ids) if "'" not in id_]
    columns = {name: [values[i] for i in ids] for name, values in ROWS_HELD.columns.items()}
    collection.insert(ROWS_HELD.vectors[ids], columns)
    columns["word"] = ["new"] * len(ids)
    report = collection.insert(ROWS_HELD.vectors[ids], columns)
    assert (report.replaced, report.total) == (len(ids), len(ids))
    assert {row["word"] for row in stored(collection).values()} == {"new"}


def test_loading_again_is_possible_with_quotes_in_ids_as_long_as_these_rows_are_unchanged(collection, parquet):
    for _ in range(2):
        assert collection.insert(ROWS_HELD.vectors, ROWS_HELD.columns).total == ROWS
    changed = ROWS_HELD.columns
    changed["word"][ROWS_HELD.ids.index("it's")] = "new"
    if collection.server.embedded:  # it cannot delete this row, and two rows of one id must not be
        with pytest.raises(alula.ServerError, match="single quote"):
            collection.insert(ROWS_HELD.vectors, changed)
    else:
        collection.insert(ROWS_HELD.vectors, changed)
        assert stored(collection)["it's"]["word"] == "new"
    assert collection.count() == ROWS


def test_rows_without_ids_are_numbered(engine, drq, collection_name, tmp_path):
    np.save(tmp_path / "rows.npy", ROWS_HELD.vectors)
    collection = alula.Collection.create(engine, collection_name, encoder=drq.path, index_type="DRQ")
    report = collection.load(tmp_path / "rows.npy")
    assert (report.auto_ids, report.total) == (True, ROWS)
    (hits,) = collection.search(ROWS_HELD.vectors[17], limit=1, consistency_level="Strong")
    assert hits[0].id == 17
    collection.drop()


def test_json_lines_load_like_parquet(collection, parquet, tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for i in range(ROWS):
            row = {name: values[i] for name, values in ROWS_HELD.columns.items()}
            file.write(json.dumps({**row, "vec": ROWS_HELD.vectors[i].tolist()}, ensure_ascii=False) + "\n")
    collection.load(path)
    assert stored(collection)["emoji 😀"]["word"] == f"w{ROWS_HELD.ids.index('emoji 😀')}"


def spoiled(name, row, value):
    columns = {key: list(values) for key, values in ROWS_HELD.columns.items()}
    columns[name][row] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (spoiled("id", 590, "row 20"), "Row 590 .* has the id of an earlier row"),
        (spoiled("word", 590, "x" * 17), "Row 590 .* 17 bytes in 'word'"),
        (spoiled("word", 590, "😀" * 5), "Row 590 .* 20 bytes in 'word'"),
        (spoiled("word", 590, None), "Row 590 .* no value in 'word'"),
        (spoiled("id", 590, None), "Row 590 .* no value in 'id'"),
        ({key: values for key, values in ROWS_HELD.columns.items() if key != "year"}, "lacks the column 'year'"),
        ({key: values for key, values in ROWS_HELD.columns.items() if key != "id"}, "no column 'id'"),
        ({**ROWS_HELD.columns, "year": [f"y{i}" for i in range(ROWS)]}, "Row 0 .* 'y0' in 'year', which is INT64"),
    ],
)
def test_a_bad_column_stops_the_load_before_anything_is_written(empty, columns, says, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 100)
    with pytest.raises(DataError, match=says):
        empty.insert(ROWS_HELD.vectors, columns)
    assert empty.count() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_vector_stops_the_load_before_anything_is_written(empty, value, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 100)
    vectors = ROWS_HELD.vectors.copy()
    vectors[590, 3] = value
    with pytest.raises(DataError, match=r"Row 590 .* NaN or infinite"):
        empty.insert(vectors, ROWS_HELD.columns)
    assert empty.count() == 0


def test_vectors_of_another_dimension_are_refused(empty):
    with pytest.raises(DataError, match=f"dimension 5, .* takes {DIM}"):
        empty.insert(random_vectors(ROWS, 5), ROWS_HELD.columns)


def test_line_breaks_in_ids_are_refused_where_they_could_not_be_found_again(engine, collection):
    columns = spoiled("id", 590, "two\nlines")
    if engine.embedded:
        with pytest.raises(DataError, match="line break"):
            collection.insert(ROWS_HELD.vectors, columns)
    else:
        collection.insert(ROWS_HELD.vectors, columns)
        hits = collection.search_like("two\nlines", limit=3)
        assert len(hits) == 3


def test_sparse_rows_arrive_as_the_encoder_gives_them(tmp_path, lite_uri):
    flops = write_flops(tmp_path / "flops.onnx", input_dim=DIM, dim=64, max_nnz=8)
    with alula.connect(lite_uri) as server:
        collection = alula.Collection.create(server, "sparse", encoder=flops.path, index_type="FLOPS_SPARSE")
        collection.insert(ROWS_HELD.vectors, {"id": np.arange(ROWS)})
        rows = server.client.query("sparse", filter="id >= 0", output_fields=["embedding__flops"], limit=ROWS)
    dense = flops.dense(ROWS_HELD.vectors)
    for row in rows:
        held = np.zeros(64)
        for dim, weight in row["embedding__flops"].items():
            held[dim] = weight
        np.testing.assert_allclose(held, dense[row["id"]], atol=1e-6)
