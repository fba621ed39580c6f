"""The remembered masks find what Milvus Lite 3 finds without them, hit for hit, whatever happens to the rows."""

import importlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import DataType

import alula.lite
from alula.lite.masks import with_known_masks
from tests.engines.lite.inside.mirror import FIELD
from tests.tiny_encoders import random_vectors, write_drq, write_flops

MODULE = "milvus_lite.engine.collection"
FILTERS = ["", "kind == 3", "kind != 3", "id > 100", "kind in [0, 1] and id < 250", "kind == 99"]


@pytest.fixture
def compared(monkeypatch):
    """Every search is done with and without, and fails unless both find the same; how many were."""
    alula.lite.register(cache_masks=True)
    known = importlib.import_module(MODULE).execute_search_with_index
    searches = []

    def both(**given):
        while True:
            before = [segment.indexes.get(given["vector_field"]) for segment in given["segments"]]
            found, expected = known(**given), known.__wrapped__(**given)
            # an index that comes in the background between the two gives other roundings
            if before == [segment.indexes.get(given["vector_field"]) for segment in given["segments"]]:
                break
        assert found == expected, "the remembered masks are wrong"
        searches.append(found)
        return found

    monkeypatch.setattr(f"{MODULE}.execute_search_with_index", both)
    return searches


class Changes:
    """Random changes of a collection, and searches after each."""

    def __init__(self, rows, seed):
        self.rows, self.chance = rows, random.Random(seed)
        rows.client.create_partition(rows.name, "other")
        rows.put(range(200))
        self.flush()

    def ids(self):
        return self.chance.sample(range(300), self.chance.choice([1, 5, 60]))

    def partition(self):
        return self.chance.choice(["_default", "other"])

    def upsert(self):
        self.rows.put(self.ids(), partition=self.partition())

    def insert_again(self):
        self.rows.put(self.ids(), partition=self.partition(), upsert=False)

    def delete(self):
        self.rows.client.delete(self.rows.name, ids=self.ids())

    def delete_in_a_partition(self):
        self.rows.client.delete(self.rows.name, ids=self.ids(), partition_name=self.partition())

    def delete_by_filter(self):
        self.rows.client.delete(self.rows.name, filter=f"kind == {self.chance.randrange(7)} and id < 30")

    def flush(self):
        self.rows.client.flush(self.rows.name)
        if self.chance.random() < 0.5:  # the other half searches while segments are compacted and indexed
            self.rows.engine._wait_for_bg()

    def drop_a_partition(self):
        if self.chance.random() < 0.3:
            self.rows.client.release_collection(self.rows.name)
            self.rows.client.drop_partition(self.rows.name, "other")
            self.rows.client.create_partition(self.rows.name, "other")
            self.rows.client.load_collection(self.rows.name)

    def release_and_load(self):
        self.rows.client.release_collection(self.rows.name)
        self.rows.client.load_collection(self.rows.name)

    def restart(self):
        if self.chance.random() < 0.3:
            self.rows.restart()

    def search(self):
        for partitions in (None, ["_default"], ["other"], ["other", "_default"]):
            self.rows.search(
                self.chance.choice([1, 10, 100]), filter=self.chance.choice(FILTERS), partition_names=partitions
            )

    def run(self, steps):
        kinds = [
            *[self.upsert, self.insert_again, self.delete, self.delete_in_a_partition, self.delete_by_filter],
            *[self.flush] * 3,
            *[self.drop_a_partition, self.release_and_load, self.restart],
        ]
        for _ in range(steps):
            self.chance.choice(kinds)()
            self.search()


@pytest.mark.parametrize("seed", range(2))
def test_random_changes_of_a_collection(mirror, compared, tmp_path, seed):
    check_random_changes(mirror, compared, tmp_path, seed, steps=20)


@pytest.mark.parametrize("seed", range(2, 8))
def test_more_random_changes_of_a_collection(takes_long, mirror, compared, tmp_path, seed):
    check_random_changes(mirror, compared, tmp_path, seed, steps=40)


def check_random_changes(mirror, compared, tmp_path, seed, *, steps):
    if seed % 2:
        rows = mirror(write_drq(tmp_path / "drq.onnx", metric="L2"), "DRQ")
    else:
        rows = mirror(write_flops(tmp_path / "flops.onnx", metric="IP"), "FLOPS_SPARSE")
    Changes(rows, seed).run(steps)
    assert len(compared) == 4 * steps


@pytest.mark.parametrize("index_type", ["HNSW", "FLAT", None])
def test_milvus_lites_own_index_types(mirror, compared, tmp_path, index_type):
    rows = mirror(write_drq(tmp_path / "drq.onnx"), index_type, index=False)
    if index_type:
        rows.create_index()
    Changes(rows, 1).run(30)
    assert len(compared) == 120


