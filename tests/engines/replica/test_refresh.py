"""After a refresh a replica is what a new one would be; if it fails, it is what it was."""

from __future__ import annotations

import os
import random
import signal
import threading

import numpy as np
import pytest

import alula
from alula.errors import ServerError, UsageError
from alula.ingest.rpc_sink import RpcSink
from alula.milvus import reading
from alula.milvus.retrying import RateLimiter
from alula.sources import ArraySource
from tests.small_collections import DIM
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tests.waiting import wait_until

QUERIES = random_vectors(3, DIM, seed=2)
COUNT = 400


@pytest.fixture(scope="module")
def drq(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoders") / "drq.onnx", input_dim=DIM)


@pytest.fixture(scope="module")
def flops(tmp_path_factory):
    return write_flops(tmp_path_factory.mktemp("encoders") / "flops.onnx", input_dim=DIM, dim=64, max_nnz=8)


def create(server, name, encoder, *, key="INT64", **arguments):
    return alula.Collection.create(
        server,
        name,
        encoder=encoder.path,
        index_type="DRQ" if encoder.info.kind == "drq" else "FLOPS_SPARSE",
        primary_key="id:INT64" if key == "INT64" else "id:VARCHAR(60)",
        columns=["year:INT64", "word:VARCHAR(20)"],
        consistency_level="Strong",
        **arguments,
    )


def insert(collection, ids, seed, *, year=2000, word="w"):
    """Write rows as a load does, without the checks around it that a server takes seconds for."""
    columns = {"id": ids, "year": [year] * len(ids), "word": [word] * len(ids)}
    target = collection.target()
    (batch,) = ArraySource(random_vectors(len(ids), DIM, seed=seed), columns, "vectors").batches(len(ids))
    sink = RpcSink(target.server, target.name, target.specs, None, RateLimiter(1, 10))
    sink.write(target.encode(target.check(batch)), replace=True)


def everything(replica):
    """Every row with all that is held of it, and the score that its code gives for each query."""
    arguments = {"output_fields": ["id", "year"], "limit": 2000, "rerank": 0}
    hits = replica.search(QUERIES, **arguments)
    return [{hit.id: (hit.score, hit.fields) for hit in some} for some in hits]


def assert_like_new(replica, collection):
    new = alula.Replica(collection, columns=["year"])
    assert len(replica) == len(new) == collection.count()
    assert everything(replica) == everything(new)
    wanted = collection.search(QUERIES, candidates=2000)
    for found, want in zip(replica.search(QUERIES, candidates=2000), wanted, strict=True):
        assert [hit.id for hit in found] == [hit.id for hit in want]
        np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in want], rtol=1e-4)


def counts(report):
    return report.added, report.changed, report.deleted


