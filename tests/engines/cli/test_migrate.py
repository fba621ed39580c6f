"""``alula migrate``: killed and resumed, aliases pointed there and back, and what it refuses."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest

import alula as library
from tests.fixtures.command_line import finish, start
from tests.plain_collections import check_migrated, create_plain, everything, plain_rows
from tests.tiny_encoders import write_drq
from tests.waiting import wait_until

MANY = 6_000


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the journals go


@pytest.fixture(scope="module")
def encoder(folder):
    return write_drq(folder / "migrate.onnx")


@pytest.fixture
def engine(default_database):
    return default_database


@pytest.fixture
def docs(engine, collection_name):
    """The name of a plain collection of 300 rows; it and what its name begins are dropped at the end."""
    create_plain(engine, collection_name, plain_rows(range(300)))
    yield collection_name
    for name in engine.client.list_collections():
        if name.startswith(collection_name):
            for alias in engine.client.describe_collection(name).get("aliases", ()):
                engine.client.drop_alias(alias)
            engine.client.drop_collection(name)


def migrate(server, old, *more):
    return ["migrate", "--from", old, "--to", f"{old}_v2", "--uri", server.uri, *more]


def to_drq(server, old, encoder, *more):
    return migrate(server, old, "--index-type", "DRQ", "--encoder", encoder.path, *more)


def test_dry_run(alula, engine, docs, encoder, tmp_path):
    result = alula(*to_drq(engine, docs, encoder, "--dry-run", "--leave-out", "word"))
    assert (result.code, result.err) == (0, "")
    shown = [line.split() for line in result.out.splitlines()]
    assert ["id", "INT64,", "primary", "key", "id:INT64"] in shown
    assert ["word", "VARCHAR(20)", "left", "out"] in shown
    assert ["small", "INT8", "small:INT8"] in shown
    assert ["vec__drq_sign", "BINARY_VECTOR", "4", "0.0"] in shown
    assert result.out.endswith("300 rows; nothing was written.\n")
    assert not engine.has_collection(f"{docs}_v2")
    assert not list(tmp_path.iterdir())


def test_migrates_and_catches_up_when_asked_again(alula, fails, lite_uri, encoder):
    # a command closes its Milvus Lite, and with it every connection of the process
    with library.connect(lite_uri) as server:
        create_plain(server, "docs", plain_rows(range(300)))
    call = to_drq(server, "docs", encoder, "--changed-field", "updated_at")
    first = alula(*call)
    assert (first.code, first.err) == (0, "")
    assert "Copied 300 rows in " in first.out
    assert "Synchronised: 0 changed, 0 added, 0 deleted; then both were equal." in first.out
    assert re.search(r"\n  docs_v2: (1\.000|0\.9\d\d) \(", first.out)
    fails(2, call, "alula-docs_v2.journal", "--resume", "--restart")
    with library.connect(lite_uri) as server:
        server.client.insert("docs", plain_rows([1000, 1001], clock=7))
        server.client.upsert("docs", plain_rows([5], clock=8, seed=9))
        server.client.delete("docs", filter="id in [10, 11, 12]")
    result = alula(*call, "--resume", "--json-logs", "--min-recall", "0.5")
    assert result.code == 0
    done = result.json[-1]
    assert (done["event"], done["copied"], done["rows"], done["settled"]) == ("done", None, 299, True)
    assert (done["added"], done["changed"], done["deleted"]) == (2, 1, 3)
    assert done["new_recall"]["value"] > 0.5
    with library.connect(lite_uri) as server:
        assert check_migrated(server, "docs", "docs_v2", encoder) == 299


def test_a_recall_that_is_too_low(alula, fails, lite_uri, encoder, tmp_path):
    with library.connect(lite_uri) as server:
        create_plain(server, "docs", plain_rows(range(300)))
    call = to_drq(server, "docs", encoder, "--drop-vectors", "--queries", "300")
    fails(1, [*call, "--min-recall", "1", "--quiet"], "docs_v2 is 0.", "--min-recall 1.0, docs has 1.000", "--resume")
    result = alula(*call, "--min-recall", "0.1", "--resume")
    assert result.code == 0
    assert result.err.startswith("Without --changed-field, rows that are changed in place")
    assert "Copied" not in result.out


def test_milvus_lite_has_no_aliases(fails, lite_uri, encoder, tmp_path):
    with library.connect(lite_uri) as server:
        create_plain(server, "docs", plain_rows(range(20)))
    fails(2, to_drq(server, "docs", encoder, "--swap-alias", "live"), "Milvus Lite has no aliases")
    fails(2, migrate(server, "docs", "--swap-alias", "live", "--rollback"), "Milvus Lite has no aliases")
    assert not list(tmp_path.glob("*.journal"))
    with library.connect(lite_uri) as server:
        assert server.client.list_collections() == ["docs"]


def test_what_it_refuses(fails, engine, docs, encoder, flops, tmp_path):
    call = to_drq(engine, docs, encoder)
    fails(2, migrate(engine, docs), "--index-type is missing")
    fails(2, migrate(engine, docs, "--index-type", "DRQ"), "--encoder is missing")
    fails(2, migrate(engine, docs, "--rollback"), "--swap-alias")
    fails(2, [*call, "--min-recall", "0.9", "--queries", "0"], "--min-recall")
    fails(2, [*call, "--resume", "--restart"], "opposites")
    fails(2, [*call, "--filter", "nothing > 3"], "nothing > 3")
    fails(2, [*call, "--leave-out", "id"], "--exclude-field id")
    fails(2, [*call, "--changed-field", "score"], "--changed-field score", "updated_at, small")
    fails(2, [*call, "--vector-field", "word"], "word")
    fails(2, to_drq(engine, f"{docs}_none", encoder), f"no collection '{docs}_none'")
    fails(1, migrate(engine, docs, "--index-type", "DRQ", "--encoder", flops), "needs an encoder of the kind 'drq'")
    fails(2, [*call, "--swap-alias", docs], "is a collection and not an alias")
    fails(1, migrate(engine, docs, "--index-type", "FLOPS_SPARSE", "--encoder", flops), "2.3.5")
    fails(2, migrate(engine, docs, "--swap-alias", "nowhere", "--rollback"), "'nowhere' does not exist")
    assert not engine.has_collection(f"{docs}_v2")
    assert not list(tmp_path.iterdir())


def test_an_alias_that_clients_search_by(alula, fails, engine, milvus_server, docs, encoder, tmp_path):
    live, new = f"{docs}_live", f"{docs}_v2"
    engine.client.create_alias(docs, live)
    client = milvus_server.client()

    def served_by():
        """Which collection answers a client that knows the alias alone."""
        with_codes = "vec__drq_sign" in client.query(live, filter="id == 3", output_fields=["*"])[0]
        return new if with_codes else docs

    assert served_by() == docs
    call = to_drq(engine, docs, encoder, "--swap-alias", live, "--queries", "0")
    result = alula(*call, "--from", live)  # the old collection may be named by the alias too
    assert result.code == 0
    assert f"{live} pointed to {docs}, and points to {new} now. Back: alula migrate" in result.out
    assert served_by() == new
    assert not list(tmp_path.iterdir())
    opened = ["--uri", engine.uri, "--encoder", encoder.path]
    (about,) = alula("describe", live, "--uri", engine.uri, "--format", "json").json
    assert (about["rows"], about["settings"]["type"]) == (300, "DRQ")
    (hits,) = alula("search", live, "--id", "3", *opened, "--candidates", "300", "--format", "json").json
    theirs = everything(engine, docs, "id >= 0")
    vectors = np.array([theirs[i]["vec"] for i in range(300)])
    cosines = vectors @ vectors[3] / np.linalg.norm(vectors, axis=1)
    assert [hit["id"] for hit in hits["hits"]][:2] == np.argsort(-cosines)[1:3].tolist()
    # from now on clients write to the new one: to catch up would undo that
    fails(2, [*call, "--resume"], "serves already, by the alias", live)
    back = alula(*migrate(engine, docs, "--swap-alias", live, "--rollback"))
    assert (back.code, back.out.split(".")[0]) == (0, f"{live} points to {docs} again")
    assert served_by() == docs
    assert engine.has_collection(new)
    fails(2, migrate(engine, docs, "--swap-alias", live, "--rollback"), f"points to '{docs}'", "nothing was changed")


def count(server, name):
    """Rows in a collection that another process may not have created yet."""
    state = str(server.client.get_load_state(name)["state"])
    if state != "Loaded":
        return 0
    return server.client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def test_a_migration_that_is_killed(takes_long, alula, fails, engine, collection_name, encoder, monkeypatch):
    old, new = collection_name, f"{collection_name}_v2"
    create_plain(engine, old, plain_rows(range(MANY)))
    try:
        call = to_drq(engine, old, encoder, "--changed-field", "updated_at", "--queries", "0")
        process = start(*call)
        wait_until(lambda: count(engine, new), f"rows in {new}")
        os.killpg(process.pid, signal.SIGKILL)
        assert finish(process).code == -signal.SIGKILL
        assert count(engine, new) > 0
        engine.client.upsert(old, plain_rows([1, MANY - 1], clock=1, seed=5))
        engine.client.delete(old, filter="id in [0, 2, 5500]")
        engine.client.insert(old, plain_rows([MANY, -1]))
        fails(2, call, "unfinished", "--resume")
        result = alula(*call, "--resume")
        assert (result.code, result.err) == (0, "")
        assert check_migrated(engine, old, new, encoder, "id >= -1") == MANY - 1
        assert library.Collection.open(engine, new, encoder=encoder.path).count() == MANY - 1
    finally:
        engine.client.drop_collection(old)
        engine.client.drop_collection(new)
