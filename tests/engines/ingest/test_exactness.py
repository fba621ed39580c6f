"""Loads end with the values of their files or with dead letters, and resume only with the same files."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

import alula
from alula.errors import DataError, UsageError
from alula.ingest import target
from alula.ingest.journal import Journal
from tests.tiny_encoders import random_vectors, write_drq

DIM = 8
BIG = 2**60 + 1


@pytest.fixture(scope="module")
def drq(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoders") / "drq.onnx", input_dim=DIM)


@pytest.fixture
def create(engine, drq, collection_name):
    """Create the collection of a test, with fields of its own."""

    def create(primary_key="id:INT64", *columns):
        if engine.has_collection(collection_name):
            engine.client.drop_collection(collection_name)
        return alula.Collection.create(
            engine, collection_name, encoder=drq.path, index_type="DRQ", primary_key=primary_key, columns=columns
        )

    yield create
    if engine.has_collection(collection_name):
        engine.client.drop_collection(collection_name)


def json_lines(path, rows):
    """Rows of fields whose values are JSON texts."""
    vectors = random_vectors(len(rows), DIM, seed=1)
    lines = [
        ", ".join([*(f'"{name}": {text}' for name, text in row.items()), f'"vector": {vectors[i].tolist()}'])
        for i, row in enumerate(rows)
    ]
    path.write_text("".join(f"{{{line}}}\n" for line in lines))
    return path


def stored(collection, *fields):
    rows = collection.server.client.query(
        collection.name, filter="", output_fields=list(fields), limit=100, consistency_level="Strong"
    )
    return sorted(tuple(row[field] for field in fields) for row in rows)


@pytest.mark.parametrize("engine", ["lite"], indirect=True)
def test_integers_beside_a_fraction_stay_exact(create, tmp_path):
    collection = create("id:INT64", "n:INT64")
    rows = [{"id": str(BIG + 2000 * i), "n": str(BIG + i)} for i in range(6)]
    rows[3]["id"], rows[4]["n"] = "30.0", "0.5"
    report = collection.load(
        json_lines(tmp_path / "x.jsonl", rows), max_errors=1, dead_letters=tmp_path / "dead.parquet"
    )
    assert (report.rows, report.bad) == (5, 1)
    expected = [(30 if i == 3 else BIG + 2000 * i, BIG + i) for i in range(6) if i != 4]
    assert stored(collection, "id", "n") == sorted(expected)
    (letter,) = pq.read_table(tmp_path / "dead.parquet").to_pylist()
    assert (letter["id"], letter["alula_reason"]) == (BIG + 8000, "0.5 is no int64 in the column 'n'")


@pytest.mark.parametrize("engine", ["lite"], indirect=True)
def test_keys_that_are_equal_only_when_converted_are_duplicates(create, tmp_path):
    texts = ["01", "1", "001", *map(str, range(3, 40))]
    collection = create()
    report = collection.load(
        json_lines(tmp_path / "x.jsonl", [{"id": json.dumps(text)} for text in texts]),
        max_errors=2,
        dead_letters=tmp_path / "dead.parquet",
    )
    assert (report.rows, report.bad, collection.count()) == (38, 2, 38)
    letters = pq.read_table(tmp_path / "dead.parquet").to_pylist()
    assert [(letter["alula_row"], letter["alula_reason"]) for letter in letters] == [
        (row, "the id 1 of an earlier row") for row in (1, 2)
    ]


def test_nan_in_a_scalar_is_verified(create):
    collection = create("id:INT64", "price:DOUBLE", "weight:FLOAT")
    values = np.arange(20) / 3
    values[1:] = np.nan
    report = collection.insert(
        random_vectors(20, DIM), {"id": np.arange(20), "price": values, "weight": values.astype(np.float32)}
    )
    assert report.verification.compared == 8
    assert not report.verification.problem


@pytest.mark.parametrize("engine", ["lite"], indirect=True)
def test_loading_a_corrected_file_of_dead_letters_keeps_it(create, tmp_path):
    collection = create()
    dead = tmp_path / "dead.parquet"
    collection.load(
        json_lines(tmp_path / "x.jsonl", [{"id": text} for text in ("1", "2.5", "3", "3.5")]),
        max_errors=2,
        dead_letters=dead,
    )
    mended = pq.read_table(dead)
    mended = mended.set_column(mended.schema.get_field_index("id"), "id", [[7, None]])
    pq.write_table(mended, dead)
    report = collection.load(dead, max_errors=2, dead_letters=dead)
    assert (report.rows, report.bad, report.dead_letters) == (1, 1, tmp_path / "dead-2.parquet")
    assert pq.read_table(dead).equals(mended)


def interrupt(collection, file, journal, monkeypatch):
    """Load until the first batches are acknowledged."""
    monkeypatch.setattr(target, "BATCH_ROWS", 10)

    def stop(status):
        if status.written >= 20:
            raise KeyboardInterrupt

    with pytest.raises(alula.errors.LoadInterrupted), Journal(journal) as opened:
        collection.load(file, journal=opened, progress=stop)


def test_another_file_of_equal_size_and_time_is_no_resumed_load(create, tmp_path, monkeypatch):
    collection = create()
    vectors = random_vectors(200, DIM)
    file, journal = tmp_path / "x.npy", tmp_path / "journal"
    np.save(file, vectors)
    before = file.stat()
    interrupt(collection, file, journal, monkeypatch)
    np.save(file, vectors[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    with Journal(journal) as opened, pytest.raises(UsageError, match="with another rows"):
        collection.load(file, journal=opened)
    np.save(file, vectors)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with Journal(journal) as opened:
        assert collection.load(file, journal=opened).rows == 200


def test_a_collection_that_was_created_again_is_no_resumed_load(create, tmp_path, monkeypatch):
    file, journal = tmp_path / "x.npy", tmp_path / "journal"
    np.save(file, random_vectors(200, DIM))
    interrupt(create(), file, journal, monkeypatch)
    again = create()
    with Journal(journal) as opened, pytest.raises(UsageError, match="dropped and created again"):
        again.load(file, journal=opened)
    assert again.count() == 0


@pytest.mark.parametrize("engine", ["standalone"], indirect=True)
def test_a_collection_that_is_created_again_during_a_load(create, tmp_path, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 10)
    collection = create()
    np.save(tmp_path / "x.npy", random_vectors(200, DIM))
    done = []

    def replace(status):
        if status.stage == "loading" and status.written == 200 and not done:
            done.append(create())

    with pytest.raises(DataError, match="dropped and created again during this load"):
        collection.load(tmp_path / "x.npy", progress=replace)
