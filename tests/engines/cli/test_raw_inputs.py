"""Encoders of texts and of images from the command line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny_encoders import TinyImages, TinyText, write_drq
from tools.servers.lite import LiteDatabase

TITLES = ["the cat sees", "a red bird", "blue dog", "dog sees the bird", "red red cat", ""]


@pytest.fixture(scope="module")
def uri(starts_engine):
    with LiteDatabase() as database:
        yield database.uri


@pytest.fixture(scope="module")
def text(folder):
    return write_drq(folder / "text.onnx", backbone=TinyText())


@pytest.fixture(scope="module")
def images(folder):
    return write_drq(folder / "images.onnx", backbone=TinyImages())


@pytest.fixture(scope="module")
def rows(folder):
    """Two columns of strings, so that the texts must be named."""
    path = folder / "titles.parquet"
    pq.write_table(pa.table({"id": [f"t{i}" for i in range(len(TITLES))], "title": TITLES}), path)
    return path


@pytest.fixture
def titles(alula, uri, text, rows):
    """``titles("search", ...)``: arguments of a command on the loaded collection."""
    at = ["--uri", uri, "--encoder", text.path]
    if alula("describe", "titles", "--uri", uri).code:
        named = ["--text-column", "title"]
        created = alula("create", "titles", "--index-type", "DRQ", "--like", rows, *named, *at)
        assert (created.code, created.err) == (0, "")
        assert "title:VARCHAR" in created.out
        assert f"Next: alula load titles {rows} --text-column title --uri" in created.out
        loaded = alula("load", "titles", rows, *named, *at)
        assert (loaded.code, "now contains 6" in loaded.out) == (0, True), loaded
    return lambda command, *args: [command, "titles", *args, *at]


def found(result):
    assert (result.code, result.err) == (0, ""), result
    return [[hit["id"] for hit in line["hits"]] for line in result.json]


def order(tiny, queries):
    """The ids as cosines of numpy's embeddings order them."""
    rows, queries = tiny.backbone.embed(TITLES), tiny.backbone.embed(queries, queries=True)
    cosines = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ).T
    return [[f"t{i}" for i in places] for places in np.argsort(-cosines, axis=1)]


def test_search_by_texts(alula, titles, text, tmp_path):
    queries = ["bird", "the red cat"]
    (tmp_path / "q.txt").write_text("bird\nthe red cat\n")
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"q": query, "note": "n"}) + "\n" for query in queries))
    expected, tail = order(text, queries), ["--format", "json"]
    assert found(alula(*titles("search", "--text", queries[0], "--text", queries[1], *tail))) == expected
    assert found(alula(*titles("search", "--texts", tmp_path / "q.txt", *tail))) == expected
    assert found(alula(*titles("search", "--texts", tmp_path / "q.jsonl", "--text-column", "q", *tail))) == expected
    vectors = text.backbone.embed(queries, queries=True)
    np.save(tmp_path / "q.npy", vectors)
    assert found(alula(*titles("search", "--vectors", tmp_path / "q.npy", *tail))) == expected
    one = json.dumps(vectors[0].tolist())
    assert found(alula(*titles("search", "--vector", one, *tail))) == expected[:1]
    shown = alula(*titles("search", "--text", "bird", "-o", "title"))
    assert "dog sees the bird" in shown.out


def test_images_from_end_to_end(alula, uri, images, tmp_path):
    given = images.backbone.random(30)
    np.save(tmp_path / "rows.npy", given)
    np.save(tmp_path / "q.npy", given[[4, 20]])
    at = ["--uri", uri, "--encoder", images.path]
    assert alula("create", "pictures", "--index-type", "DRQ", *at).code == 0
    assert "Loaded 30 rows" in alula("load", "pictures", tmp_path / "rows.npy", *at).out
    result = alula("search", "pictures", "--images", tmp_path / "q.npy", "--limit", 1, *at, "--format", "json")
    assert found(result) == [[4], [20]]


def test_wrong_combinations(fails, titles, uri, images, text, drq, tmp_path, rows):
    np.save(tmp_path / "i.npy", np.zeros((2, 4, 5, 3), np.uint8))
    np.save(tmp_path / "v.npy", np.zeros((2, 5), np.float32))
    fails(2, titles("search", "--images", tmp_path / "i.npy"), "takes text, not images", "--text or --texts")
    fails(1, titles("search", "--vectors", tmp_path / "v.npy"), "dimension 5", "takes 8")
    fails(2, titles("search", "--text", "a", "--vector", "[1]"), "one of --id, --vector, --vectors, --text")
    fails(2, titles("search"), "Say what to search for")
    fails(2, titles("search", "--texts", tmp_path / "i.npy"), "does not read text from")
    fails(2, titles("load", rows), "2 columns of strings (id, title)", "--text-column")
    fails(2, titles("load", rows, "--vector-column", "title"), "takes text", "--vector-column")
    fails(2, titles("load", tmp_path / "i.npy"), "does not read text from")
    base = ["create", "other", "--uri", uri, "--index-type", "DRQ", "--like", rows, "--encoder"]
    fails(2, [*base, drq, "--text-column", "title"], "takes vectors", "--text-column")
    fails(2, [*base, images.path], "does not read images from")


def test_text_for_an_encoder_of_vectors(fails, in_lite):
    base = ["search", in_lite.name, *in_lite.opened]
    fails(2, [*base, "--text", "a"], "takes vectors, not text", "--vector or --vectors")
    fails(2, ["load", in_lite.name, *in_lite.opened, "x.npy", "--text-column", "a"], "no text column")


def test_inspect(alula, text, images):
    out = alula("inspect", text.path).out
    assert "text, at most 6 tokens" in out
    assert "'row: '" in out
    assert "'query: '" in out
    assert "vectors of 8 float32, scaled to unit length inside" in out
    (about,) = alula("inspect", text.path, "--format", "json").json
    assert (about["input"], about["max_tokens"], about["query_prompt"]) == ("text", 6, "query: ")
    assert "images, 4 high, 5 wide, 3 channels of uint8" in alula("inspect", images.path).out
    (about,) = alula("inspect", images.path, "--format", "json").json
    assert (about["input"], about["image_shape"]) == ("images", [4, 5, 3])


def test_texts_as_queries_of_an_evaluation(alula, fails, titles, text, tmp_path):
    asked = TITLES[:3]
    (tmp_path / "queries.txt").write_text("\n".join(asked) + "\n")
    quick = ["--queries", "queries.txt", "--k", "2", "--candidates", "6", "--seconds", "0.05", "--format", "json"]
    result = alula(*titles("evaluate", *quick))
    assert (result.code, result.err) == (0, ""), result
    (figures,) = result.json
    assert figures["subjects"][0]["points"][0]["recall"]["value"] == 1.0
    backbone = TinyText()
    rows = backbone.embed(TITLES)
    for sample in figures["samples"]:
        query = backbone.embed([sample["query"]], queries=True)[0]
        cosines = rows @ query / np.linalg.norm(rows, axis=1)
        assert [n["key"] for n in sample["true"]] == [f"t{i}" for i in np.argsort(-cosines)[:2]]
        assert [n["columns"]["title"] for n in sample["true"]] == [TITLES[i] for i in np.argsort(-cosines)[:2]]
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    fails(2, ["evaluate", "--vectors", "rows.npy", "--encoder", text.path], "takes text", "create and load")
