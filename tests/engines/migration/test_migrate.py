"""A migration ends with exactly the old collection's rows, also when that one is written to meanwhile."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from pymilvus import DataType

import alula
from alula.errors import EncoderError, UsageError
from alula.ingest import target
from alula.ingest.journal import Journal
from alula.ingest.monitor import Status
from alula.migration import migrate
from alula.migration.catch_up import CatchUp, key_differences
from alula.migration.migrate import Migration
from alula.migration.migration_report import NotSettledError
from alula.migration.source_collection import read_source_collection
from alula.milvus import alias_target
from tests.plain_collections import check_migrated, create_plain, everything, plain_rows
from tests.small_collections import AWKWARD_IDS, DIM, Rows, best, scores
from tests.tiny_encoders import random_vectors, write_drq


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def drq(folder):
    return write_drq(folder / "drq.onnx", input_dim=DIM)


@pytest.fixture(scope="module")
def newer(folder):
    return write_drq(folder / "newer.onnx", input_dim=DIM, seed=3)


@pytest.fixture
def names(engine, collection_name):
    """Names of an old and a new collection, dropped at the end."""
    both = collection_name, f"{collection_name}_v2"
    yield both
    for name in both:
        engine.client.drop_collection(name)


class Writer:
    """Adds, changes and deletes rows of a collection of numbered rows until it is told to stop."""

    def __init__(self, server, name, rows):
        self._server, self._name, self._rows = server, name, rows
        self._stop = threading.Event()
        self.turns = 0
        self.error = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        client = self._server.client
        try:
            for turn in itertools.count():
                if self._stop.is_set():
                    return
                clock = 1000 + turn
                client.insert(self._name, plain_rows([self._rows + turn, -1 - turn], clock=clock, seed=clock))
                client.upsert(self._name, plain_rows([(turn * 37) % 1000], clock=clock, seed=-clock & 0xFFFF))
                client.delete(self._name, filter=f"id in [{1100 + turn}]")
                self.turns += 1
                self._stop.wait(0.1)
        except Exception as error:
            self.error = error

    def wait_for_turns(self, more):
        wanted = self.turns + more
        while self.turns < wanted and self._thread.is_alive():
            self._stop.wait(0.01)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        assert self.error is None


def test_a_collection_that_is_written_to_meanwhile(engine, drq, names, tmp_path, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 500)
    old, new = names
    create_plain(engine, old, plain_rows(range(1500), clock=500))
    journal = Journal(tmp_path / "journal")

    def run(*, resume, rounds):  # few of them, as each read of Milvus 2.3 waits for a tick of its clock
        monkeypatch.setattr(migrate, "ROUNDS", rounds)
        described = read_source_collection(engine, old)
        made = Migration(described, new, encoder=drq.path, index_type="DRQ", changed_field="updated_at", resume=resume)
        return made.run(journal=journal, queries=0, max_errors=10, progress=progress)

    with Writer(engine, old, 1500) as writer:
        seen = set()

        def progress(status):
            """Let each stage of the migration last until the writer has done something in it."""
            if status.stage not in seen:
                seen.add(status.stage)
                writer.wait_for_turns(2)

        writer.wait_for_turns(1)
        first = run(resume=False, rounds=1)
        assert {"loading", "catching up"} <= seen
        writer.wait_for_turns(2)
    last = run(resume=True, rounds=2)
    assert first.load is not None
    assert last.load is None
    assert last.settled
    assert last.changed >= 1
    assert last.deleted >= 1
    assert (last.bad, last.rows) == (0, 1500 + writer.turns)
    assert check_migrated(engine, old, new, drq, "id >= -100000") == 1500 + writer.turns
    about = alula.describe(engine, new)
    assert about.text == "what they are"
    assert "word:VARCHAR(20)" in map(str, about.fields)
    assert engine.client.describe_collection(new)["consistency_level"] == 0  # Strong, as the old one


def test_a_newer_encoder_for_a_collection_of_alulas(engine, drq, newer, names):
    old, new = names
    rows = 40
    ids, vectors = [*AWKWARD_IDS, *(f"row {i}" for i in range(rows - 10))], random_vectors(rows, DIM)
    before = alula.Collection.create(
        engine, old, encoder=drq.path, index_type="DRQ", primary_key="id:VARCHAR(50)", columns=["year:INT32"]
    )
    before.insert(vectors, {"id": ids, "year": list(range(rows))})
    migration = Migration(
        read_source_collection(engine, old), new, encoder=newer.path, index_type="DRQ", old_encoder=drq.path
    )
    report = migration.run(queries=rows, max_errors=10)
    assert check_migrated(engine, old, new, newer, 'id != ""') == rows
    opened = alula.Collection.open(engine, new, encoder=newer.path)
    # every row is a query, so that the recall of both can be found out without a sample
    truth = [{ids[i] for i in best(scores(query, vectors, "COSINE"), 10, "COSINE")} for query in vectors]
    for collection, estimate in ((before, report.old_recall), (opened, report.new_recall)):
        found = collection.search(vectors, consistency_level="Strong")
        shares = [len({hit.id for hit in hits} & true) / 10 for hits, true in zip(found, truth, strict=True)]
        assert estimate.value == pytest.approx(np.mean(shares), abs=1e-3)
        assert estimate.queries == rows


@pytest.mark.parametrize("engine", ["standalone"], indirect=True)
def test_an_alias_is_moved_only_to_a_copy_without_gaps(engine, standalone, drq, names, tmp_path, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 500)
    monkeypatch.setattr(migrate, "ROUNDS", 1)
    old, new = names
    create_plain(standalone, old, plain_rows(range(1500), clock=500))
    live, journal = f"{old}_live", Journal(tmp_path / "journal")
    standalone.client.create_alias(old, live)

    def run(*, resume):
        described = read_source_collection(standalone, old)
        made = Migration(described, new, encoder=drq.path, index_type="DRQ", alias=live, resume=resume)
        return made.run(journal=journal, queries=0, max_errors=10)

    try:
        with Writer(standalone, old, 1500) as writer:
            writer.wait_for_turns(1)
            with pytest.raises(NotSettledError, match=r"later writes are missing .* was not moved"):
                run(resume=False)
            assert alias_target(standalone, live) == old
            writer.wait_for_turns(1)
        monkeypatch.setattr(migrate, "ROUNDS", 3)
        assert run(resume=True).settled
        assert alias_target(standalone, live) == new
    finally:
        standalone.client.drop_alias(live)


@pytest.mark.parametrize("engine", ["lite"], indirect=True)
def test_a_row_that_changes_behind_the_reader_is_copied_next_time(engine, drq, names, monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", 100)
    old, new = names
    create_plain(engine, old, plain_rows(range(1000), clock=500))
    described = read_source_collection(engine, old)
    collection = alula.Collection.create(
        engine, new, encoder=drq.path, index_type="DRQ", field="vec", columns=described.fields
    )
    left = [(0, 1001), (999, 1002)]  # after the first batch: the first row, then the last

    def change(_):
        while left:
            id_, clock = left.pop(0)
            engine.client.upsert(old, plain_rows([id_], clock=clock))

    catch_up = CatchUp(described, collection.target(), retry_timeout=1, status=Status(), progress=change)
    first = catch_up.copy_changes("updated_at", 500, 999)
    second = catch_up.copy_changes("updated_at", first.greatest, 999)
    assert second.greatest == 1002
    assert check_migrated(engine, old, new, drq) == 1000


@pytest.mark.parametrize("engine", ["lite"], indirect=True)
def test_rows_that_satisfy_a_filter_without_some_fields(engine, drq, names):
    old, new = names
    create_plain(engine, old, plain_rows([f"it's {i}" for i in range(500)]))
    described = read_source_collection(engine, old, filter="small >= 0", exclude_fields=["exact"])
    report = Migration(described, new, encoder=drq.path, index_type="DRQ", keep_vectors=False).run(
        queries=20, max_errors=10
    )
    theirs = {id_ for id_, row in everything(engine, old, 'id != ""').items() if row["small"] >= 0}
    ours = everything(engine, new, 'id != ""')
    assert set(ours) == theirs
    assert 0 < len(theirs) < 500
    assert report.settled
    assert not {"vec", "exact"} & set(ours[min(ours)])


def test_what_cannot_be_migrated(engine, drq, folder, names):
    old, new = names
    arguments = {"encoder": drq.path, "index_type": "DRQ"}
    create_plain(engine, old, plain_rows(range(20)))
    described = read_source_collection(engine, old)
    with pytest.raises(UsageError, match="no collection 'nowhere'"):
        read_source_collection(engine, "nowhere")
    with pytest.raises(UsageError, match="has no such field"):
        read_source_collection(engine, old, exclude_fields=["colour"])
    with pytest.raises(UsageError, match="needs the key and the vectors"):
        read_source_collection(engine, old, exclude_fields=["vec"])
    with pytest.raises(UsageError, match="itself"):
        Migration(described, old, **arguments)
    with pytest.raises(UsageError, match=r"no integer field .* it has: updated_at, small"):
        Migration(described, new, **arguments, changed_field="word")
    with pytest.raises(UsageError, match=r"dimension 8, and the encoder .*wide\.onnx takes 16"):
        Migration(described, new, encoder=write_drq(folder / "wide.onnx", input_dim=16).path, index_type="DRQ")
    with pytest.raises(UsageError, match=r"metric COSINE, .* trained for L2"):
        Migration(described, new, encoder=write_drq(folder / "l2.onnx", metric="L2").path, index_type="DRQ")
    with pytest.raises(EncoderError, match="FLOPS_SPARSE needs"):
        Migration(described, new, encoder=drq.path, index_type="FLOPS_SPARSE")
    assert not engine.has_collection(new)
    Rows().create(engine, new, drq, "DRQ", keep_vectors=False)
    with pytest.raises(UsageError, match="exists"):
        Migration(described, new, **arguments)
    with pytest.raises(UsageError, match="exists with another vector field"):
        Migration(described, new, **arguments, resume=True)
    with pytest.raises(UsageError, match="without keeping its vectors"):
        read_source_collection(engine, new)


def test_every_kind_of_field_is_carried(engine, drq, names):
    """Documents, arrays and dynamic values arrive as they were, numbers beyond the doubles among them."""
    old, new = names
    rows = [
        {
            **row,
            "tags": [f"é{i}"] * (i % 4),
            "ratios": [0.1 * i, -0.0],
            "about": {"big": 2**53 + 1 + i, "deep": [None, {"a": [1.5, "x"]}]},
            **({"colour": "red", "sizes": {"x": i}} if i % 2 else {}),
        }
        for i, row in enumerate(plain_rows(range(40)))
    ]
    text = {"element_type": DataType.VARCHAR, "max_capacity": 4, "max_length": 9}
    tags = {"field_name": "tags", "datatype": DataType.ARRAY, **text}
    ratios = {"field_name": "ratios", "datatype": DataType.ARRAY, "element_type": DataType.DOUBLE, "max_capacity": 2}
    about = {"field_name": "about", "datatype": DataType.JSON}
    create_plain(engine, old, rows, tags, ratios, about, enable_dynamic_field=True)
    described = read_source_collection(engine, old)
    carried = ["tags:ARRAY<VARCHAR(9)>(4)", "ratios:ARRAY<DOUBLE>(2)", "about:JSON"]
    assert [str(field) for field in described.fields][-3:] == carried
    assert {field.name: field.becomes for field in described.mappings}["$meta"] == "the same"
    done = Migration(described, new, encoder=drq.path, index_type="DRQ").run(queries=5)
    assert (done.settled, done.bad, done.load.rows) == (True, 0, 40)
    names_of_all = [*carried_names(carried), "colour", "sizes"]
    found = engine.client.query(new, filter="id >= 0", output_fields=["id", *names_of_all], consistency_level="Strong")
    for row in found:
        wanted = rows[row["id"]]
        assert {name: row[name] for name in names_of_all if name in row} == {
            name: wanted[name] for name in names_of_all if name in wanted
        }
    assert len(found) == 40
    # the new collection takes such rows by Alula too, and clients search by what they contain
    opened = alula.Collection.open(engine, new, encoder=drq.path)
    assert (opened.spec.dynamic, opened.count()) == (True, 40)
    (hits,) = opened.search(random_vectors(1, DIM), filter='about["big"] >= 9007199254740993 and colour == "red"')
    assert sorted(hit.id for hit in hits) == [hit for hit in sorted(hit.id for hit in hits) if hit % 2]
    assert len(hits) == 10


def carried_names(fields):
    return [field.partition(":")[0] for field in fields]


def test_fields_that_are_left_out(engine, drq, names):
    old, new = names
    rows = [{**row, "tags": [1], "more": {"a": 1}, "colour": "red"} for row in plain_rows(range(20))]
    tags = {"field_name": "tags", "datatype": DataType.ARRAY, "element_type": DataType.INT64, "max_capacity": 4}
    more = {"field_name": "more", "datatype": DataType.JSON}
    create_plain(engine, old, rows, tags, more, enable_dynamic_field=True)
    described = read_source_collection(engine, old, exclude_fields=["tags", "more", "$meta"])
    assert {field.name for field in described.mappings if field.becomes == "left out"} == {"tags", "more", "$meta"}
    assert [str(field) for field in described.fields] == [
        "updated_at:INT64",
        "word:VARCHAR(20)",
        "score:FLOAT",
        "exact:DOUBLE",
        "flag:BOOL",
        "small:INT8",
    ]
    done = Migration(described, new, encoder=drq.path, index_type="DRQ").run(queries=0)
    assert (done.settled, done.load.rows) == (True, 20)
    opened = alula.Collection.open(engine, new, encoder=drq.path)
    assert (opened.spec.dynamic, opened.fields) == (False, described.fields)


def test_a_collection_of_the_clients_quick_set_up(engine, drq, names):
    old, new = names
    engine.client.create_collection(old, dimension=DIM, auto_id=False)
    vectors = random_vectors(30, DIM)
    engine.client.insert(old, [{"id": i, "vector": vectors[i].tolist(), "text": f"t{i}"} for i in range(30)])
    done = Migration(read_source_collection(engine, old), new, encoder=drq.path, index_type="DRQ").run(queries=5)
    assert (done.settled, done.load.rows) == (True, 30)
    (hits,) = alula.Collection.open(engine, new, encoder=drq.path).search(vectors[7], output_fields=["text"], limit=1)
    assert (hits[0].id, hits[0].fields) == (7, {"text": "t7"})


def test_a_partition_key_stays_one(standalone, drq, collection_name):
    new = f"{collection_name}_v2"
    keyed = {"field_name": "owner", "datatype": DataType.INT64, "is_partition_key": True}
    rows = [{**row, "owner": i % 5} for i, row in enumerate(plain_rows(range(20)))]
    create_plain(standalone, collection_name, rows, keyed)
    Migration(read_source_collection(standalone, collection_name), new, encoder=drq.path, index_type="DRQ").run()
    fields = standalone.client.describe_collection(new)["fields"]
    assert [field["name"] for field in fields if field.get("is_partition_key")] == ["owner"]
    for name in (collection_name, new):
        standalone.client.drop_collection(name)


def test_what_only_a_server_has_is_said(standalone, collection_name):
    keyed = {"field_name": "owner", "datatype": DataType.INT64, "is_partition_key": True}
    rows = [{**row, "owner": i} for i, row in enumerate(plain_rows(range(20)))]
    create_plain(standalone, collection_name, rows, keyed)
    assert read_source_collection(standalone, collection_name).partition_key == "owner"
    without = read_source_collection(standalone, collection_name, exclude_fields=["owner"])
    assert (without.partition_key, without.notes[0]) == (
        None,
        "The partition key owner is left out; the new collection has none.",
    )
    standalone.client.drop_collection(collection_name)
    create_plain(standalone, collection_name, plain_rows(range(20)))
    standalone.client.create_partition(collection_name, "winter")
    assert any("(winter)" in note for note in read_source_collection(standalone, collection_name).notes)
    standalone.client.drop_collection(collection_name)


@pytest.mark.parametrize("engine", ["lite"], indirect=True)
def test_nothing_is_left_when_nothing_could_be_copied(engine, drq, names, monkeypatch):
    old, new = names
    create_plain(engine, old, plain_rows(range(20)))
    migration = Migration(read_source_collection(engine, old), new, encoder=drq.path, index_type="DRQ")
    monkeypatch.setattr("alula.migration.migrate.load", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migration.run()
    assert not engine.has_collection(new)
    assert len(everything(engine, old, "id >= 0")) == 20


@pytest.mark.parametrize("seed", range(5))
def test_the_differences_of_two_streams_of_keys(seed):
    rng = np.random.default_rng(seed)
    old, new = (set(rng.integers(0, 40, 25).tolist()) for _ in range(2))
    for kind in (int, lambda number: f"é{number}😀"):
        theirs, ours = ({kind(key) for key in keys} for keys in (old, new))
        found = list(key_differences(iter(sorted(theirs)), iter(sorted(ours))))
        assert {key for key, missing in found if missing} == theirs - ours
        assert {key for key, missing in found if not missing} == ours - theirs
        assert len(found) == len(theirs ^ ours)
