"""Encoder files in Milvus: what was pushed comes back bit for bit, and nothing that is not whole is ever seen."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pymilvus import MilvusClient

import alula
from alula.encoder_store import (
    COLLECTION,
    PART_BYTES,
    entries,
    entries_and_bad_rows,
    find,
    pull,
    push,
    querying,
    read,
    remove,
    repair,
    upload,
)
from alula.encoder_store import rows as store_rows
from alula.encoder_store.entries import check_name
from alula.errors import AlulaError, EncoderError, UsageError
from alula.milvus import delete_rows, retrying
from alula.milvus.schema_fields import add_field
from tests.tiny_encoders import TinyText, write_drq, write_flops
from tests.waiting import wait_until
from tools.servers.cutting_proxy import CuttingProxy


@pytest.fixture(params=["lite", "database"])
def server(request):
    """Each real engine in turn, with no encoder in it."""
    server = request.getfixturevalue(request.param)
    yield server
    if server.embedded:
        server.client.drop_collection(COLLECTION)
    elif server.client.has_collection(COLLECTION):  # emptied, as to make and load it anew takes seconds
        wait_until(lambda: was_empty(server), "an empty store")


def was_empty(server) -> bool:
    """Delete all rows; True if there were none. Milvus 2.3.5 misses some that were written a moment ago."""
    left = [row["id"] for row in querying(server)('id != ""', ["id"])]
    delete_rows(server, COLLECTION, "id", left)
    return not left


in_lite = pytest.mark.parametrize("server", ["lite"], indirect=True)  # where the engines do not differ
in_database = pytest.mark.parametrize("server", ["database"], indirect=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="session")
def small(folder):
    """Of a few parts, the last one not full."""
    return write_drq(folder / "small.onnx").path


@pytest.fixture(scope="session")
def other(folder):
    return write_flops(folder / "other.onnx", metric="L2").path


@pytest.fixture(scope="session")
def large(folder):
    """More than 5 MB, so of several requests and several pages."""
    path = write_drq(folder / "large.onnx", input_dim=500).path
    assert path.stat().st_size > 5e6
    return path


@pytest.fixture
def impatient(monkeypatch):
    """A part that is missing is not waited for long."""
    monkeypatch.setattr(retrying, "READ_ATTEMPTS", 2)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(server, filter_='role in ["part", "file", "name"]'):
    return server.client.query(COLLECTION, filter=filter_, output_fields=["*"], consistency_level="Strong")


def content(server, wanted) -> bytes:
    """What a reader gets, as quickly as it can be had."""
    return read(querying(server, "Eventually"), find(querying(server), wanted))


def parts_in(server) -> int:
    return len(rows(server, 'role == "part"'))


def rewrite(server, row, **changes):
    """Put another row in the place of one."""
    server.client.delete(COLLECTION, filter=f'id == "{row["id"]}"' if not server.embedded else f'id in ["{row["id"]}"]')
    server.client.insert(COLLECTION, [{**row, "nothing": [0.0, 0.0], **changes}])


class Interrupted(Exception):
    """What stops a push in its middle."""


def stopping(stage: str, after: int):
    def progress(now: str, done: int, total: int) -> None:
        if now == stage and done >= after:
            raise Interrupted

    return progress


def test_a_file_comes_back(server, large, tmp_path):
    told = []
    done = push(server, large, progress=lambda *status: told.append(status))
    size, sha256 = large.stat().st_size, sha256_of(large)
    assert (done.name, done.written, done.before) == ("large", True, None)
    entry = done.entry
    assert (entry.sha256, entry.names, entry.size) == (sha256, ("large",), size)
    assert (entry.kind, entry.input, entry.metric) == ("drq", "vectors", "COSINE")
    assert (entry.input_dim, entry.output_dim) == (500, 32)
    assert abs(entry.pushed - time.time()) < 100
    assert entry.parts == parts_in(server) == -(-size // PART_BYTES)
    for stage in ("sending", "checking"):
        counts = [count for now, count, total in told if now == stage and total == size]
        assert len(counts) >= 4
        assert counts == sorted(counts)
        assert counts[-1] == size
    query = querying(server)
    for wanted in ("large", sha256, sha256[:8].upper()):
        assert find(query, wanted) == entry
    assert read(querying(server, "Eventually"), entry) == large.read_bytes()
    assert pull(server, "large", tmp_path / "pulled.onnx") == (entry, tmp_path / "pulled.onnx")
    assert (tmp_path / "pulled.onnx").read_bytes() == large.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["pulled.onnx"]


@in_lite
def test_pages_and_requests_stay_small(server, large, monkeypatch):
    sent, pages = [], []
    send = store_rows.send
    monkeypatch.setattr(
        store_rows, "send", lambda where, request, *rest: (sent.append(request), send(where, request, *rest))
    )
    push(server, large)
    assert max(request.ByteSize() for request in sent) < 1.6e6
    query = querying(server)

    def watched(filter_, fields):
        pages.append(query(filter_, fields))
        return pages[-1]

    read(watched, "large")
    assert len(pages) >= 5
    assert max(sum(len(str(row)) for row in page) for page in pages) < 1.6e6  # below gRPC's own limit of 4 MB


@in_lite
def test_nothing_is_there_at_first(server):
    query = querying(server)
    assert entries(query) == []
    with pytest.raises(UsageError, match=r"no encoder 'words'.* there are: none.*alula encoders push"):
        read(query, "words")
    assert COLLECTION not in server.client.list_collections()


@in_lite
def test_several_encoders(server, small, other, folder):
    text = write_drq(folder / "text.v2.int8.onnx", backbone=TinyText()).path
    for path in (small, other, text):
        push(server, path)
    there = entries(querying(server))
    assert [entry.names for entry in there] == [("other",), ("small",), ("text.v2.int8",)]
    assert [entry.kind for entry in there] == ["flops", "drq", "drq"]
    assert [entry.input for entry in there] == ["vectors", "vectors", "text"]
    assert [entry.metric for entry in there] == ["L2", "COSINE", "COSINE"]
    assert there[0].output_dim == 32
    for path in (small, other, text):
        assert content(server, path.stem) == path.read_bytes()
    with pytest.raises(UsageError, match=r"there are: other \(.*, small \(.*, text.v2.int8 \("):
        find(querying(server), "smal")
    with pytest.raises(UsageError, match="no encoder"):
        find(querying(server), sha256_of(small)[:7])  # seven digits are too few
    with pytest.raises(UsageError, match="no encoder"):
        find(querying(server), "0" * 64)


@in_lite
def test_the_same_file_again_is_not_written(server, small):
    push(server, small)
    before = rows(server)
    again = push(server, small)
    assert (again.written, again.before) == (False, sha256_of(small))
    assert rows(server) == before
    named = push(server, small, name="also")
    assert (named.written, named.before, named.entry.names) == (False, None, ("also", "small"))
    assert parts_in(server) == named.entry.parts


def test_a_name_stands_for_one_file(server, small, other):
    push(server, small, name="words")
    with pytest.raises(UsageError, match=f"{sha256_of(small)[:16]}, and this is {sha256_of(other)[:16]}.*replace=True"):
        push(server, other, name="words")
    assert content(server, "words") == small.read_bytes()
    assert len(entries(querying(server))) == 1
    done = push(server, other, name="words", replace=True)
    assert (done.written, done.before) == (True, sha256_of(small))
    assert content(server, "words") == other.read_bytes()
    old = find(querying(server), sha256_of(small))  # collections that were made with it still find it
    assert old.names == ()
    assert content(server, old.sha256) == small.read_bytes()
    back = push(server, small, name="words", replace=True)
    assert (back.written, back.before) == (False, sha256_of(other))
    assert content(server, "words") == small.read_bytes()
    assert len(rows(server, 'role == "name"')) == 1


@in_lite
@pytest.mark.parametrize(
    "name", ["", "a b", "../up", ".hidden", "-x", "it's", 'a"b', "n" * 101, "deadbeef", "2026" * 16]
)
def test_what_cannot_be_a_name(server, small, name):
    with pytest.raises(UsageError, match="name="):
        push(server, small, name=name)
    assert entries(querying(server)) == []


@pytest.mark.parametrize("name", ["w\u043erds", "\uff57ords", "\ufb01ne"])
def test_names_that_look_like_others_are_refused(name):
    """A Cyrillic o, a wide w, a ligature."""
    with pytest.raises(UsageError, match="name=") as error:
        check_name(name)
    assert str(error.value).isascii()


@pytest.mark.parametrize("name", ["words", "caf\u00e9", "\u0441\u043b\u043e\u0432\u0430", "\u8bcd\u5411\u91cf-v2"])
def test_names_in_one_script_are_taken(name):
    assert check_name(name) == name


@in_lite
def test_only_encoders_are_pushed(server, small, tmp_path):
    (tmp_path / "torn.onnx").write_bytes(small.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"torn\.onnx"):
        push(server, tmp_path / "torn.onnx")
    with pytest.raises(EncoderError, match="no such file"):
        push(server, tmp_path / "nothing.onnx")
    assert entries(querying(server)) == []


@in_lite
def test_a_file_that_changes_while_it_is_pushed(server, small, other, tmp_path, monkeypatch):
    path = tmp_path / "moving.onnx"
    path.write_bytes(small.read_bytes())

    def load_and_change(file):
        encoder = alula.load_encoder(file)
        path.write_bytes(other.read_bytes())
        return encoder

    monkeypatch.setattr(upload, "load_encoder", load_and_change)
    with pytest.raises(UsageError, match="changed while"):
        push(server, path)


@in_lite
@pytest.mark.parametrize(("stage", "after"), [("sending", 1), ("sending", 3_000_000), ("checking", 5_000_000)])
def test_an_interrupted_push_is_repeated(server, large, stage, after):
    with pytest.raises(Interrupted):
        push(server, large, progress=stopping(stage, after))
    there = parts_in(server)
    assert there > 0
    query = querying(server)
    assert entries(query) == []
    for wanted in ("large", sha256_of(large)):
        with pytest.raises(UsageError, match="there are: none"):
            read(query, wanted)
    sent = []
    done = push(server, large, progress=lambda now, count, total: sent.append(count) if now == "sending" else None)
    assert parts_in(server) == done.entry.parts
    assert sent == [] if there == done.entry.parts else sent[0] > there * PART_BYTES  # it goes on where it stopped
    assert read(query, "large") == large.read_bytes()


@in_lite
def test_a_push_without_its_last_step(server, small, monkeypatch):
    def stop(*_, **__):
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(upload, "_point", stop)
        with pytest.raises(Interrupted):
            push(server, small)
    (entry,) = entries(querying(server))  # whole, and so readable, but no name stands for it yet
    assert entry.names == ()
    assert content(server, entry.sha256) == small.read_bytes()
    assert push(server, small).entry.names == ("small",)


@in_lite
def test_a_replacement_without_its_last_step(server, small, other, monkeypatch):
    push(server, small, name="words")
    push(server, other, name="words", replace=True)
    with monkeypatch.context() as patched:
        patched.setattr(upload, "delete_rows", lambda *_: None)
        push(server, small, name="words", replace=True)
    assert len(rows(server, 'role == "name"')) == 2
    assert content(server, "words") == small.read_bytes()
    push(server, other, name="words", replace=True)
    assert [row["sha256"] for row in rows(server, 'role == "name"')] == [sha256_of(other)]


KILLED = """
import os, signal, sys
import alula
from alula.encoder_store import push

