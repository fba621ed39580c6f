"""Rows come, change and go in an index of Milvus Lite 3: what is found is what brute force finds, whatever happened."""

import random
from glob import glob

import numpy as np
import pytest
from pymilvus import DataType

from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tests.waiting import wait_until

WRITE = {"DRQ": write_drq, "FLOPS_SPARSE": write_flops}
MOST = {"candidates": 110}  # of segments of 120 rows and more: through the codes, yet nearly all rows


@pytest.fixture(params=["DRQ", "FLOPS_SPARSE"])
def rows(request, mirror, tmp_path):
    if request.param == "DRQ":
        return mirror(write_drq(tmp_path / "drq.onnx", metric="L2", levels=6), "DRQ")
    return mirror(write_flops(tmp_path / "flops.onnx", max_nnz=24), "FLOPS_SPARSE")


def test_unflushed_rows_are_found_among_the_others_in_order(rows):
    rows.put(range(130))
    rows.flush()
    rows.put(range(130, 260))
    assert rows.segments == [130]
    rows.check(params=MOST)
    rows.check(where=lambda i, kind, _: kind == 2, filter="kind == 2", params=MOST)


def test_several_segments(rows):
    for start in (0, 130, 260):
        rows.put(range(start, start + 130))
        rows.flush()
    assert rows.segments == [130, 130, 130]
    rows.check(params=MOST)
    rows.check(where=lambda i, kind, _: i >= 120, filter="id >= 120", params=MOST)


def test_deleted_rows_are_not_found_before_the_flush_nor_after(rows):
    rows.put(range(200))
    rows.flush()
    rows.delete([i for (i, _), *_ in rows.search(1, params=MOST)])  # the nearest row of each query
    rows.check(params=MOST)
    rows.flush()
    rows.check(params=MOST)
    rows.delete(range(200))
    rows.check()
    rows.flush()
    rows.check()


def test_a_row_that_was_replaced_is_found_once_at_its_new_place(rows):
    rows.put(range(200))
    rows.flush()
    rows.put(range(50, 60))
    rows.check(params=MOST)
    rows.flush()
    rows.check(params=MOST)
    rows.delete([50])
    rows.put([50])
    rows.check(params=MOST)


def test_partitions(rows):
    rows.client.create_partition(rows.name, "other")
    rows.put(range(150))
    rows.put(range(150, 300), partition="other")
    rows.flush()
    assert sorted(rows.segments) == [150, 150]
    rows.check(params=MOST)
    rows.check(where=lambda i, kind, partition: partition == "other", partition_names=["other"], params=MOST)
    rows.delete(range(150, 160))
    rows.check(where=lambda i, kind, partition: partition == "other", partition_names=["other"], params=MOST)
    rows.client.release_collection(rows.name)
    rows.client.drop_partition(rows.name, "other")
    rows.client.load_collection(rows.name)
    rows.rows = {i: row for i, row in rows.rows.items() if row[2] != "other"}
    rows.check(params=MOST)


def test_compaction_makes_one_index_of_several(rows):
    for start in range(0, 800, 200):
        rows.put(range(start, start + 200))
        rows.delete(range(start, start + 20))
        rows.put(range(start + 20, start + 30))
        rows.flush()
    assert rows.segments == [4 * 180]
    files = list(rows.database.path.rglob("*.idx"))
    assert len(files) == 1
    rows.check(params={"candidates": 700})
    rows.restart()
    rows.check(params={"candidates": 700})


def test_after_a_restart_the_index_is_read_and_not_made_again(rows):
    rows.put(range(200))
    rows.flush()
    rows.put(range(200, 350))  # closing the database makes a segment of them
    rows.restart()
    (first, _) = sorted(rows.database.path.rglob("*.idx"))
    written = first.stat().st_mtime_ns
    rows.settle()
    rows.check(params=MOST)
    assert first.stat().st_mtime_ns == written
    again = rows.search(20, params={"candidates": 30})
    rows.restart()
    assert rows.search(20, params={"candidates": 30}) == again


