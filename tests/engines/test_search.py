"""Searches in the real engines find what brute force finds, in the user's metric."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import alula
import alula.search.searcher
from alula.errors import DataError, UsageError
from alula.evaluation.native import wait_until_indexed
from tests.small_collections import AWKWARD_IDS, DIM, ROWS, Rows, best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops

METRICS = ("COSINE", "IP", "L2")
QUERIES = random_vectors(5, DIM, seed=2)
ROWS_HELD = Rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module", params=METRICS)
def hamming(request, engine, folder):
    """DRQ, layout hamming, with codes, on each engine and in each metric."""
    encoder = write_drq(folder / f"drq-{request.param}.onnx", input_dim=DIM, metric=request.param)
    options = {"layout": "hamming", "code_bits": 32}
    collection = ROWS_HELD.filled(engine, f"hamming_{request.param}", encoder, "DRQ", options=options)
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=["COSINE", "L2"])
def signs(request, engine, folder):
    """DRQ as it is by default, ranked by its sign bits, on each engine."""
    encoder = write_drq(folder / f"signs-{request.param}.onnx", input_dim=DIM, metric=request.param)
    collection = ROWS_HELD.filled(engine, f"signs_{request.param}", encoder, "DRQ")
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=METRICS)
def adc(request, lite, folder):
    """DRQ, layout adc, in each metric."""
    encoder = write_drq(folder / f"adc-{request.param}.onnx", input_dim=DIM, metric=request.param)
    collection = ROWS_HELD.filled(lite, f"adc_{request.param}", encoder, "DRQ", options={"layout": "adc"})
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=METRICS)
def sparse(request, lite, folder):
    """FLOPS_SPARSE in each metric."""
    encoder = write_flops(
        folder / f"flops-{request.param}.onnx", input_dim=DIM, dim=64, max_nnz=8, metric=request.param
    )
    collection = ROWS_HELD.filled(lite, f"sparse_{request.param}", encoder, "FLOPS_SPARSE")
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module")
def cosine(engine, folder):
    """One collection per engine for what does not depend on the index type."""
    encoder = write_drq(folder / "cosine.onnx", input_dim=DIM)
    collection = ROWS_HELD.filled(engine, "cosine", encoder, "DRQ")
    yield collection
    collection.drop()


def expected(query, metric, k=10, among=None):
    """Ids and scores of the exact best rows, among some of them."""
    among = np.arange(ROWS) if among is None else np.asarray(among)
    values = scores(query, ROWS_HELD.vectors[among], metric)
    order = best(values, k, metric)
    return [ROWS_HELD.ids[i] for i in among[order]], values[order]


def assert_exact(hits, query, metric, **arguments):
    ids, values = expected(query, metric, **arguments)
    assert [hit.id for hit in hits] == ids
    np.testing.assert_allclose([hit.score for hit in hits], values, rtol=1e-4, atol=1e-5)
    assert all(hit.exact for hit in hits)


def assert_scores(hits, values, metric, k, error):
    """The hits have the k best scores, and each hit has its own; rows of equal codes may stand for each other."""
    found = [hit.score for hit in hits]
    np.testing.assert_allclose(found, values[best(values, k, metric)], rtol=0, atol=error)
    own = dict(zip(ROWS_HELD.ids, values, strict=True))
    np.testing.assert_allclose(found, [own[hit.id] for hit in hits], rtol=0, atol=error)


def reconstructions(encoder, query, levels):
    """What the first levels of all rows' codes stand for, and the query that they are compared with."""
    info = encoder.info
    x_hat = encoder.reconstructions(encoder.codes(ROWS_HELD.vectors))[levels - 1] * info.scale
    if info.normalized:
        query = query / np.linalg.norm(query)
    return x_hat, query


@pytest.mark.parametrize("candidates_vectors", ["fetched", "second search"])
def test_all_candidates_reranked_is_brute_force(hamming, candidates_vectors, monkeypatch):
    encoder, collection = hamming
    if candidates_vectors == "second search":
        monkeypatch.setattr(alula.search.searcher, "FETCH_BYTES", 0)
    for query, hits in zip(QUERIES, collection.search(QUERIES, candidates=ROWS), strict=True):
        assert_exact(hits, query, encoder.info.metric)