def test_text_keys_empty_vectors_and_other_fields(database, compared):
    client = database.client()
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=50)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=8, nullable=True)
    schema.add_field("second", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("rows", schema=schema)
    chance, wide, narrow = random.Random(0), random_vectors(2000), random_vectors(2000, 4)
    for step in range(12):
        rows = [
            {"key": f"key {i}", "second": narrow[100 * step + i].tolist(), "size": i}
            | ({FIELD: wide[100 * step + i].tolist()} if chance.random() < 0.7 else {FIELD: None})
            for i in chance.sample(range(100), 30)
        ]
        client.upsert("rows", rows)
        client.delete("rows", ids=[f"key {i}" for i in chance.sample(range(100), 10)])
        if step % 2:
            client.flush("rows")
        for field, vectors in ((FIELD, wide), ("second", narrow)):
            for expr in ("", "size < 50", 'key like "it\'s 1%"'):
                query = vectors[-1 - step :][:2].tolist()
                client.search("rows", query, anns_field=field, filter=expr, limit=20, output_fields=["*"])
    assert len(compared) == 72


def segment_of(partition, rows):
    """A segment as Milvus Lite would have it of rows (key, sequence number)."""
    from milvus_lite.storage.segment import Segment

    keys, sequences = [key for key, _ in rows], np.array([sequence for _, sequence in rows], np.uint64)
    vectors = random_vectors(len(rows), 2, seed=len(rows)).reshape(-1, 2)
    table = pa.table({"id": pa.array(keys, pa.int64()), "_seq": sequences})
    return Segment("", partition, "id", "v", keys, sequences, vectors, table)


def memtable_of(changes):
    """Milvus Lite's unflushed rows after inserts and deletes (key, sequence number, whether it is a delete)."""
    from milvus_lite.schema import arrow_builder, types
    from milvus_lite.storage.memtable import MemTable

    schema = types.CollectionSchema(
        [
            types.FieldSchema(name="id", dtype=types.DataType.INT64, is_primary=True),
            types.FieldSchema(name="v", dtype=types.DataType.FLOAT_VECTOR, dim=2),
        ]
    )
    memtable = MemTable(schema)
    for key, sequence, is_delete in changes:
        about = {"id": [key], "_seq": [sequence], "_partition": ["_default"]}
        if is_delete:
            memtable.apply_delete(
                pa.RecordBatch.from_pydict(about, schema=arrow_builder.build_wal_delta_schema(schema))
            )
        else:
            row = about | {"v": [[float(key), float(sequence)]]}
            memtable.apply_insert(pa.RecordBatch.from_pydict(row, schema=arrow_builder.build_wal_data_schema(schema)))
    return memtable


KEYS, SEQUENCES = st.integers(0, 6), st.integers(1, 12)
ONCE = st.dictionaries(KEYS, SEQUENCES).map(lambda rows: list(rows.items()))
TWICE = st.lists(st.tuples(KEYS, SEQUENCES), max_size=3)
SEGMENT = st.tuples(st.sampled_from(["_default", "other"]), ONCE | ONCE | ONCE | ONCE | TWICE)
STATES = st.tuples(
    st.sampled_from([[0, 1], [0, 1, 2], [2, 1]]),  # which of the segments there are: often the same as before
    st.integers(0, 1),  # which flushed deletions
    st.integers(0, 1),  # which unflushed rows
    st.sampled_from([None, ["_default"], ["other"], ["_default", "other"]]),
)


@settings(max_examples=300, deadline=None)
@given(
    segments=st.tuples(SEGMENT, SEGMENT, SEGMENT),
    deleted=st.tuples(*[st.dictionaries(KEYS, SEQUENCES)] * 2),
    changes=st.tuples(*[st.lists(st.tuples(KEYS, SEQUENCES, st.booleans()), max_size=8)] * 2),
    states=st.lists(STATES, min_size=1, max_size=6),
)
def test_states_that_milvus_lite_may_never_be_in(segments, deleted, changes, states):
    """Keys in many segments, twice in one, sequence numbers that are equal or older unflushed than flushed."""
    from milvus_lite.search.executor_indexed import execute_search_with_index
    from milvus_lite.storage.delta_index import DeltaIndex

    known = with_known_masks(execute_search_with_index)
    made, memtables = [segment_of(*about) for about in segments], [memtable_of(some) for some in changes]
    for which, deletion, unflushed, partitions in states:
        deletions = DeltaIndex("id")
        deletions._map = dict(deleted[deletion])
        search = {
            "query_vectors": random_vectors(2, 2, seed=1),
            "segments": tuple(made[number] for number in which),
            "memtable": memtables[unflushed],
            "delta_index": deletions,
            "top_k": 5,
            "metric_type": "L2",
            "pk_field": "id",
            "vector_field": "v",
            "partition_names": partitions,
            "compiled_filter": None,
            "output_fields": None,
            "indexed_filter_plan": None,
            "project_record_fn": dict,
            "search_params": None,
        }
        assert known(**search) == execute_search_with_index(**search)


def test_the_masks_are_worked_out_once_for_as_long_as_nothing_is_flushed(mirror, tmp_path, monkeypatch):
    from alula.lite import masks

    worked_out = []
    of = masks.Validity.of
    monkeypatch.setattr(masks.Validity, "of", lambda *args: worked_out.append(args) or of(*args))
    alula.lite.register(cache_masks=True)
    rows = mirror(write_drq(tmp_path / "drq.onnx"), "DRQ")
    rows.put(range(300))
    rows.flush()
    worked_out.clear()
    for _ in range(3):
        rows.put(range(300, 320))
        rows.delete([5, 6])
        rows.check(params={"candidates": 290})
        rows.check(where=lambda i, kind, _: kind == 3, filter="kind == 3")
    assert len(worked_out) == 1
    rows.flush()
    rows.check()
    assert len(worked_out) == 2


def test_searches_while_rows_change(mirror, tmp_path):
    alula.lite.register(cache_masks=True)
    rows = mirror(write_drq(tmp_path / "drq.onnx"), "DRQ")
    rows.put(range(300))
    rows.flush()
    changing = threading.Event()

    def search():
        while not changing.is_set():
            rows.search(10)
            rows.search(10, filter="kind == 3")

    with ThreadPoolExecutor(4) as threads:
        searches = [threads.submit(search) for _ in range(4)]
        for step in range(12):
            rows.put(range(20 * step, 20 * step + 50))
            rows.delete(range(20 * step, 20 * step + 5))
            rows.client.flush(rows.name)
        changing.set()
        for done in searches:
            done.result()
    rows.settle()
    rows.check()