def test_release_and_load(rows):
    rows.put(range(200))
    rows.flush()
    rows.client.release_collection(rows.name)
    rows.client.load_collection(rows.name)
    rows.check(params=MOST)


def test_an_index_is_one_file_and_leaves_nothing_else(rows):
    rows.put(range(200))
    rows.flush()
    rows.client.release_collection(rows.name)
    rows.client.load_collection(rows.name)
    (folder,) = {path.parent for path in rows.database.path.rglob("*.idx")}
    assert len(list(folder.iterdir())) == 1


def test_an_index_on_rows_that_were_there_before(mirror, tmp_path):
    rows = mirror(write_drq(tmp_path / "drq.onnx"), "DRQ", index=False)
    rows.put(range(150))
    rows.client.flush(rows.name)
    rows.put(range(150, 300))
    rows.create_index(encoder=str(rows.encoder.path))
    rows.settle()
    rows.check(params=MOST)
    rows.client.release_collection(rows.name)
    rows.client.drop_index(rows.name, "embedding")
    assert not list(rows.database.path.rglob("*.idx"))
    rows.client.load_collection(rows.name)
    rows.check()


@pytest.mark.parametrize("seed", range(3))
def test_random_changes(rows, seed):
    chance = random.Random(seed)
    rows.put(range(150))
    for _ in range(25):
        ids = chance.sample(range(500), 40)
        change = chance.choice(["put", "put", "delete", "flush", "restart"])
        if change == "put":
            rows.put(ids)
        elif change == "delete":
            rows.delete(ids)
        elif change == "flush":
            rows.flush()
        else:
            rows.restart()
        rows.check(limit=chance.choice([1, 10, 30]))
        rows.check(limit=3, params={"candidates": 100})
        kind = chance.randrange(7)
        rows.check(where=lambda i, k, _, kind=kind: k == kind, filter=f"kind == {kind}")


def wait_for(folder, pattern, count):
    def files():  # Path.rglob fails over a folder that is removed while it looks
        return glob(f"{folder}/**/{pattern}", recursive=True)  # noqa: PTH207

    wait_until(lambda: len(files()) >= count, f"{count} files {pattern}")
    assert len(files()) == count


def test_rows_with_nan_do_no_harm(rows, caplog):
    rows.put(range(200))
    bad = [{"id": 900, "embedding": [float("nan")] * 8, "kind": 1}, {"id": 901, "embedding": [np.inf] * 8, "kind": 1}]
    rows.client.insert(rows.name, bad)
    rows.flush()
    assert "2 rows contain NaN or infinite values, and no search finds them" in caplog.text
    rows.check(params=MOST)
    rows.check(limit=300)
    rows.check(where=lambda i, kind, _: kind == 1, filter="kind == 1")
    rows.restart()
    rows.check(limit=300)
    assert [hit["id"] for hit in rows.client.get(rows.name, ids=[900])] == [900]


def test_an_index_on_each_of_two_fields(database, tmp_path):
    encoders = [write_drq(tmp_path / "drq.onnx"), write_flops(tmp_path / "flops.onnx", input_dim=12, max_nnz=24)]
    client = database.client()
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    index = client.prepare_index_params()
    fields = {"first": random_vectors(300, 8), "second": random_vectors(300, 12)}
    for field, kind, encoder in zip(fields, ("DRQ", "FLOPS_SPARSE"), encoders, strict=True):
        schema.add_field(field, DataType.FLOAT_VECTOR, dim=encoder.info.input_dim)
        index.add_index(field, index_type=kind, metric_type="COSINE", params={"encoder": str(encoder.path)})
    client.create_collection("rows", schema=schema, index_params=index)
    client.insert("rows", [{"id": i} | {field: rows[i].tolist() for field, rows in fields.items()} for i in range(300)])
    for _ in range(2):
        for field, rows in fields.items():
            query = random_vectors(1, rows.shape[1], seed=5)
            (hits,) = client.search("rows", query, anns_field=field, search_params={"candidates": 290})
            assert [hit["id"] for hit in hits] == best(scores(query[0], rows, "COSINE"), 10, "COSINE").tolist()
        client.flush("rows")
        wait_for(database.path, "*.idx", 2)
