"""Collections of texts and of images in the real engines: a search finds what brute force in numpy finds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import alula
from alula.encoders import EncoderInfo
from alula.errors import DataError, UsageError
from alula.ingest import target
from alula.sources import ArraySource, open_source
from tests.small_collections import best, scores
from tests.tiny_encoders import VOCABULARY, TinyImages, TinyText, write_drq, write_flops

ROWS = 150
WORDS = VOCABULARY[6:]
QUERIES = ["the red bird", "cat", "dog sees cat"]


def random_texts(rows, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 5))) for _ in range(rows)]


TEXTS = random_texts(ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def text(folder):
    return write_drq(folder / "text.onnx", backbone=TinyText())


@pytest.fixture(scope="module")
def images(folder):
    return write_drq(folder / "images.onnx", metric="L2", backbone=TinyImages())


@pytest.fixture(scope="module")
def file(folder):
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"id": range(ROWS), "title": TEXTS}), path)
    return path


@pytest.fixture(scope="module")
def titles(engine, text, file):
    """A collection that holds the texts, each also as a field."""
    made = alula.Collection.create(
        engine,
        "titles",
        encoder=text.path,
        index_type="DRQ",
        columns=["title:VARCHAR(100)"],
        consistency_level="Strong",
    )
    stages = []
    report = made.load(file, progress=lambda status: stages.append((status.stage, status.encoded)))
    assert (report.rows, report.total, report.ignored) == (ROWS, ROWS, ())
    assert list(dict.fromkeys(stages)) == [
        ("checking", 0),
        ("loading", 0),
        *(("loading", done) for done in (32, 64, 96, 128, 150)),
        ("verifying", ROWS),
    ]
    yield made
    made.drop()


def assert_best(hits, query, rows, metric):
    values = scores(query, rows, metric)
    expected = values[best(values, len(hits), metric)]
    np.testing.assert_allclose([hit.score for hit in hits], expected, atol=2e-4)
    np.testing.assert_allclose([values[hit.id] for hit in hits], expected, atol=2e-4)


def test_texts_find_what_brute_force_finds(titles, text):
    rows, queries = text.backbone.embed(TEXTS), text.backbone.embed(QUERIES, queries=True)
    found = titles.search(QUERIES, limit=7, candidates=ROWS, output_fields=["title"])
    assert len(found) == 3
    for hits, query in zip(found, queries, strict=True):
        assert_best(hits, query, rows, "COSINE")
        assert [hit.fields["title"] for hit in hits] == [TEXTS[hit.id] for hit in hits]


def test_one_text_and_embeddings_at_hand(titles, text):
    vectors = text.backbone.embed(QUERIES, queries=True)
    found = titles.search(QUERIES, limit=5)
    # not the ids: titles of the same words tie up to rounding
    for hits, same in zip(found, titles.search(vectors, limit=5), strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in same], atol=1e-5)
    for one in (QUERIES[0], (QUERIES[0],), vectors[0], vectors[0].tolist()):
        (hits,) = titles.search(one, limit=5)
        assert [hit.id for hit in hits] == [hit.id for hit in found[0]]
    assert titles.search([]) == []
    assert len(titles.search_like(3, limit=4)) == 4


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([1, 2, 3], "Row 0 of the queries is 1, not a string"),
        (["a", None], "Row 1 of the queries is None"),
        ([0.5, 0.5], "The queries have dimension 2, .* takes 8"),
        (np.full(8, np.nan), "NaN or infinite"),
    ],
)
def test_queries_that_are_neither(titles, queries, says):
    with pytest.raises(DataError, match=says):
        titles.search(queries)


def test_the_check_of_the_rows_does_not_run_the_backbone(titles, monkeypatch):
    monkeypatch.setattr(titles.lowering.encoder, "embed", None)
    with pytest.raises(DataError, match="Row 1 of the given rows has the id of an earlier row"):
        titles.insert(["a", "b"], {"id": [1000, 1000], "title": ["a", "b"]})
    with pytest.raises(DataError, match="Row 1 of the texts is 3, not a string"):
        titles.insert(["a", 3], {"id": [1000, 1001], "title": ["a", "b"]})
    with pytest.raises(DataError, match="Row 0 of the given rows cannot be loaded: 5 instead of a text"):
        titles.load(ArraySource([5], {"id": [1000], "title": ["a"]}, "text"))
    assert titles.count() == ROWS


def test_sources_and_columns_for_something_else(titles, file, folder):
    np.save(folder / "v.npy", np.zeros((2, 8), np.float32))
    with pytest.raises(UsageError, match=r"v\.npy was opened for vectors, and the encoder of 'titles' takes text"):
        titles.load(open_source(folder / "v.npy"))
    with pytest.raises(UsageError, match="takes text, so there is no vector column to name"):
        titles.load(file, vector_column="title")
    with pytest.raises(UsageError, match="no column 'body'"):
        titles.load(file, text_column="body")


def test_images_find_what_brute_force_finds(engine, images, folder, collection_name):
    given, more = images.backbone.random(ROWS), images.backbone.random(20, seed=9)
    np.save(folder / "images.npy", given)
    made = alula.Collection.create(
        engine, collection_name, encoder=images.path, index_type="DRQ", consistency_level="Strong"
    )
    assert made.load(folder / "images.npy").auto_ids
    assert made.insert(more, {"id": range(ROWS, ROWS + 20)}).total == ROWS + 20
    assert made.insert(more[0], {"id": [ROWS]}).replaced == 1
    rows = images.backbone.embed(np.concatenate([given, more]))
    queries = images.backbone.random(3, seed=10)
    for hits, query in zip(made.search(queries, limit=6, candidates=200), images.backbone.embed(queries), strict=True):
        values = scores(query, rows, "L2")
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(values)[:6], rtol=1e-4)
        assert [hit.id for hit in hits] == best(values, 6, "L2").tolist()
    (hits,) = made.search(more[7], limit=1, candidates=200)
    assert hits[0].id == ROWS + 7
    with pytest.raises(DataError, match="The queries have dimension 4x5x3"):
        made.search(queries.astype(np.float32))
    with pytest.raises(DataError, match="The images have shape"):
        made.insert(more[:, :2], {"id": range(20)})
    made.drop()


def test_vectors_that_the_server_cannot_keep(engine, folder, collection_name):
    write, index_type, most = (
        (write_flops, "FLOPS_SPARSE", 32768) if engine.embedded else (partial(write_drq, levels=1), "DRQ", 4096)
    )
    fits, longer = (
        write(folder / f"{dim}.onnx", input_dim=dim, metric="IP", backbone=TinyText(dim=dim)).path
        for dim in (most, most + 1)
    )
    alula.Collection.create(engine, collection_name, encoder=fits, index_type=index_type).drop()
    with pytest.raises(UsageError, match=rf"keeps at most {most:,}; .*\(keep_vectors=False\)"):
        alula.Collection.create(engine, collection_name, encoder=longer, index_type=index_type)
    assert not engine.has_collection(collection_name)


def test_vectors_longer_than_milvus_takes(lite, folder):
    tiny = write_flops(folder / "long.onnx", input_dim=33_000, metric="IP", backbone=TinyText(dim=33_000))
    made = alula.Collection.create(
        lite, "long", encoder=tiny.path, index_type="FLOPS_SPARSE", keep_vectors=False, consistency_level="Strong"
    )
    made.insert(TEXTS, {"id": range(ROWS)})
    (hits,) = made.search(QUERIES[0], limit=5)
    rows, query = tiny.dense(tiny.backbone.embed(TEXTS)), tiny.dense(tiny.backbone.embed(QUERIES[:1], queries=True))
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(rows @ query[0])[::-1][:5], atol=1e-4)
    made.drop()


@pytest.mark.parametrize(
    ("dim", "shape", "rows"), [(8, (), 256), (30_522, (), 137), (1_000_000, (), 4), (8, (4096, 4096, 3), 1)]
)
def test_batches_are_bounded_by_bytes(dim, shape, rows):
    kind = "images" if shape else "text"
    info = EncoderInfo("flops", "IP", dim, False, dim=4, max_nnz=2, input=kind, image_shape=shape)
    assert target.batch_rows(info) == rows