def test_rows_that_tie_in_a_second_search_are_ranked_by_id(lite, folder, monkeypatch):
    """Milvus is asked for few more than are wanted, and again for all where more tie."""
    monkeypatch.setattr(alula.search.searcher, "FETCH_BYTES", 0)
    encoder, count = write_drq(folder / "ties.onnx", input_dim=DIM), 3 * alula.search.searcher.TIED
    collection = alula.Collection.create(lite, "ties", encoder=encoder.path, index_type="DRQ")
    collection.insert(np.tile(QUERIES[0], (count, 1)), {"id": np.arange(count)[::-1]})
    (hits,) = collection.search(QUERIES[0], limit=5, candidates=count)
    assert [hit.id for hit in hits] == [0, 1, 2, 3, 4]
    collection.drop()


@pytest.mark.parametrize("filter", ["", "year < 1950"])
def test_signs_are_weighed_by_the_query(signs, filter):
    encoder, collection = signs
    assert {field.data_type for field in collection.lowering.fields} <= {"BINARY_VECTOR", "FLOAT"}
    among = [i for i in range(ROWS) if not filter or i % 100 < 50]
    arguments = {"candidates": ROWS, "filter": filter}
    estimates = encoder.sign_estimates(QUERIES, ROWS_HELD.vectors)
    worse = np.inf if encoder.info.metric == "L2" else -np.inf
    for values, hits in zip(estimates, collection.search(QUERIES, rerank=0, **arguments), strict=True):
        matching = np.full(ROWS, worse)
        matching[among] = values[among]
        assert_scores(hits, matching, encoder.info.metric, 10, 1e-4)
        assert not any(hit.exact for hit in hits)
    for query, hits in zip(QUERIES, collection.search(QUERIES, **arguments), strict=True):
        assert_exact(hits, query, encoder.info.metric, among=among)


