"""A saved replica opens as it was, with or without its collection, and nothing else opens in its place."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import alula
from alula.errors import DataError, EncoderError, UsageError
from alula.replica import snapshot
from tests.small_collections import DIM, ROWS, Rows
from tests.tiny_encoders import random_vectors, write_drq, write_flops

QUERIES = random_vectors(3, DIM, seed=2)
HELD = Rows()
NAMES = ["id", "year", "word"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def drq(folder):
    return write_drq(folder / "drq.onnx", input_dim=DIM)


@pytest.fixture(scope="module", params=["hamming", "adc", "sparse"])
def collection(request, lite, folder, drq):
    if request.param == "sparse":
        encoder = write_flops(folder / "flops.onnx", input_dim=DIM, dim=64, max_nnz=8)
        made = HELD.filled(lite, "s_sparse", encoder, "FLOPS_SPARSE")
    else:
        made = HELD.filled(lite, f"s_{request.param}", drq, "DRQ", options={"layout": request.param})
    yield made
    made.drop()


@pytest.fixture
def small(lite, drq, collection_name):
    made = HELD.filled(lite, collection_name, drq, "DRQ")
    yield made
    lite.client.drop_collection(collection_name)


def answers(replica, **arguments):
    return [
        replica.search(QUERIES, limit=30, output_fields=NAMES, **arguments, **more)
        for more in ({}, {"filter": "year > 1950 and word != 'w7'"}, {"offset": 5})
    ]


@pytest.mark.parametrize("vectors", [False, True])
def test_saved_and_loaded(collection, tmp_path, vectors):
    replica = alula.Replica(collection, columns=["year", "word"], vectors=vectors)
    replica.save(tmp_path / "snapshot")
    rerank = {} if vectors else {"rerank": 0}
    alone = alula.Replica.load(tmp_path / "snapshot", encoder=collection.lowering.encoder.path)
    assert answers(alone, **rerank) == answers(replica, **rerank)
    assert (len(alone), repr(alone), dict(alone.nbytes)) == (ROWS, repr(replica), dict(replica.nbytes))
    joined = alula.Replica.load(tmp_path / "snapshot", collection)
    assert answers(joined) == answers(replica)
    assert joined.refresh().read == ROWS


def test_what_needs_milvus_says_so_without_it(small, tmp_path):
    alula.Replica(small, columns=["year"]).save(tmp_path / "s")
    alone = alula.Replica.load(tmp_path / "s", encoder=small.lowering.encoder)
    for call, says in [
        (lambda: alone.search(QUERIES), "rerank=0"),
        (lambda: alone.search(QUERIES, rerank=0, output_fields=["word"]), "field 'word' is not held"),
        (lambda: alone.search(QUERIES, rerank=0, filter="word == 'w1'"), "column 'word' is not held"),
        (lambda: alone.search(QUERIES, rerank=0, filter="year + 1 > 1950"), "filter 'year \\+ 1 > 1950'"),
        (alone.refresh, "refreshed from its collection"),
    ]:
        with pytest.raises(UsageError, match=says) as caught:
            call()
        assert "loaded without its collection" in str(caught.value)
    with pytest.raises(UsageError, match="give encoder= or the collection"):
        alula.Replica.load(tmp_path / "s")


def test_the_collections_default_options_hold(small, tmp_path):
    replica = alula.Replica(small)
    wanted = replica.search(QUERIES, candidates=30, rerank=0)
    small.set_defaults(candidates=30, rerank=0)
    assert replica.search(QUERIES) == wanted
    exact = replica.search(QUERIES, candidates=30, rerank=30)
    assert replica.search(QUERIES, rerank=30) == exact != wanted
    assert replica.search(QUERIES, rerank=50)[0][0].exact
    replica.save(tmp_path / "s")
    assert replica.refresh().read == ROWS  # it is the same collection still
    small.set_defaults()
    assert replica.search(QUERIES)[0][0].exact
    assert alula.Replica.load(tmp_path / "s", encoder=small.lowering.encoder).search(QUERIES) == wanted


def test_a_loaded_replica_is_refreshed_and_saved_in_its_place(small, tmp_path):
    alula.Replica(small, columns=["year"]).save(tmp_path / "s")
    replica = alula.Replica.load(tmp_path / "s", small)
    small.delete(["row 20", "row 21"])
    columns = {"id": ["new"], "year": [1800], "word": ["n"]}
    small.insert(random_vectors(1, DIM, seed=9), columns)
    report = replica.refresh()
    assert (report.added, report.changed, report.deleted) == (1, 0, 2)
    replica.save(tmp_path / "s")
    again = alula.Replica.load(tmp_path / "s", small)
    assert len(again) == ROWS - 1
    assert [hit.id for hit in again.search(QUERIES[0], filter="year == 1800", rerank=0)[0]] == ["new"]
    report = again.refresh()
    assert (report.added, report.changed, report.deleted) == (0, 0, 0)
    replica.search(QUERIES)  # the folder that it was mapped from is another one now


def test_an_empty_replica(lite, drq, collection_name, tmp_path):
    empty = HELD.create(lite, collection_name, drq, "DRQ")
    alula.Replica(empty, columns=["year"]).save(tmp_path / "s")
    loaded = alula.Replica.load(tmp_path / "s", empty)
    assert loaded.search(QUERIES) == [[]] * len(QUERIES)
    empty.insert(HELD.vectors, HELD.columns)
    assert loaded.refresh().added == ROWS
    empty.drop()


def test_another_encoder_is_refused(small, folder, tmp_path):
    alula.Replica(small).save(tmp_path / "s")
    other = write_drq(folder / "other.onnx", input_dim=DIM, seed=5)
    with pytest.raises(EncoderError, match=f"{small.lowering.encoder.sha256[:16]}.*other.onnx is "):
        alula.Replica.load(tmp_path / "s", encoder=other.path)


def test_another_collection_is_refused(small, collection, tmp_path):
    alula.Replica(small).save(tmp_path / "s")
    if collection.lowering.settings != small.lowering.settings:
        with pytest.raises((UsageError, EncoderError)):
            alula.Replica.load(tmp_path / "s", collection)


def test_a_collection_that_was_created_again_is_refused(standalone, drq, collection_name, tmp_path):
    arguments = (standalone, collection_name, drq, "DRQ")
    collection = HELD.filled(*arguments, keep_vectors=False)
    replica = alula.Replica(collection, columns=["year", "word"])
    replica.save(tmp_path / "s")
    assert answers(alula.Replica.load(tmp_path / "s", collection)) == answers(replica)
    collection.drop()
    again = HELD.filled(*arguments, keep_vectors=False)
    with pytest.raises(UsageError, match="dropped and created again"):
        alula.Replica.load(tmp_path / "s", again)
    alone = alula.Replica.load(tmp_path / "s", encoder=drq.path)
    assert len(alone.search(QUERIES[0])[0]) == 10
    again.drop()


def test_half_a_snapshot_is_never_opened(small, drq, tmp_path, monkeypatch):
    replica = alula.Replica(small, columns=["year"])
    replica.save(tmp_path / "whole")
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) >= 6
    for number, path in enumerate(files):
        for cut in (True, False):
            copy = tmp_path / f"copy{number}{cut}"
            shutil.copytree(tmp_path / "whole", copy)
            broken = copy / path.relative_to(tmp_path / "whole")
            if cut:
                broken.write_bytes(broken.read_bytes()[:-7])
            else:
                broken.unlink()
            with pytest.raises(DataError, match=copy.name):
                alula.Replica.load(copy, encoder=drq.path)
    # a save that fails leaves the older one
    monkeypatch.setattr(np, "save", lambda *arguments, **more: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        replica.save(tmp_path / "whole")
    with pytest.raises(OSError, match="no space"):
        replica.save(tmp_path / "new")
    monkeypatch.undo()
    assert len(alula.Replica.load(tmp_path / "whole", encoder=drq.path)) == ROWS
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="contains no replica"):
        alula.Replica.load(tmp_path / "new", encoder=drq.path)


@pytest.mark.parametrize("damaged", ["null", "7", "[]", "{}", '{"format": 1}', '{"format": 1, "files": {}}', "no JSON"])
def test_a_damaged_about_is_refused(small, drq, tmp_path, damaged):
    alula.Replica(small).save(tmp_path / "s")
    (tmp_path / "s" / "about.json").write_text(damaged)
    with pytest.raises(DataError, match=str(tmp_path / "s")):
        alula.Replica.load(tmp_path / "s", encoder=drq.path)
    hashes = {name: snapshot._sha256(tmp_path / "s" / name) for name in snapshot._files(tmp_path / "s")}
    files = {"format": 1, "files": hashes}
    (tmp_path / "s" / "about.json").write_text(json.dumps(files))
    with pytest.raises(DataError, match="has no 'primary_key'"):
        alula.Replica.load(tmp_path / "s", encoder=drq.path)


def test_another_format_is_refused(small, drq, tmp_path):
    alula.Replica(small).save(tmp_path / "s")
    about = tmp_path / "s" / "about.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 99}))
    with pytest.raises(DataError, match="has the format 99, and this version of Alula reads 1"):
        alula.Replica.load(tmp_path / "s", encoder=drq.path)


@pytest.mark.parametrize("older", [False, True])
def test_a_changed_byte_is_found(small, tmp_path, older):
    """A snapshot lists hashes of its files; an older one lists sizes."""
    alula.Replica(small).save(tmp_path / "s")
    about = json.loads((tmp_path / "s" / snapshot.METADATA_FILE).read_text())
    assert all(len(digest) == 64 for digest in about["files"].values())
    if older:
        about["files"] = {name: (tmp_path / "s" / name).stat().st_size for name in about["files"]}
        (tmp_path / "s" / snapshot.METADATA_FILE).write_text(json.dumps(about))
    assert len(alula.Replica.load(tmp_path / "s", small)) == ROWS
    changed = tmp_path / "s" / "fingerprints.npy"
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    if older:
        assert len(alula.Replica.load(tmp_path / "s", small)) == ROWS
    else:
        with pytest.raises(DataError, match="is not whole"):
            alula.Replica.load(tmp_path / "s", small)