def progress(stage, done, total, figures={}):
    if done > 3_000_000:
        os.kill(os.getpid(), signal.SIGKILL)

with alula.connect(sys.argv[1], database=sys.argv[2]) as server:
    push(server, sys.argv[3], progress=progress)
"""


def check_killed(uri, large, name=""):
    killed = subprocess.run([sys.executable, "-c", KILLED, uri, name, large], check=False)
    assert killed.returncode == -signal.SIGKILL
    with alula.connect(uri, database=name) as server:
        there = parts_in(server)
        assert 0 < there < -(-large.stat().st_size // PART_BYTES)
        assert entries(querying(server)) == []
        done = push(server, large)
        assert parts_in(server) == done.entry.parts
        assert content(server, "large") == large.read_bytes()


def test_a_push_into_milvus_lite_that_was_killed(lite_uri, large):
    check_killed(lite_uri, large)


@in_database
def test_a_push_that_was_killed(takes_long, server, large):
    check_killed(server.uri, large, server.login["database"])


@in_database
def test_answers_that_are_lost(server, milvus_server, large):
    cuts = ("before reply", "in request", "before reply")
    name = server.login["database"]
    with CuttingProxy(milvus_server.port) as proxy, alula.connect(proxy.uri, database=name) as cut:
        proxy.cut_next(*cuts)
        done = push(cut, large)
        assert proxy.cuts == Counter(cuts)
    assert parts_in(server) == done.entry.parts  # also where a call was repeated that had been done
    assert content(server, "large") == large.read_bytes()


@in_lite
def test_leftovers_are_removed_when_they_are_old(server, small, large, monkeypatch):
    with pytest.raises(Interrupted):
        push(server, large, progress=stopping("sending", 3_000_000))
    left = parts_in(server)
    small_parts = push(server, small).entry.parts
    assert parts_in(server) == left + small_parts  # the other push may still be running
    monkeypatch.setattr(store_rows, "LEFTOVER_SECONDS", -10)
    push(server, small)
    assert parts_in(server) == small_parts
    assert content(server, "small") == small.read_bytes()


@in_lite
def test_a_part_that_is_missing(server, large, impatient, tmp_path):
    push(server, large)
    row = rows(server, 'role == "part"')[-1]
    server.client.delete(COLLECTION, filter=f'id in ["{row["id"]}"]')
    with pytest.raises(EncoderError, match=r"large \(.*damaged.*--replace"):
        read(querying(server), "large")
    with pytest.raises(EncoderError, match="damaged"):
        pull(server, "large", tmp_path / "large.onnx")
    assert list(tmp_path.iterdir()) == []
    assert push(server, large).written
    assert content(server, "large") == large.read_bytes()


@in_lite
@pytest.mark.parametrize("how", ["another byte", "no base64", "empty", "swapped", "twice as long"])
def test_a_part_that_is_damaged(server, small, how, impatient):
    push(server, small)
    first, second = rows(server, 'role == "part" and part < 2')
    changed = bytearray(base64.b64decode(first["data"]))
    changed[100] ^= 1
    data = {
        "another byte": base64.b64encode(changed).decode(),
        "no base64": "ü" * 100,
        "empty": "",
        "swapped": second["data"],
        "twice as long": first["data"][:30000] * 2,
    }[how]
    rewrite(server, first, data=data)
    assert rows(server, f'role == "part" and part == {first["part"]}')[0]["data"] == data
    with pytest.raises(EncoderError, match="damaged"):
        read(querying(server), "small")
    assert push(server, small, replace=True).written
    assert content(server, "small") == small.read_bytes()
    assert not push(server, small, replace=True).written  # read back, and found good


@in_lite
@pytest.mark.parametrize("damage", ["missing", "altered"])
@pytest.mark.parametrize("stage", ["sending", "checking"])
def test_an_interrupted_repair(server, large, damage, stage, impatient):
    push(server, large)
    row = rows(server, 'role == "part"')[50]
    if damage == "missing":
        server.client.delete(COLLECTION, filter=f'id in ["{row["id"]}"]')
    else:
        rewrite(server, row, data="AAAA")
    stop = stopping(stage, 1 if stage == "sending" else large.stat().st_size)
    with pytest.raises(Interrupted):
        push(server, large, replace=True, progress=stop)
    assert entries(querying(server)) == []  # it does not count as whole before it is
    assert push(server, large).entry.names == ("large",)
    assert [entry.names for entry in entries(querying(server))] == [("large",)]
    assert content(server, "large") == large.read_bytes()


def test_parts_of_an_interrupted_push_that_are_damaged(server, large):
    with pytest.raises(Interrupted):
        push(server, large, progress=stopping("sending", 3_000_000))
    rewrite(server, rows(server, 'role == "part"')[3], data="AAAA")
    push(server, large)
    assert content(server, "large") == large.read_bytes()


@in_lite
@pytest.mark.parametrize("data", ["no JSON", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_row_of_another_version(server, small, other, data):
    push(server, small)
    rewrite(server, rows(server, 'role == "file"')[0], data=data)
    push(server, other)
    known, bad = entries_and_bad_rows(querying(server))
    assert [entry.names for entry in known] == [("other",)], "other encoders are found beside a bad row"
    newer = "format" in data and "2" in data
    assert {row.sha256 for row in bad} == {sha256_of(small)}
    assert ["upgrade Alula" in str(row) for row in bad] == [newer, False], "its name names nothing"
    with pytest.raises(UsageError, match="no encoder 'small'"):
        find(querying(server), "small")
    done = repair(server)
    assert list(done.kept if newer else done.removed) == bad
    assert not (done.removed if newer else done.kept)
    assert [entry.names for entry in done.whole] == [("other",)]
    assert entries_and_bad_rows(querying(server)) == (known, bad if newer else [])
    pushed = push(server, small, replace=newer)
    assert content(server, "small") == small.read_bytes()
    assert pushed.written


@in_lite
@pytest.mark.parametrize(
    "changes",
    [
        {"parts": 10**15},
        {"parts": "1"},
        {"size": -1},
        {"size": 2**40},
        {"kind": "\x1b[2J"},
        {"metric": None},
        {"input_dim": True},
        {"output_dim": 2**40},
    ],
    ids=str,
)
def test_a_row_that_describes_no_file(server, small, changes):
    push(server, small)
    (row,) = rows(server, 'role == "file"')
    rewrite(server, row, data=json.dumps(json.loads(row["data"]) | changes))
    known, bad = entries_and_bad_rows(querying(server))
    assert known == []
    assert "does not describe an encoder file" in str(bad[0])
    assert len(repair(server).removed) == 2, "the description and the name"
    push(server, small)
    assert content(server, "small") == small.read_bytes()


@in_lite
def test_strange_rows_are_named_in_printable_letters(server, small):
    push(server, small)
    (row,) = rows(server, 'role == "name"')
    server.client.insert(COLLECTION, [{**row, "id": "\x1b[2Jevil", "nothing": [0.0, 0.0], "data": "\x1b[31m"}])
    (entry,), (bad,) = entries_and_bad_rows(querying(server))
    assert entry.names == ("small",)
    assert str(bad).isprintable()
    assert list(repair(server).removed) == [bad]
    assert entries_and_bad_rows(querying(server)) == ([entry], [])


@in_lite
def test_repair_finds_damaged_files(server, small, other, impatient):
    push(server, small)
    push(server, other)
    rewrite(server, rows(server, f'role == "part" and sha256 == "{sha256_of(small)}"')[0], data="AAAA")
    done = repair(server)
    assert ([entry.names for entry in done.damaged], [entry.names for entry in done.whole]) == (
        [("small",)],
        [("other",)],
    )
    push(server, small, replace=True)
    assert not repair(server).damaged


@in_lite
def test_a_name_that_is_a_path_is_none(server, small, tmp_path, monkeypatch):
    push(server, small)
    rewrite(server, rows(server, 'role == "name"')[0], data="../escaped")
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    entry, path = pull(server, sha256_of(small))
    assert entry.names == ()
    assert path.resolve().parent == tmp_path / "in"


@in_lite
def test_a_collection_of_somebody_else(server, small):
    server.client.create_collection(COLLECTION, dimension=4)
    with pytest.raises(UsageError, match="not what Alula keeps encoders in"):
        push(server, small)


def test_a_collection_without_an_index_or_not_loaded(server, small):
    server.client.drop_collection(COLLECTION)
    schema = MilvusClient.create_schema(auto_id=False)
    for field in store_rows.FIELDS:
        add_field(schema, field, is_primary=field.name == "id")
    server.client.create_collection(COLLECTION, schema=schema)
    push(server, small)
    assert content(server, "small") == small.read_bytes()
    server.client.release_collection(COLLECTION)
    assert content(server, "small") == small.read_bytes()


@in_lite
def test_pull_writes_over_nothing(server, small, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    push(server, small)
    entry, path = pull(server, "small")
    assert path == Path("small.onnx")
    assert path.read_bytes() == small.read_bytes()
    before = path.stat().st_mtime_ns
    pull(server, entry.sha256[:10])  # the same bytes: nothing to do
    assert path.stat().st_mtime_ns == before
    path.write_bytes(other.read_bytes())
    with pytest.raises(UsageError, match=r"small.onnx is there.*out=.*, or overwrite=True"):
        pull(server, "small")
    assert path.read_bytes() == other.read_bytes()
    pull(server, "small", overwrite=True)
    assert path.read_bytes() == small.read_bytes()
    with pytest.raises(AlulaError, match=r"/proc/small\.onnx cannot be written"):
        pull(server, "small", "/proc/small.onnx")
    with pytest.raises(UsageError, match="no folder"):
        pull(server, "small", tmp_path / "nowhere" / "x.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]


@in_lite
def test_remove(server, small, other):
    push(server, small)
    push(server, small, name="also")
    push(server, other)
    done = remove(server, "also")
    assert (done.names, done.gone) == (("also",), False)
    assert find(querying(server), "small").names == ("small",)
    done = remove(server, "small")
    assert (done.names, done.gone) == (("small",), True)
    with pytest.raises(UsageError, match="there are: other"):
        find(querying(server), sha256_of(small))
    assert {row["sha256"] for row in rows(server)} == {sha256_of(other)}
    push(server, small)
    push(server, small, name="also")
    assert remove(server, sha256_of(small)[:12]).names == ("also", "small")
    assert {row["sha256"] for row in rows(server)} == {sha256_of(other)}
    assert content(server, "other") == other.read_bytes()
    with pytest.raises(UsageError, match="no encoder 'small'"):
        remove(server, "small")


@in_lite
def test_an_encoder_in_use_is_not_removed(server, small, other, collection_name):
    push(server, small)
    push(server, other)
    collection = alula.Collection.create(server, collection_name, encoder=small, index_type="DRQ")
    try:
        with pytest.raises(UsageError, match=f"{collection_name}.*force=True"):
            remove(server, "small")
        assert content(server, "small") == small.read_bytes()
        remove(server, "other")
        assert remove(server, "small", force=True).gone
    finally:
        collection.drop()


def test_two_pushes_at_once(server, large, other):
    """One push of the same file, and one of another file under the name, while a first one is on its way."""
    done = []

    def progress(stage, count, total):
        if stage == "sending" and count > 3_000_000 and not done:
            done.append(push(server, large, name="words"))

    second = push(server, large, name="words", progress=progress)
    assert second.entry.sha256 == sha256_of(large)
    assert content(server, "words") == large.read_bytes()

    taken = []

    def take(stage, count, total):
        if not taken:
            taken.append(push(server, large, name="fresh"))

    with pytest.raises(UsageError, match="stands for another encoder"):
        push(server, other, name="fresh", progress=take)
    assert content(server, "fresh") == large.read_bytes()


@in_database
def test_databases_have_stores_of_their_own(server, milvus_server, small):
    with alula.connect(milvus_server.uri) as default:
        before = entries(querying(default))
        push(server, small)
        assert entries(querying(default)) == before
    assert len(entries(querying(server))) == 1


@in_database
def test_what_was_pushed_is_in_storage_and_not_in_the_log_alone(server, small):
    if server.client.has_collection(COLLECTION):  # what others deleted counts until Milvus compacts it
        server.client.drop_collection(COLLECTION)
    push(server, small, name="small")
    before = server.client.get_collection_stats(COLLECTION)["row_count"]
    assert before > 0
    push(server, small, name="again")
    assert server.client.get_collection_stats(COLLECTION)["row_count"] == before + 1