def test_the_best_by_signs_of_three_times_as_many_are_scored(signs):
    encoder, collection = signs
    metric = encoder.info.metric
    bits = np.unpackbits(encoder.row_signs(ROWS_HELD.vectors), axis=1)
    asked = np.unpackbits(encoder.query_signs(QUERIES), axis=1)
    estimates = encoder.sign_estimates(QUERIES, ROWS_HELD.vectors)
    for i, hits in enumerate(collection.search(QUERIES, oversample=2)):  # 20 of 60
        distances = (bits != asked[i]).sum(1)
        last = np.sort(distances)[59]
        sure, maybe = distances < last, distances <= last
        closeness = -estimates[i] if metric == "L2" else estimates[i]
        # Milvus Lite does not return signs with a search: all 60 are scored
        most = 60 if collection.server.embedded else 20
        scored = {ROWS_HELD.ids[j] for j in np.flatnonzero(maybe) if (closeness[sure] > closeness[j]).sum() < most}
        assert {hit.id for hit in hits} <= scored
        values = scores(QUERIES[i], ROWS_HELD.vectors, metric)
        own = dict(zip(ROWS_HELD.ids, values, strict=True))
        np.testing.assert_allclose([hit.score for hit in hits], [own[hit.id] for hit in hits], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_hamming_ranks_by_the_codes_distance_at_any_length(hamming, bits):
    encoder, collection = hamming
    metric = encoder.info.metric
    for query, hits in zip(QUERIES, collection.search(QUERIES, candidates=ROWS, bits=bits, rerank=0), strict=True):
        x_hat, unit = reconstructions(encoder, query, bits // 8)
        values = scores(unit, x_hat, metric)
        # norms are held as float16, which shifts a squared distance by at most this much
        error = 1e-5 + 2.0**-10 * (np.square(x_hat).sum(axis=1).max() if metric == "L2" else 1)
        assert_scores(hits, values, metric, 10, error)
        assert not any(hit.exact for hit in hits)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_adc_layout_lets_milvus_compute_the_codes_distance(adc, bits):
    encoder, collection = adc
    metric = encoder.info.metric
    for query, hits in zip(QUERIES, collection.search(QUERIES, limit=100, bits=bits, rerank=0), strict=True):
        x_hat, unit = reconstructions(encoder, query, bits // 8)
        # for COSINE it ranks by the cosine to first order about reconstructions of unit length and a product of 0.6
        first_order = x_hat @ unit + 0.3 * (1 - np.square(x_hat).sum(1))
        values = first_order if metric == "COSINE" else scores(unit, x_hat, metric)
        assert_scores(hits, values, metric, 100, 1e-3)


def test_adc_layout_reranked_is_exact(adc):
    encoder, collection = adc
    for query, hits in zip(QUERIES, collection.search(QUERIES, candidates=ROWS), strict=True):
        assert_exact(hits, query, encoder.info.metric)


def test_adc_layout_names_the_lengths_it_holds(adc):
    encoder, collection = adc
    if encoder.info.metric != "IP":  # the inner product needs no norms, so it holds every length
        with pytest.raises(UsageError, match="8, 16, 32"):
            collection.search(QUERIES, bits=24)


@pytest.mark.parametrize("terms", [None, 3])
def test_flops_sparse_reranks_the_best_of_the_inverted_index(sparse, terms):
    encoder, collection = sparse
    rows = encoder.dense(ROWS_HELD.vectors)
    for query, hits in zip(QUERIES, collection.search(QUERIES, candidates=50, terms=terms), strict=True):
        sent = encoder.dense(query[None])[0]
        if terms:
            sent[np.argsort(-sent, kind="stable")[terms:]] = 0
        products = rows @ sent
        candidates = np.argsort(-products, kind="stable")[:50]
        candidates = candidates[products[candidates] > 0]  # Milvus returns no row that shares no term
        assert_exact(hits, query, encoder.info.metric, among=candidates)


def test_flops_sparse_without_reranking_returns_sparse_products(sparse):
    encoder, collection = sparse
    products = encoder.dense(ROWS_HELD.vectors) @ encoder.dense(QUERIES[:1])[0]
    (hits,) = collection.search(QUERIES[0], rerank=0)
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(products)[::-1][:10], rtol=1e-5)
    assert not any(hit.exact for hit in hits)


def test_few_reranked_candidates_are_the_best_by_code(cosine):
    (hits,) = cosine.search(QUERIES[0], candidates=ROWS, rerank=50)
    by_code = cosine.search(QUERIES[0], candidates=ROWS, rerank=0, limit=50)[0]
    places = {id_: i for i, id_ in enumerate(ROWS_HELD.ids)}
    assert_exact(hits, QUERIES[0], "COSINE", among=sorted(places[hit.id] for hit in by_code))


def test_filter_offset_and_output_fields_work_as_in_milvus(cosine):
    among = [i for i in range(ROWS) if 1900 + i % 100 > 1950]
    arguments = {"filter": "year > 1950", "output_fields": ["year", "word"], "candidates": ROWS}
    (hits,) = cosine.search(QUERIES[0], limit=7, offset=3, **arguments)
    ids, _ = expected(QUERIES[0], "COSINE", k=10, among=among)
    assert [hit.id for hit in hits] == ids[3:]
    for hit in hits:
        place = ROWS_HELD.ids.index(hit.id)
        assert hit.fields == {"year": 1900 + place % 100, "word": f"w{place}"}


@pytest.mark.parametrize("candidates_vectors", ["fetched", "second search"])
def test_every_call_of_a_search_has_its_filter(engine, cosine, candidates_vectors, monkeypatch):
    """Collections with a partition key that is isolated refuse others, and a row that matches no more is left out."""
    if candidates_vectors == "second search":
        monkeypatch.setattr(alula.search.searcher, "FETCH_BYTES", 0)
    filters = []
    for name in ("search", "query"):
        call = getattr(engine.client, name)

        def noted(*args, call=call, **given):
            filters.append(given["filter"])
            return call(*args, **given)

        monkeypatch.setattr(engine.client, name, noted)
    assert (
        len(cosine.search(QUERIES[0], filter="year < 1950", candidates=20, rerank=10, output_fields=["year"])[0]) == 10
    )
    assert len(filters) >= 2
    assert all("year < 1950" in one for one in filters)


def test_a_batch_gives_what_single_searches_give(cosine, monkeypatch):
    monkeypatch.setattr(alula.search.searcher, "RESPONSE_BYTES", 1)  # one query per call
    singly = cosine.search(QUERIES)
    monkeypatch.undo()
    assert cosine.search(QUERIES) == singly == [cosine.search(query)[0] for query in QUERIES]


def test_answers_with_vectors_are_as_large_as_the_server_likes_them(cosine, folder, monkeypatch):
    """Milvus Lite's time grows with the square of their bytes: 100 queries took 42 s with a bound on rows alone."""
    most, candidates, calls = 3 * 100 * 4 * DIM, 100, []
    for name in ("LITE", "MILVUS"):
        dialect = getattr(alula.milvus.connection, name)
        monkeypatch.setattr(alula.milvus.connection, name, dataclasses.replace(dialect, vector_bytes=most))
    search = cosine.server.client.search

    def noted(*args, **given):
        calls.append(len(given["data"]))
        return search(*args, **given)

    monkeypatch.setattr(cosine.server.client, "search", noted)
    opened = alula.Collection.open(cosine.server, cosine.name, encoder=folder / "cosine.onnx")
    hits = opened.search(QUERIES, candidates=candidates)
    assert calls == [3, 2]
    assert hits == cosine.search(QUERIES, candidates=candidates)


def test_a_filter_that_matches_nothing_gives_no_hits(cosine):
    assert cosine.search(QUERIES, filter="year < 0", output_fields=["word"]) == [[]] * len(QUERIES)


@pytest.mark.parametrize("id_", AWKWARD_IDS)
def test_more_like_this_takes_any_id(cosine, id_):
    place = ROWS_HELD.ids.index(id_)
    hits = cosine.search_like(id_, limit=5, candidates=ROWS)
    others = [i for i in range(ROWS) if i != place]
    assert_exact(hits, ROWS_HELD.vectors[place], "COSINE", k=5, among=others)


@pytest.mark.parametrize("id_", AWKWARD_IDS)
def test_awkward_ids_pass_through_every_step(cosine, id_, monkeypatch):
    monkeypatch.setattr(alula.search.searcher, "FETCH_BYTES", 0)  # the id goes into a filter of the second search
    place = ROWS_HELD.ids.index(id_)
    (hits,) = cosine.search(ROWS_HELD.vectors[place], limit=1, rerank=20, output_fields=["word"])
    assert (hits[0].id, hits[0].fields["word"]) == (id_, f"w{place}")


def test_deleted_rows_are_gone_and_come_back(cosine):
    chosen = [i for i, id_ in enumerate(AWKWARD_IDS) if "'" not in id_ or not cosine.server.embedded]
    cosine.delete([AWKWARD_IDS[i] for i in chosen])
    assert cosine.count() == ROWS - len(chosen)
    columns = {name: [values[i] for i in chosen] for name, values in ROWS_HELD.columns.items()}
    assert cosine.insert(ROWS_HELD.vectors[chosen], columns).total == ROWS


def test_lite_refuses_to_delete_what_it_would_put_into_sql_unescaped(cosine):
    if cosine.server.embedded:
        with pytest.raises(alula.ServerError, match="single quote"):
            cosine.delete(["row 20", "x') or ('1'='1"])
        assert cosine.count() == ROWS


@pytest.mark.parametrize("binary_index", ["BIN_IVF_FLAT", "HNSW"])
def test_an_index_that_visits_some_rows_finds_the_fewest_different_bits(
    standalone, folder, collection_name, binary_index
):
    encoder = write_drq(folder / "visited.onnx", input_dim=DIM)
    rows = random_vectors(1500, DIM, seed=6)  # Milvus 2.3 builds no index for fewer than 1,024
    options = {"layout": "hamming", "binary_index": binary_index}
    made = {"encoder": encoder.path, "index_type": "DRQ", "options": options}
    collection = alula.Collection.create(standalone, collection_name, **made)
    collection.insert(rows, {"id": np.arange(len(rows))})
    wait_until_indexed(standalone, collection_name, "building", 60)
    stated = standalone.client.describe_index(collection_name, f"{collection.lowering.index.field}")
    assert (stated["index_type"], stated["indexed_rows"]) == (binary_index, len(rows))
    different = np.unpackbits(encoder.row_signs(rows)[None] ^ encoder.query_signs(QUERIES)[:, None], axis=2).sum(2)
    whole = {"nprobe": 1024} if binary_index == "BIN_IVF_FLAT" else {"ef": 1500}
    for query, counts in zip(QUERIES, different, strict=True):
        hits = collection.search(query, limit=50, candidates=50, rerank=0, **whole)[0]
        assert (counts[[hit.id for hit in hits]] <= np.sort(counts)[49]).sum() >= 48
        assert collection.search(query, limit=50, candidates=200, **dict.fromkeys(whole, 1))[0]


def test_partitions_limit_what_is_searched_and_loaded(standalone, folder, collection_name):
    encoder = write_drq(folder / "partitions.onnx", input_dim=DIM)
    collection = ROWS_HELD.create(standalone, collection_name, encoder, "DRQ")
    for start, name in ((0, "old"), (300, "new")):
        standalone.client.create_partition(collection_name, name)
        columns = {key: values[start : start + 300] for key, values in ROWS_HELD.columns.items()}
        source = alula.collection.ArraySource(ROWS_HELD.vectors[start : start + 300], columns)
        collection.load(source, partition=name)
    (hits,) = collection.search(QUERIES[0], partitions=["new"], candidates=ROWS)
    assert_exact(hits, QUERIES[0], "COSINE", among=range(300, ROWS))
    collection.drop()


def test_partitions_are_refused_where_they_do_not_exist(sparse):
    _, collection = sparse
    with pytest.raises(UsageError, match="no partitions; search without"):
        collection.search(QUERIES, partitions=["new"])
    with pytest.raises(UsageError, match="no partitions; load without"):
        collection.load(alula.collection.ArraySource(ROWS_HELD.vectors, ROWS_HELD.columns), partition="new")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"limit": 16385}, "16384"),
        ({"limit": 0}, "at least 1"),
        ({"limit": 16000, "offset": 500}, "limit plus offset is 16500"),
        ({"offset": -1}, "at least 0"),
        ({"candidates": 20000}, "candidates is 20000"),
        ({"bits": 16}, "bits is 16, and this collection stores no codes"),
        ({"oversample": 0}, "oversample is 0"),
        ({"limit": 100, "oversample": 200}, "at most 16,384 candidates"),
        ({"rerank": -1}, "rerank is -1"),
        ({"search_list": 64}, "DRQ has no option search_list"),
        ({"filter": "year >"}, "filter 'year >'"),
        ({"filter": "no_such_field == 1"}, "no_such_field"),
        ({"filter": 'word == "unclosed'}, "filter"),
    ],
)
def test_wrong_searches_are_refused_with_a_sentence(cosine, arguments, says):
    with pytest.raises(UsageError, match=says):
        cosine.search(QUERIES, **arguments)


