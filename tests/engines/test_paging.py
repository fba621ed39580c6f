"""Pages of any size fit together: in Python, on the command line, in replicas and through the gateway."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from pymilvus import MilvusClient

import alula as library
from alula import encoder_store
from alula.index_types import MAX_RESULTS
from tests.engines.gateway.running import RunningGateway
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers.lite import connected

ROWS, DISTINCT, DIM = 600, 200, 8
# every vector belongs to three rows, so that all scores tie
VECTORS = np.tile(random_vectors(DISTINCT, DIM, seed=5), (ROWS // DISTINCT, 1))
QUERY = random_vectors(1, DIM, seed=6)[0]
YEARS = [i % 4 for i in range(ROWS)]
CANDIDATES = 30
KINDS = {
    "hamming": ("DRQ", "COSINE", {"layout": "hamming"}),
    "adc": ("DRQ", "L2", {"layout": "adc"}),
    "sparse": ("FLOPS_SPARSE", "IP", {}),
}


class Faces:
    """Four ways to search one collection; each returns the ids of a page and their scores."""

    def __init__(self, collection, client, encoder, command):
        self.collection, self._client, self._encoder, self._command = collection, client, encoder, command
        self._replicas = {kept: library.Replica(collection, columns=["year"], vectors=kept) for kept in (False, True)}

    def python(self, limit, offset, **arguments):
        return self._of_hits(self.collection.search(QUERY, limit=limit, offset=offset, **arguments))

    def replica(self, limit, offset, **arguments):
        return self._of_hits(self._replicas[False].search(QUERY, limit=limit, offset=offset, **arguments))

    def replica_with_vectors(self, limit, offset, **arguments):
        return self._of_hits(self._replicas[True].search(QUERY, limit=limit, offset=offset, **arguments))

    def gateway(self, limit, offset, *, filter="", output_fields=(), **options):
        (hits,) = self._client.search(
            self.collection.name,
            [QUERY.tolist()],
            anns_field="embedding",
            limit=limit,
            filter=filter,
            output_fields=list(output_fields),
            search_params={"offset": offset, "params": options},
        )
        return [(hit["id"], hit["distance"]) for hit in hits]

    def command_line(self, limit, offset, *, filter="", output_fields=(), **options):
        given = {"limit": limit, "offset": offset, "vector": json.dumps(QUERY.tolist()), "format": "json", **options}
        given |= {"filter": filter, "uri": self.collection.server.uri, "encoder": self._encoder.path}
        words = itertools.chain.from_iterable((f"--{name}", value) for name, value in given.items())
        shown = itertools.chain.from_iterable(("-o", name) for name in output_fields)
        result = self._command("search", self.collection.name, *words, *shown)
        assert result.code == 0, result
        assert (result.err == "") == (options.get("candidates", limit) >= limit), result
        return [(hit["id"], hit["score"]) for hit in result.json[0]["hits"]]

    @staticmethod
    def _of_hits(results):
        return [(hit.id, hit.score) for hit in results[0]]


@pytest.fixture(scope="module")
def gateway(lite_server):
    with RunningGateway(lite_server.uri) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def searched(request, lite_server, gateway, tmp_path_factory):
    """A collection in a served Milvus Lite, a client of the gateway in front of it, and the encoder."""
    index_type, metric, options = KINDS[request.param]
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    encoder = (
        write_flops(path, input_dim=DIM, dim=64, max_nnz=64, metric=metric)
        if index_type == "FLOPS_SPARSE"
        else write_drq(path, input_dim=DIM, metric=metric)
    )
    name = f"paging_{request.param}"
    with connected(lite_server.uri) as server:
        encoder_store.push(server, encoder.path, name=name)
        collection = library.Collection.create(
            server, name, encoder=encoder.path, index_type=index_type, columns=["year:INT64"], options=options
        )
        collection.insert(VECTORS, {"id": range(ROWS), "year": YEARS})
        client = MilvusClient(gateway.uri)
        yield collection, client, encoder
        client.close()
        collection.drop()


@pytest.fixture
def faces(searched, alula):
    collection, client, encoder = searched
    return Faces(collection, client, encoder, alula)


OPTIONS = {
    "all re-ranked": {},
    "few re-ranked": {"rerank": 8},
    "estimates": {"rerank": 0},
    "filtered": {"filter": "year < 2"},
    "with fields": {"output_fields": ["year"]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("face", ["python", "replica", "replica_with_vectors", "gateway"])
def test_pages_are_slices_of_one_search(faces, face, options):
    search = getattr(faces, face)
    arguments = {"candidates": CANDIDATES, **options}
    whole = search(ROWS, 0, **arguments)
    matching = {i for i in range(ROWS) if "filter" not in options or YEARS[i] < 2}
    assert sorted(id_ for id_, _ in whole) == sorted(matching)
    rng = np.random.default_rng(len(face))
    for size in (7, CANDIDATES, 45, int(rng.integers(50, 200))):
        starts = range(0, len(whole), size) if size > 40 else (0, size, int(rng.integers(0, len(whole))))
        for start in starts:
            assert search(size, start, **arguments) == whole[start : start + size]


@pytest.mark.parametrize("options", [{}, {"rerank": 8}])
def test_pages_on_the_command_line(faces, options):
    arguments = {"candidates": CANDIDATES, **options}
    whole = faces.python(ROWS, 0, **arguments)
    for size, start in ((20, 0), (20, 20), (50, 10), (200, 399)):
        assert faces.command_line(size, start, **arguments) == whole[start : start + size]


def test_faces_rank_alike_where_milvus_finds_the_candidates(faces):
    arguments = {"candidates": CANDIDATES}
    assert faces.gateway(ROWS, 0, **arguments) == faces.python(ROWS, 0, **arguments)


@pytest.mark.parametrize("face", ["python", "replica", "replica_with_vectors", "gateway"])
def test_scores_are_exact_and_sorted_within_each_stage(faces, face):
    metric = faces.collection.lowering.field.metric
    whole = getattr(faces, face)(ROWS, 0, candidates=CANDIDATES)
    wanted = scores(QUERY, VECTORS, metric)
    np.testing.assert_allclose([score for _, score in whole], wanted[[id_ for id_, _ in whole]], rtol=1e-4, atol=1e-5)
    first = [id_ for id_, _ in whole[:CANDIDATES]]
    assert first == [first[i] for i in best(np.round(wanted[first], 4), CANDIDATES, metric)]
    ranks = {id_: rank for rank, (id_, _) in enumerate(getattr(faces, face)(CANDIDATES, 0, candidates=CANDIDATES))}
    assert list(ranks) == first


def test_pages_of_grouped_and_bounded_searches(faces):
    whole = faces.python(ROWS, 0, candidates=ROWS)
    larger = faces.collection.lowering.field.metric != "L2"
    radius = (whole[100][1] + whole[103][1]) / 2

    def bounded(limit, offset):
        return faces.gateway(limit, offset, candidates=CANDIDATES, radius=radius)

    inside = bounded(ROWS, 0)
    assert inside
    assert all(score > radius if larger else score < radius for _, score in inside)
    assert [hit for start in range(0, len(inside), 9) for hit in bounded(9, start)] == inside


def test_a_search_like_a_row_pages_too(faces):
    found = faces.collection.search_like(3, limit=ROWS - 1, candidates=CANDIDATES)
    assert sorted([3, *(hit.id for hit in found)]) == list(range(ROWS))
    pages = [faces.collection.search_like(3, limit=50, offset=n, candidates=CANDIDATES) for n in range(0, ROWS, 50)]
    assert [hit.id for page in pages for hit in page] == [hit.id for hit in found]


def test_pages_on_each_engine(engine, tmp_path):
    encoder = write_drq(tmp_path / "either.onnx", input_dim=DIM, levels=1)
    collection = library.Collection.create(
        engine, "paging", encoder=encoder.path, index_type="DRQ", consistency_level="Strong"
    )
    collection.insert(VECTORS, {"id": range(ROWS)})
    if not engine.embedded:
        # which of the rows that tie Milvus returns changes when a growing segment becomes a sealed one
        engine.client.flush("paging")
        engine.client.release_collection("paging")
        engine.client.load_collection("paging")
    for options in ({}, {"rerank": 8}, {"rerank": 0}):
        (whole,) = collection.search(QUERY, limit=ROWS, candidates=CANDIDATES, **options)
        assert sorted(hit.id for hit in whole) == list(range(ROWS))
        for start in range(0, ROWS, 45):
            (page,) = collection.search(QUERY, limit=45, offset=start, candidates=CANDIDATES, **options)
            assert page == whole[start : start + 45]
    collection.drop()


def test_pages_reach_as_deep_as_milvus_does(lite, tmp_path):
    vectors = np.tile(random_vectors(8_500, DIM, seed=7), (2, 1))
    encoder = write_drq(tmp_path / "deep.onnx", input_dim=DIM, levels=1)
    collection = library.Collection.create(lite, "deep", encoder=encoder.path, index_type="DRQ")
    collection.insert(vectors, {"id": range(len(vectors))})
    for searched in (collection, library.Replica(collection, vectors=True)):
        (whole,) = searched.search(QUERY, limit=MAX_RESULTS, candidates=1000)
        assert len({hit.id for hit in whole}) == MAX_RESULTS
        for start in (0, 900, 8_000, MAX_RESULTS - 500):
            assert searched.search(QUERY, limit=500, offset=start, candidates=1000)[0] == whole[start : start + 500]
    collection.drop()
