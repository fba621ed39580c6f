"""FLOPS_SPARSE and DRQ as index types of Milvus Lite 3: what a search finds, against numpy."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from milvus_lite.server_manager import server_manager_instance
from pymilvus import AnnSearchRequest, DataType, RRFRanker
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from tests.engines.lite.inside.mirror import FIELD, QUERIES
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops

ROWS = 600
MOST = {"candidates": ROWS - 100}  # through the codes, yet so many that the best rows are among them
WRITE = {"DRQ": write_drq, "FLOPS_SPARSE": write_flops}
METRICS = ("COSINE", "IP", "L2")


@pytest.fixture(params=WRITE)
def index_type(request):
    return request.param


@pytest.fixture
def encoder(index_type, tmp_path):
    return write(index_type, tmp_path)


def write(index_type, folder, metric="COSINE"):
    # so many non-zeros that all rows but the farthest share a term with a query
    more = {"max_nnz": 24} if index_type == "FLOPS_SPARSE" else {"levels": 6}
    return WRITE[index_type](folder / f"{index_type}_{metric}.onnx", metric=metric, **more)


@pytest.mark.parametrize("metric", METRICS)
def test_with_many_candidates_it_finds_what_brute_force_finds(mirror, index_type, metric, tmp_path):
    rows = mirror(write(index_type, tmp_path, metric), index_type)
    rows.put(range(ROWS))
    rows.flush()
    rows.check(params=MOST)
    rows.check(limit=1, params=MOST)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [8, 24, 48])
def test_drq_ranks_exactly_the_rows_that_are_nearest_by_their_codes(mirror, metric, bits, tmp_path):
    encoder = write("DRQ", tmp_path, metric)
    rows = mirror(encoder, "DRQ")
    rows.put(range(ROWS))
    rows.flush()
    vectors = np.array([vector for vector, *_ in rows.rows.values()])
    levels = bits // 8
    codes = encoder.codes(vectors)
    norms = encoder.norms(codes)[:, levels - 1]
    for query, hits in zip(QUERIES, rows.search(10, params={"bits": bits, "candidates": 40}), strict=True):
        lut = encoder.lut(query[None])[0]
        products = sum(lut[level][codes[:, level]] for level in range(levels))
        estimate = {"IP": products, "COSINE": products / norms, "L2": 2 * products - norms**2}[metric]
        candidates = np.argsort(-estimate, kind="stable")[:40]
        exact = scores(query, vectors[candidates], metric)
        assert [i for i, _ in hits] == candidates[best(exact, 10, metric)].tolist()


@pytest.mark.parametrize("terms", [None, 3])
def test_flops_sparse_ranks_the_rows_of_large_inner_products(mirror, terms, tmp_path):
    encoder = write("FLOPS_SPARSE", tmp_path)
    rows = mirror(encoder, "FLOPS_SPARSE")
    rows.put(range(ROWS))
    rows.flush()
    vectors = np.array([vector for vector, *_ in rows.rows.values()])
    sparse, queries = encoder.dense(vectors), encoder.dense(QUERIES)
    params = {"candidates": 40} | ({"terms": terms} if terms else {})
    same = 0
    for query, weights, hits in zip(QUERIES, queries, rows.search(10, params=params), strict=True):
        kept = np.where(weights >= np.sort(weights)[-(terms or len(weights))], weights, 0)
        products = sparse @ kept
        candidates = np.argsort(-products, kind="stable")[:40]
        exact = scores(query, vectors, "COSINE")
        found = [i for i, _ in hits]
        np.testing.assert_allclose([score for _, score in hits], exact[found], rtol=1e-5)
        assert found == sorted(found, key=lambda i: -exact[i])
        # impacts are rounded: candidates that differ have nearly the same inner product
        assert products[found].min() > 0.9 * products[candidates[-1]]
        same += len({*found} & {*candidates[best(exact[candidates], 10, "COSINE")]})
    assert same >= 0.9 * 10 * len(QUERIES)


def test_fewer_valid_rows_than_asked_for_are_all_found(mirror, index_type, tmp_path):
    # sparse codes of one non-zero: most rows share no term with a query
    narrow = {"max_nnz": 1} if index_type == "FLOPS_SPARSE" else {}
    rows = mirror(WRITE[index_type](tmp_path / "narrow.onnx", **narrow), index_type)
    rows.put(range(ROWS))
    rows.flush()
    rows.check(limit=ROWS + 5)
    rows.check(limit=400, params={"candidates": ROWS - 1})
    rows.check(limit=10, where=lambda i, *_: i in (5, 6, 500), filter="id in [5, 6, 500]")
    rows.check(limit=10, where=lambda *_: False, filter="kind == 9")
    # more valid rows than candidates, and fewer than that share a term
    rows.check(limit=90, where=lambda i, *_: i < 100, filter="id < 100", params={"candidates": 99})


def test_a_limit_above_the_candidates(mirror, encoder, index_type):
    rows = mirror(encoder, index_type)
    rows.put(range(ROWS))
    rows.flush()
    assert [len(hits) for hits in rows.search(50, params={"candidates": 5})] == [50] * len(QUERIES)


def test_filters(mirror, encoder, index_type):
    rows = mirror(encoder, index_type)
    rows.put(range(ROWS))
    rows.flush()
    rows.check(where=lambda i, kind, _: kind == 3, filter="kind == 3", params={"candidates": 70})
    rows.check(where=lambda i, kind, _: kind != 3, filter="kind != 3", params={"candidates": 400})


def test_a_zero_vector_and_a_zero_query(mirror, encoder, index_type):
    rows = mirror(encoder, index_type)
    rows.put(range(ROWS))
    rows.client.upsert(rows.name, [{"id": 3, FIELD: [0.0] * 8, "kind": 3}])
    rows.flush()
    ((hit,),) = rows.search(5, [np.ones(8)], filter="id == 3")
    assert hit == (3, 0.0)
    (hits,) = rows.search(5, [np.zeros(8)], params=MOST)
    assert [distance for _, distance in hits] == [0.0] * 5


def test_options_may_be_text_and_flat(mirror, encoder, index_type):
    rows = mirror(encoder, index_type)
    rows.put(range(ROWS))
    rows.flush()
    expected = rows.search(10, params={"candidates": 12})
    assert rows.search(10, params={"candidates": "12"}) == expected
    flat = rows.client.search(rows.name, QUERIES.tolist(), limit=10, search_params={"candidates": 12})
    assert [[(hit["id"], hit["distance"]) for hit in hits] for hits in flat] == expected
    assert rows.search(10, params=MOST) != expected


def test_range_search_iterator_offset_and_hybrid_search(mirror, encoder, index_type):
    rows = mirror(encoder, index_type)
    rows.put(range(ROWS))
    rows.flush()
    (hits,) = rows.search(20, QUERIES[:1], params=MOST)
    (near,) = rows.search(20, QUERIES[:1], params={**MOST, "radius": hits[9][1]})
    assert near == hits[:9]
    assert rows.search(10, QUERIES[:1], params=MOST, offset=10) == [hits[10:]]
    requests = [AnnSearchRequest(QUERIES[:1].tolist(), FIELD, {"params": MOST}, limit=20)] * 2
    (fused,) = rows.client.hybrid_search(rows.name, requests, RRFRanker(), limit=20)
    assert [hit["id"] for hit in fused] == [i for i, _ in hits]
    iterator = rows.client.search_iterator(
        rows.name, QUERIES[:1].tolist(), batch_size=7, limit=20, search_params={"params": MOST}
    )
    walked = []
    while batch := iterator.next():
        walked += [hit["id"] for hit in batch]
    assert walked == [i for i, _ in hits]


def test_searches_at_the_same_time_find_the_same(mirror, encoder, index_type):
    rows = mirror(encoder, index_type)
    rows.put(range(ROWS))
    rows.flush()
    many = random_vectors(60, seed=9)
    alone = [rows.search(10, [query], params={"candidates": 50}) for query in many]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda query: rows.search(10, [query], params={"candidates": 50}), many))
    assert together == alone


def test_an_ordinary_client_needs_no_more_than_the_encoder(database, index_type, tmp_path, monkeypatch):
    encoder = write(index_type, tmp_path, "L2")
    monkeypatch.chdir(tmp_path)
    client, vectors = database.client(), random_vectors(ROWS)
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=8)
    index = client.prepare_index_params()
    index.add_index(FIELD, index_type=index_type, params={"encoder": encoder.path.name})
    client.create_collection("words", schema=schema, index_params=index)
    client.insert("words", [{"id": i, FIELD: vector} for i, vector in enumerate(vectors)])
    client.flush("words")
    (hits,) = client.search("words", [QUERIES[0]], limit=10, search_params={"params": MOST})
    assert [hit["id"] for hit in hits] == best(scores(QUERIES[0], vectors, "L2"), 10, "L2").tolist()
    about = client.describe_index("words", FIELD)
    assert (about["metric_type"], about["params"]["encoder"]) == ("L2", str(encoder.path))


def test_parameters_as_other_sdks_send_them(mirror, encoder, index_type):
    rows = mirror(encoder, index_type, index=False)
    rows.put(range(ROWS))
    server_port = server_manager_instance._servers[rows.database.uri][2]
    asked = {
        "index_type": index_type.lower(),
        "metric_type": "cosine",
        "params": json.dumps({"encoder": str(encoder.path)}),
        "mmap.enabled": "true",
    }
    pairs = [common_pb2.KeyValuePair(key=key, value=value) for key, value in asked.items()]
    with grpc.insecure_channel(f"localhost:{server_port}") as channel:
        request = milvus_pb2.CreateIndexRequest(collection_name=rows.name, field_name=FIELD, extra_params=pairs)
        status = milvus_pb2_grpc.MilvusServiceStub(channel).CreateIndex(request)
    assert status.code == 0, status.reason
    rows.flush()
    rows.check(params=MOST)