@pytest.mark.parametrize("key", ["INT64", "VARCHAR"])
def test_inserts_changes_and_deletes(engine, drq, collection_name, key, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PAGE_ROWS", 150)  # several pages
    collection = create(engine, collection_name, drq, key=key)
    ids = [5 * i - 900 for i in range(COUNT - 2)] + [2**63 - 2, -(2**63) + 1]
    if key == "VARCHAR":
        ids = [f"{beginning} {i}" for i in range(COUNT // 4) for beginning in ('say "', "😀", "b\\", "é")]
    random.Random(1).shuffle(ids)
    insert(collection, ids, 1)
    replica = alula.Replica(collection, columns=["year"])
    assert counts(replica.refresh()) == (0, 0, 0)

    new = [one * 5 + 1 for one in range(50)] if key == "INT64" else [f"new {i}" for i in range(50)]
    insert(collection, new, 2)
    insert(collection, ids[:30], 3)  # other codes
    insert(collection, ids[30:50], 1, word="x")  # other codes too
    collection.delete(ids[50:90])
    report = replica.refresh()
    assert counts(report) == (50, 50, 40)
    assert report.read == COUNT + 50 - 40

    collection.delete([*new, *ids[:30]])  # rows that came or changed since
    insert(collection, ids[50:60], 4)  # and some that were deleted
    assert counts(replica.refresh()) == (10, 0, 80)
    assert_like_new(replica, collection)
    collection.drop()


def test_only_held_columns_count_as_changes(lite, flops, collection_name):
    collection = create(lite, collection_name, flops)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    insert(collection, list(range(COUNT)), 1, word="other")
    assert counts(replica.refresh()) == (0, 0, 0)
    insert(collection, list(range(COUNT)), 1, year=1999)
    assert counts(replica.refresh()) == (0, COUNT, 0)
    assert_like_new(replica, collection)
    assert len(replica.search(QUERIES[0], filter="year == 1999", rerank=0, limit=COUNT)[0]) > COUNT / 2
    collection.drop()


def test_held_vectors_change_even_where_the_codes_do_not(lite, drq, collection_name):
    collection = create(lite, collection_name, drq)
    vectors = random_vectors(COUNT, DIM, seed=1)
    columns = {"id": list(range(COUNT)), "year": [0] * COUNT, "word": [""] * COUNT}
    collection.insert(vectors, columns)
    with_vectors, without = alula.Replica(collection, vectors=True), alula.Replica(collection)
    collection.insert(3 * vectors, columns)  # COSINE: the codes are of unit vectors
    assert counts(without.refresh()) == (0, 0, 0)
    assert counts(with_vectors.refresh()) == (0, COUNT, 0)
    collection.drop()


def test_the_index_is_rebuilt_when_half_of_it_is_dead(lite, drq, collection_name):
    collection = create(lite, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    before = replica.nbytes["codes"]
    collection.delete(list(range(0, COUNT, 4)))
    replica.refresh()
    assert replica.nbytes["codes"] == before
    collection.delete(list(range(1, COUNT, 2)))
    assert counts(replica.refresh()) == (0, 0, COUNT // 2)
    assert replica.nbytes["codes"] == before // 4
    assert_like_new(replica, collection)
    collection.delete(list(range(COUNT)))
    replica.refresh()
    assert len(replica) == 0
    assert replica.search(QUERIES) == [[]] * len(QUERIES)
    insert(collection, [7, 8, 9], 1)
    assert counts(replica.refresh(growing_keys=True)) == (3, 0, 0)
    assert_like_new(replica, collection)
    collection.drop()


def test_growing_keys_read_only_the_new_rows(engine, drq, collection_name):
    collection = create(engine, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    insert(collection, list(range(COUNT, COUNT + 30)), 2)
    report = replica.refresh(growing_keys=True)
    assert (*counts(report), report.read) == (30, 0, 0, 30)
    # what growing keys alone do not tell is seen by the count
    collection.delete([3, 4])
    insert(collection, [COUNT + 40], 3)
    report = replica.refresh(growing_keys=True)
    assert (*counts(report), report.read) == (1, 0, 2, COUNT + 29)
    insert(collection, [-5], 4)
    assert counts(replica.refresh(growing_keys=True)) == (1, 0, 0)
    assert_like_new(replica, collection)
    collection.drop()


def test_rows_that_the_reader_passed_over_are_not_taken_for_deleted(lite, drq, collection_name, monkeypatch):
    collection = create(lite, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    collection.delete([10, 11])
    query = reading._query

    def passing_over(*arguments, filter, **rest):
        # a server that moves its segments about, as seen on Milvus 2.3.5
        hidden = "" if filter else "id not in [10, 11, 20, 21, 22]"
        return query(*arguments, filter=filter or hidden, **rest)

    monkeypatch.setattr(reading, "_query", passing_over)
    assert counts(replica.refresh()) == (0, 0, 2)
    monkeypatch.undo()
    assert_like_new(replica, collection)
    collection.drop()


def test_rows_that_the_reader_passed_over_at_first_are_read_after_all(lite, drq, collection_name, monkeypatch):
    collection = create(lite, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    query, calls = reading._query, []

    def passing_over(*arguments, filter, **rest):
        calls.append(rest)
        hidden = "id not in [10, 11, 20]" if len(calls) <= 4 and "limit" in rest else ""
        return query(*arguments, filter=filter or hidden, **rest)

    monkeypatch.setattr(reading, "_query", passing_over)
    replica = alula.Replica(collection, columns=["year"])
    monkeypatch.undo()
    assert len(calls) > 4
    assert_like_new(replica, collection)
    collection.drop()


def test_searches_see_all_of_a_refresh_or_none(lite, drq, collection_name):
    collection = create(lite, collection_name, drq)
    insert(collection, list(range(COUNT)), 1, year=0)
    replica = alula.Replica(collection, columns=["year"])
    states, stop, wrong = [everything(replica)], threading.Event(), []

    def search():
        while not stop.is_set():
            wrong.extend(found for found in [everything(replica)] if found not in states)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(1, 4):
        ids = list(range(20 * turn, 20 * turn + 40))
        insert(collection, [*ids, *range(1000 * turn, 1000 * turn + 20)], turn, year=turn)
        collection.delete(list(range(5 * turn)))
        states.append(everything(alula.Replica(collection, columns=["year"])))
        replica.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert everything(replica) == states[-1]
    collection.drop()


def test_two_refreshes_at_once_take_over_each_row_once(lite, drq, collection_name):
    collection = create(lite, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    insert(collection, list(range(COUNT, COUNT + 100)), 2)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(replica.refresh())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.added for report in reports) == [0, 0, 100]
    assert_like_new(replica, collection)
    collection.drop()


def kill(database):
    """Kill an embedded engine, and return when its process has ended."""
    pid = database.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: database.ended, f"the end of process {pid}")


def test_a_server_that_is_gone_leaves_the_replica_as_it_was(lite_database, drq, collection_name):
    with alula.connect(lite_database.uri) as server:
        collection = create(server, collection_name, drq)
        insert(collection, list(range(COUNT)), 1)
        replica = alula.Replica(collection, columns=["year"])
        before = everything(replica)
        collection.delete([1, 2, 3])
        kill(lite_database)
        with pytest.raises(ServerError, match="engine has ended"):
            replica.refresh()
        assert everything(replica) == before
        with pytest.raises(ServerError):
            replica.search(QUERIES)  # exact scores come from Milvus


def test_a_server_that_ends_while_it_is_read(lite_database, drq, collection_name, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PAGE_ROWS", 100)
    with alula.connect(lite_database.uri) as server:
        collection = create(server, collection_name, drq)
        insert(collection, list(range(COUNT)), 1)
        replica = alula.Replica(collection, columns=["year"])
        before = everything(replica)
        insert(collection, list(range(COUNT)), 5)

        def end(status):
            if status.read >= 200 and lite_database.pid is not None:
                kill(lite_database)

        with pytest.raises(ServerError):
            replica.refresh(progress=end)
        assert everything(replica) == before


def test_a_dropped_collection_is_named(lite, drq, collection_name):
    collection = create(lite, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    collection.drop()
    with pytest.raises(UsageError, match=f"no collection '{collection_name}'"):
        replica.refresh()
    assert len(replica.search(QUERIES[0], rerank=0)[0]) == 10


def test_a_collection_that_was_created_again(engine, drq, flops, collection_name):
    collection = create(engine, collection_name, drq)
    insert(collection, list(range(COUNT)), 1)
    replica = alula.Replica(collection, columns=["year"])
    collection.drop()
    again = create(engine, collection_name, drq)
    insert(again, list(range(100, 200)), 2)
    if engine.embedded:  # Milvus Lite does not tell one from the other
        assert counts(replica.refresh()) == (0, 100, COUNT - 100)
        assert_like_new(replica, again)
        again.drop()
        create(engine, collection_name, flops)
    with pytest.raises(UsageError, match="dropped and created again"):
        replica.refresh()
    engine.client.drop_collection(collection_name)
