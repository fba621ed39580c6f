"""Loads end with the values of their files or with dead letters, and resume only with the same files."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymilvus import DataType

import alula
from alula.errors import DataError, ServerError, UnsupportedError, UsageError
from alula.ingest import target
from alula.ingest.collection_source import CollectionSource
from alula.ingest.journal import Journal
from alula.migration.migrate import Migration
from alula.migration.source_collection import read_source_collection
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


ROWS = [
    {"about": {"big": BIG, "deep": [None, {"a": [1.5, "é"]}]}, "tags": ["a", "b"], "sizes": [1, -2], "colour": "red"},
    {"about": {}, "tags": [], "sizes": [127], "n": BIG},
    {"about": {"a": True}, "tags": ["é" * 4], "sizes": [], "n": 0.5, "colour": None},
]
FIELDS = ("id:INT64", "about:JSON", "tags:ARRAY<VARCHAR(8)>(2)", "sizes:ARRAY<INT8>(4)")


def in_format(kind, folder, rows):
    """A file of rows, with what cannot be loaded behind them."""
    vectors = random_vectors(len(rows), DIM, seed=1).tolist()
    whole = [{"id": i, "vector": vectors[i], **row} for i, row in enumerate(rows)]
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in whole))
    elif kind == "csv":
        names = list(dict.fromkeys(name for row in whole for name in row))
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for row in whole:
                values = [row.get(name) for name in names]
                texts = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
                writer.writerow(["" if value is None else value for value in texts])
    else:  # Parquet has one type for each column: a document is a text
        columns = {name: [row[name] for row in whole] for name in ("id", "vector", "tags", "sizes")}
        columns["about"] = [json.dumps(row["about"]) for row in whole]
        columns["colour"] = [row.get("colour") for row in whole]
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_documents_arrays_and_dynamic_values(engine, drq, collection_name, tmp_path, kind):
    made = alula.Collection.create(
        engine, collection_name, encoder=drq.path, index_type="DRQ", columns=FIELDS[1:], dynamic=True
    )
    bad = [{"about": {}, "tags": tags, "sizes": sizes} for tags, sizes in ((["a", "b", "c"], [1]), (["a"], [1, None]))]
    report = made.load(
        in_format(kind, tmp_path, [*ROWS, *bad]),
        vector_column="vector",
        max_errors=2,
        dead_letters=tmp_path / "dead.parquet",
    )
    assert (report.rows, report.bad, report.verification.different) == (3, 2, ())
    assert [letter["alula_reason"] for letter in pq.read_table(tmp_path / "dead.parquet").to_pylist()] == [
        "3 elements in 'tags', which takes at most 2",
        "a missing element in 'sizes'",
    ]
    found = engine.client.query(collection_name, filter="id >= 0", output_fields=["*"], consistency_level="Strong")
    known = {field.partition(":")[0] for field in FIELDS} | {"embedding", "embedding__drq_sign"}
    for row in found:
        wanted = ROWS[row["id"]]
        assert {name: row[name] for name in ("about", "tags", "sizes")} == {
            name: wanted[name] for name in ("about", "tags", "sizes")
        }
        rest = {name: row[name] for name in row if name not in known}
        given = {name: wanted[name] for name in ("n", "colour") if wanted.get(name) is not None}
        if kind == "parquet":
            given.pop("n", None)
        if kind == "csv":  # a column has one type, and an empty field is an empty text
            given.setdefault("colour", "")
            assert rest.pop("n", None) == pytest.approx(given.pop("n", None))
        assert rest == given
    (hits,) = made.search(random_vectors(1, DIM), filter='array_contains(tags, "a")', output_fields=["colour", "about"])
    assert [(hit.id, hit.fields) for hit in hits] == [(0, {"colour": "red", "about": ROWS[0]["about"]})]
    # rows out of one collection into another, once more
    other = alula.Collection.create(
        engine, f"{collection_name}_v2", encoder=drq.path, index_type="DRQ", columns=FIELDS[1:], dynamic=True
    )
    other.load(CollectionSource(engine, collection_name))
    key = {"filter": "id >= 0", "output_fields": ["id", "about", "tags", "n", "colour"], "consistency_level": "Strong"}
    both = [
        sorted(map(dict, engine.client.query(name, **key)), key=lambda row: row["id"])
        for name in (made.name, other.name)
    ]
    assert both[0] == both[1]
    made.drop()
    other.drop()


def test_rows_from_memory_have_documents_of_their_own(create, drq):
    """Arrow would give all documents of a column the keys of all others, as nulls."""
    collection = create("id:INT64", "about:JSON")
    documents = [{"a": 1}, {"b": [1, "x"]}, {"c": {"d": None}}]
    collection.insert(random_vectors(3, DIM), {"id": [0, 1, 2], "about": documents})
    rows = collection.fetch([0, 1, 2], ["about"])
    assert [rows[i]["about"] for i in range(3)] == documents


def test_a_document_that_the_server_refuses_is_not_tried_again(standalone, drq, collection_name):
    """Milvus 2.3.5 takes objects, and says of another value that its disk failed."""
    made = alula.Collection.create(
        standalone, collection_name, encoder=drq.path, index_type="DRQ", columns=["about:JSON"]
    )
    with pytest.raises(ServerError, match="cannot unmarshal string"):
        made.insert(random_vectors(1, DIM), {"id": [0], "about": ["text"]})
    made.drop()


def test_a_column_with_the_name_of_an_own_field_is_no_dynamic_value(engine, drq, collection_name):
    """Milvus refuses rows whose dynamic values are named like a field."""
    made = alula.Collection.create(engine, collection_name, encoder=drq.path, index_type="DRQ", dynamic=True)
    columns = {"id": [1], "embedding": ["text"], "embedding__drq_sign": [1], "colour": ["red"]}
    report = made.insert(random_vectors(1, DIM), columns)
    assert report.ignored == ("embedding", "embedding__drq_sign")
    assert made.fetch([1], ["colour"]) == {1: {"colour": "red"}}
    made.drop()


def test_default_values(standalone, drq, collection_name):
    """Milvus Lite 2.5 has none. What is created through the gateway or by other clients may have them."""
    schema = standalone.client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("year", DataType.INT64, default_value=7)
    schema.add_field("word", DataType.VARCHAR, max_length=9, default_value="none")
    index = standalone.client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    standalone.client.create_collection(collection_name, schema=schema, index_params=index)
    vectors = random_vectors(3, DIM).tolist()
    # pymilvus 3 leaves default values out in a way that 2.3.5 does not understand
    rows = [{"id": i, "vector": vectors[i], "year": i, "word": "a"} for i in (1, 2)]
    standalone.client.insert(collection_name, rows)
    new = f"{collection_name}_v2"
    Migration(read_source_collection(standalone, collection_name), new, encoder=drq.path, index_type="DRQ").run(
        queries=0
    )
    made = alula.Collection.open(standalone, new, encoder=drq.path)
    assert [field.default for field in made.fields] == [7, "none"]
    made.insert(vectors[:1], {"id": [3], "year": [None]})
    assert made.fetch([1, 2, 3], ["year", "word"]) == {
        1: {"year": 1, "word": "a"},
        2: {"year": 2, "word": "a"},
        3: {"year": 7, "word": "none"},
    }
    fields = {field["name"]: field for field in standalone.client.describe_collection(new)["fields"]}
    assert fields["year"]["default_value"].long_data == 7
    standalone.client.drop_collection(collection_name)
    made.drop()


@pytest.mark.parametrize("engine", ["standalone"], indirect=True)
def test_columns_with_defaults(create):
    columns = ["year:INT64:default=7", "word:VARCHAR(9):default=none", "good:BOOL:default=true", "x:FLOAT:default=0.1"]
    made = create("id:INT64", *columns)
    report = made.insert(random_vectors(2, DIM), {"id": [1, 2], "year": [None, 5], "good": [False, None]})
    assert (report.rows, report.verification.different) == (2, ())
    names = ["year", "word", "good", "x"]
    found = made.fetch([1, 2], names)
    assert [list(found[i].values()) for i in (1, 2)] == [
        [7, "none", False, pytest.approx(0.1)],
        [5, "none", True, pytest.approx(0.1)],
    ]
    # a client that leaves the values out
    signs = bytes(made.lowering.fields[0].bytes_per_row)
    row = {"id": 3, "embedding": [0.5] * DIM, "embedding__drq_sign": signs}
    made.server.client.insert(made.name, [row])
    assert stored(made, "year", "word", "good")[-1] == (7, "none", True)
    described = alula.describe(made.server, made.name).fields
    assert [field.default for field in described] == [7, "none", True, pytest.approx(0.1)]


def test_an_engine_without_defaults_says_so_and_creates_nothing(lite, drq, collection_name):
    with pytest.raises(UnsupportedError, match=r"Milvus Lite cannot have defaults \(year:INT64:default=7\)"):
        alula.Collection.create(
            lite, collection_name, encoder=drq.path, index_type="DRQ", columns=["n:INT64", "year:INT64:default=7"]
        )
    assert not lite.has_collection(collection_name)