def test_rows_that_change_before_their_fields_are_read(engine, folder, monkeypatch, collection_name):
    encoder = write_drq(folder / "one-moment.onnx", input_dim=DIM)
    collection = ROWS_HELD.filled(engine, collection_name, encoder, "DRQ")
    query = QUERIES[0]
    arguments = {"limit": 10, "candidates": ROWS, "filter": "year >= 0", "output_fields": ["year", "word"]}
    (before,) = collection.search(query, **arguments)
    gone, changed, left = before[0].id, before[1].id, before[2].id
    rank = alula.search.searcher.Searcher.rank

    def rank_and_change(*given, **named):
        ranked = rank(*given, **named)
        monkeypatch.undo()
        collection.delete([gone])
        columns = {"id": [changed, left], "year": [1, -1], "word": ["new", "new"]}
        collection.insert(np.stack([-query, query]), columns, mode="upsert")
        return ranked

    monkeypatch.setattr(alula.search.searcher.Searcher, "rank", rank_and_change)
    (hits,) = collection.search(query, **arguments)
    assert [hit.id for hit in hits] == [*(hit.id for hit in before[3:]), changed]
    assert hits[-1].fields == {"year": 1, "word": "new"}
    assert hits[-1].score == pytest.approx(-1, abs=1e-5)
    assert [(hit.score, hit.fields) for hit in hits[:-1]] == [(pytest.approx(h.score), h.fields) for h in before[3:]]
    collection.drop()


def test_unknown_output_fields_are_named(cosine):
    with pytest.raises(alula.AlulaError, match="nope"):
        cosine.search(QUERIES, output_fields=["nope"])


@pytest.mark.parametrize(
    "bad", [np.full(DIM, np.nan), np.full(DIM, np.inf), np.zeros(3), [["a"] * DIM], np.zeros((2, 2, DIM))]
)
def test_wrong_queries_are_refused(cosine, bad):
    with pytest.raises(DataError, match="queries"):
        cosine.search(bad)


def test_dropped_vectors_give_estimates_only(engine, folder, collection_name):
    encoder = write_drq(folder / "dropped.onnx", input_dim=DIM)
    collection = ROWS_HELD.filled(engine, collection_name, encoder, "DRQ", keep_vectors=False)
    (hits,) = collection.search(QUERIES[0], candidates=ROWS)
    assert not any(hit.exact for hit in hits)
    with pytest.raises(UsageError, match="dropped"):
        collection.search_like(ROWS_HELD.ids[0])
    with pytest.raises(UsageError, match="dropped"):
        collection.search(QUERIES[0], rerank=10)
    collection.drop()
