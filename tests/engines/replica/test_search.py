"""A replica finds what its collection finds, in every metric and layout, and says what it cannot do alone."""

from __future__ import annotations

import functools
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import alula
from alula.errors import DataError, UsageError
from alula.index_types import IndexType
from tests.small_collections import AWKWARD_IDS, DIM, ROWS, Rows, best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops

METRICS = ("COSINE", "IP", "L2")
QUERIES = random_vectors(4, DIM, seed=2)
HELD = Rows()
EVERY = {"candidates": ROWS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module", params=METRICS)
def hamming(request, engine, folder):
    encoder = write_drq(folder / f"drq-{request.param}.onnx", input_dim=DIM, metric=request.param)
    options = {"layout": "hamming", "code_bits": 32}
    collection = HELD.filled(engine, f"r_hamming_{request.param}", encoder, "DRQ", options=options)
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=["COSINE", "L2"])
def signs(request, engine, folder):
    encoder = write_drq(folder / f"signs-{request.param}.onnx", input_dim=DIM, metric=request.param)
    collection = HELD.filled(engine, f"r_signs_{request.param}", encoder, "DRQ")
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=METRICS)
def adc(request, lite, folder):
    encoder = write_drq(folder / f"adc-{request.param}.onnx", input_dim=DIM, metric=request.param)
    collection = HELD.filled(lite, f"r_adc_{request.param}", encoder, "DRQ", options={"layout": "adc"})
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=METRICS)
def sparse(request, lite, folder):
    metric = request.param
    encoder = write_flops(folder / f"flops-{metric}.onnx", input_dim=DIM, dim=64, max_nnz=8, metric=metric)
    collection = HELD.filled(lite, f"r_sparse_{metric}", encoder, "FLOPS_SPARSE")
    yield encoder, collection
    collection.drop()


@pytest.fixture(scope="module", params=["hamming", "adc", "sparse"])
def any_type(request, lite, folder):
    """One collection of each kind, in COSINE."""
    kind = request.param
    if kind == "sparse":
        encoder = write_flops(folder / "any-flops.onnx", input_dim=DIM, dim=64, max_nnz=8)
        collection = HELD.filled(lite, "r_any_sparse", encoder, "FLOPS_SPARSE")
    else:
        encoder = write_drq(folder / f"any-{kind}.onnx", input_dim=DIM)
        collection = HELD.filled(lite, f"r_any_{kind}", encoder, "DRQ", options={"layout": kind})
    yield collection
    collection.drop()


@pytest.fixture(scope="module")
def cosine(engine, folder):
    """One collection per engine for what does not depend on the index type, and a replica with a column."""
    encoder = write_drq(folder / "cosine.onnx", input_dim=DIM)
    collection = HELD.filled(engine, "r_cosine", encoder, "DRQ")
    yield collection, alula.Replica(collection, columns=["year"])
    collection.drop()


def assert_same(found, wanted, *, error=1e-5):
    """The same scores, and the same rows wherever no other has the same score."""
    for ours, theirs in zip(found, wanted, strict=True):
        values = np.array([hit.score for hit in theirs])
        np.testing.assert_allclose([hit.score for hit in ours], values, rtol=1e-4, atol=error)
        assert [hit.exact for hit in ours] == [hit.exact for hit in theirs]
        alone = [i for i, value in enumerate(values) if np.sum(np.abs(values - value) <= 2 * error) == 1][:-1]
        assert [ours[i].id for i in alone] == [theirs[i].id for i in alone]


def assert_brute_force(found, metric, *, among=range(ROWS)):
    among = np.asarray(among)
    for query, hits in zip(QUERIES, found, strict=True):
        values = scores(query, HELD.vectors[among], metric)
        order = best(values, 10, metric)
        assert [hit.id for hit in hits] == [HELD.ids[i] for i in among[order]]
        np.testing.assert_allclose([hit.score for hit in hits], values[order], rtol=1e-4, atol=1e-5)
        assert all(hit.exact for hit in hits)


@pytest.mark.parametrize("vectors", [False, True])
def test_hamming_exactly(hamming, vectors):
    encoder, collection = hamming
    found = alula.Replica(collection, vectors=vectors).search(QUERIES, **EVERY)
    assert_brute_force(found, encoder.info.metric)
    assert_same(found, collection.search(QUERIES, **EVERY))


@pytest.mark.parametrize("vectors", [False, True])
def test_signs_exactly_and_alone(signs, vectors):
    encoder, collection = signs
    replica = alula.Replica(collection, vectors=vectors)
    assert_brute_force(replica.search(QUERIES, **EVERY), encoder.info.metric)
    found = replica.search(QUERIES, rerank=0, **EVERY)
    estimates = encoder.sign_estimates(QUERIES, HELD.vectors)
    error = 2e-3 * np.abs(estimates).max()  # lengths are held as float16
    assert_same(found, collection.search(QUERIES, rerank=0, **EVERY), error=error)
    for hits, values in zip(found, estimates, strict=True):
        order = best(values, 10, encoder.info.metric)
        np.testing.assert_allclose([hit.score for hit in hits], values[order], rtol=0, atol=error)


@pytest.mark.parametrize("bits", [16, 32])
def test_hamming_by_the_codes_alone(hamming, bits):
    _, collection = hamming
    arguments = {"bits": bits, "rerank": 0, **EVERY}
    assert_same(alula.Replica(collection).search(QUERIES, **arguments), collection.search(QUERIES, **arguments))


@pytest.mark.parametrize("vectors", [False, True])
def test_adc_exactly(adc, vectors):
    encoder, collection = adc
    found = alula.Replica(collection, vectors=vectors).search(QUERIES, **EVERY)
    assert_brute_force(found, encoder.info.metric)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_adc_by_the_codes_alone(adc, bits):
    encoder, collection = adc
    metric = encoder.info.metric
    found = alula.Replica(collection).search(QUERIES, bits=bits, rerank=0)
    x_hat = encoder.reconstructions(encoder.codes(HELD.vectors))[bits // 8 - 1] * encoder.info.scale
    # norms are held as float16, which shifts a squared distance by at most this much
    error = 2e-3 + 2.0**-10 * (np.square(x_hat).sum(axis=1).max() if metric == "L2" else 1)
    if metric != "COSINE":
        assert_same(found, collection.search(QUERIES, bits=bits, rerank=0), error=error)
    for query, hits in zip(QUERIES, found, strict=True):
        values = scores(query, x_hat, metric)
        np.testing.assert_allclose([hit.score for hit in hits], values[best(values, 10, metric)], rtol=0, atol=error)
        assert not any(hit.exact for hit in hits)


def test_adc_has_the_lengths_that_the_collection_has(adc):
    encoder, collection = adc
    if encoder.info.metric != "IP":
        with pytest.raises(UsageError, match="8, 16, 32"):
            alula.Replica(collection).search(QUERIES, bits=24, rerank=0)


@pytest.mark.parametrize("vectors", [False, True])
def test_sparse_exactly(sparse, vectors):
    _, collection = sparse
    replica = alula.Replica(collection, vectors=vectors)
    assert_same(replica.search(QUERIES, **EVERY), collection.search(QUERIES, **EVERY))
    if not vectors:  # where the vectors are held, candidates are chosen by sums of 16 bits
        arguments = {"candidates": 50, "terms": 3}
        assert_same(replica.search(QUERIES, **arguments), collection.search(QUERIES, **arguments))


def test_sparse_products(sparse):
    encoder, collection = sparse
    found = alula.Replica(collection).search(QUERIES, rerank=0, limit=20)
    assert_same(found, collection.search(QUERIES, rerank=0, limit=20))
    products = encoder.dense(HELD.vectors) @ encoder.dense(QUERIES).T
    for hits, values in zip(found, products.T, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(values)[::-1][:20], rtol=1e-5)


def test_few_reranked_candidates_are_the_best_by_code(any_type):
    # where vectors are held, an inverted index chooses candidates by sums of 16 bits, which its own tests are for
    for vectors in (False,) if any_type.index_type.name == "FLOPS_SPARSE" else (False, True):
        replica = alula.Replica(any_type, vectors=vectors)
        among = [[hit.id for hit in hits] for hits in replica.search(QUERIES, rerank=0, limit=30)]
        for ids, hits in zip(among, replica.search(QUERIES, rerank=30), strict=True):
            assert {hit.id for hit in hits} <= set(ids)
            assert all(hit.exact for hit in hits)


def test_offset_limit_and_batches(any_type):
    replica = alula.Replica(any_type)
    for arguments in ({"candidates": 100}, {"candidates": 100, "rerank": 0}):
        whole = replica.search(QUERIES, limit=20, **arguments)
        assert_same(replica.search(QUERIES, limit=13, offset=7, **arguments), [hits[7:] for hits in whole])
        assert_same([replica.search(query, limit=20, **arguments)[0] for query in QUERIES], whole)
        assert replica.search(QUERIES, limit=5, offset=ROWS + 100, **arguments) == [[]] * len(QUERIES)


@pytest.mark.parametrize("rerank", [None, 0])
def test_filters_on_held_columns(cosine, rerank):
    collection, replica = cosine
    filters = ["year > 1950", 'year in [1903, 1999] or id == "it\'s"', 'id like "row 1%" and 1900 <= year < 1920']
    for text in filters:
        assert replica.filter_is_local(text)
        arguments = {"filter": text, "rerank": rerank, "limit": 20, **EVERY}
        assert_same(replica.search(QUERIES, **arguments), collection.search(QUERIES, **arguments))


@pytest.mark.parametrize("nothing", [None, "", "  ", "\n"])
def test_no_filter_and_blanks_let_every_row_through(cosine, nothing):
    collection, replica = cosine
    assert replica.filter_is_local(nothing)
    for one in (collection, replica):
        for fields in ([], ["word"]):
            found = one.search(QUERIES, filter=nothing, output_fields=fields, **EVERY)
            assert found == one.search(QUERIES, output_fields=fields, **EVERY)


def test_a_filter_used_again_finds_the_same(any_type):
    replica = alula.Replica(any_type, columns=["year"])
    texts = [f"year > {1900 + i}" for i in range(20)]
    first = [replica.search(QUERIES, filter=text, rerank=0) for text in texts]
    assert [replica.search(QUERIES, filter=text, rerank=0) for text in texts + texts[-3:]] == first + first[-3:]
    assert 0 < replica.nbytes["filters"] <= 8 * ROWS
    any_type.delete(["row 300"])
    replica.refresh()
    hits = [hit.id for hit in replica.search(QUERIES[0], filter=texts[0], rerank=0, limit=ROWS)[0]]
    assert "row 300" not in hits
    columns = {key: [values[300]] for key, values in HELD.columns.items()}
    any_type.insert(HELD.vectors[300:301], columns)


def test_other_filters_go_to_milvus_and_it_says_so(cosine, caplog):
    collection, _ = cosine
    replica = alula.Replica(collection, columns=["year"])
    arguments = {"output_fields": ["word", "year"], "limit": 5, "offset": 2, **EVERY}
    for text in ('word in ["w3", "w77"] or year < 1920', "year < 1900 + 50"):
        assert not replica.filter_is_local(text)
        with caplog.at_level(logging.WARNING, "alula"):
            found = replica.search(QUERIES, filter=text, **arguments)
            assert_same(replica.search(QUERIES, filter=text, **arguments), found)
        assert_same(found, collection.search(QUERIES, filter=text, **arguments))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "'word' is not held here (name it in columns=)" in caplog.text


def test_a_filter_that_matches_nothing(cosine):
    _, replica = cosine
    for text in ("year < 0", "year in []"):
        assert replica.search(QUERIES, filter=text, output_fields=["word"]) == [[]] * len(QUERIES)
        assert replica.search(QUERIES, filter=text, rerank=0) == [[]] * len(QUERIES)


def test_output_fields_from_memory_and_from_milvus(cosine):
    collection, replica = cosine
    for fields in (["year"], ["word", "id", "year"], ["embedding", "embedding__drq_sign"]):
        found = replica.search(QUERIES[0], output_fields=fields, **EVERY)
        wanted = collection.search(QUERIES[0], output_fields=fields, **EVERY)
        assert [[hit.fields for hit in hits] for hits in found] == [[hit.fields for hit in hits] for hits in wanted]


def test_all_types_of_columns_are_held(engine, folder, collection_name):
    encoder = write_drq(folder / "types.onnx", input_dim=DIM)
    types = ["tiny:INT8", "small:INT16", "whole:INT32", "real:FLOAT", "exact:DOUBLE", "flag:BOOL", "word:VARCHAR(40)"]
    collection = alula.Collection.create(
        engine, collection_name, encoder=encoder.path, index_type="DRQ", columns=types, consistency_level="Strong"
    )
    n = 50
    columns = {
        "id": [2**63 - 2, -(2**63) + 1, *range(n - 2)],
        "tiny": [i - 20 for i in range(n)],
        "small": [300 * i for i in range(n)],
        "whole": [-(2**31) + i for i in range(n)],
        "real": [float(np.float32(i / 3)) for i in range(n)],
        "exact": [i / 3 for i in range(n)],
        "flag": [i % 2 == 0 for i in range(n)],
        "word": [f"{AWKWARD_IDS[i % 10]} {i}" for i in range(n)],
    }
    collection.insert(random_vectors(n, DIM, seed=3), columns)
    names = list(columns)
    replica = alula.Replica(collection, columns=names)
    assert len(replica) == n
    found = replica.search(QUERIES[0], limit=n, rerank=0, output_fields=names)[0]
    want = {row[0]: dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)}
    assert {hit.id: hit.fields for hit in found} == want
    text = "real > 0.5 and flag == true and tiny < 10 and exact != 3.0 and small >= 300"
    assert replica.filter_is_local(text)
    arguments = {"filter": text, "limit": n, "output_fields": names}
    assert_same(replica.search(QUERIES, **arguments), collection.search(QUERIES, **arguments))
    assert all(hit.fields == want[hit.id] for hits in replica.search(QUERIES, **arguments) for hit in hits)
    collection.drop()


def test_an_empty_collection(any_type, collection_name):
    encoder, kind = any_type.lowering.encoder, any_type.lowering.settings["type"]
    options = {k: v for k, v in any_type.lowering.settings.items() if k == "layout"}
    empty = alula.Collection.create(any_type.server, collection_name, encoder=encoder, index_type=kind, options=options)
    replica = alula.Replica(empty, vectors=True)
    assert len(replica) == 0
    assert replica.search(QUERIES) == replica.search(QUERIES, rerank=0, filter="id > 3") == [[]] * len(QUERIES)
    empty.drop()


def test_rows_deleted_meanwhile_have_no_exact_score_and_no_fields(cosine):
    collection, replica = cosine
    with_vectors = alula.Replica(collection, columns=["year"], vectors=True)
    (hits,) = replica.search(QUERIES[0], rerank=0, limit=20)
    gone = [hit.id for hit in hits if "'" not in hit.id][:3]
    collection.delete(gone)
    assert not {hit.id for hit in replica.search(QUERIES[0], **EVERY)[0]} & set(gone)
    held = replica.search(QUERIES[0], rerank=0, limit=20, output_fields=["year"])[0]
    assert set(gone) < {hit.id for hit in held}  # nobody asked Milvus
    shown = replica.search(QUERIES[0], rerank=0, limit=20, output_fields=["word", "year"])[0]
    assert [hit.id for hit in shown] == [hit.id for hit in held if hit.id not in gone]
    assert all(set(hit.fields) == {"word", "year"} for hit in shown)
    for rerank in (None, 0):
        for fields in (["word"], ["word", "year"]):
            shown = with_vectors.search(QUERIES[0], rerank=rerank, limit=ROWS, output_fields=fields)[0]
            assert {hit.id for hit in shown} == set(HELD.ids) - set(gone)
            assert all(set(hit.fields) == set(fields) for hit in shown)
    places = [HELD.ids.index(id_) for id_ in gone]
    collection.insert(HELD.vectors[places], {k: [v[i] for i in places] for k, v in HELD.columns.items()})


def test_dropped_vectors(engine, folder, collection_name):
    encoder = write_drq(folder / "dropped.onnx", input_dim=DIM)
    collection = HELD.filled(engine, collection_name, encoder, "DRQ", keep_vectors=False)
    with pytest.raises(UsageError, match="were dropped, so there are none to store"):
        alula.Replica(collection, vectors=True)
    replica = alula.Replica(collection)
    assert_same(replica.search(QUERIES, **EVERY), collection.search(QUERIES, **EVERY))
    with pytest.raises(UsageError, match="dropped"):
        replica.search(QUERIES, rerank=10)
    collection.drop()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"limit": 0}, "at least 1"),
        ({"offset": -1}, "at least 0"),
        ({"limit": 2.5}, "limit is 2.5, and must be a whole number"),
        ({"limit": None}, "limit is None"),
        ({"offset": "3"}, "offset is '3'"),
        ({"candidates": 20000}, "20000 candidates are to be scored exactly"),
        ({"bits": 16}, "bits is 16, and this collection stores no codes"),
        ({"rerank": -1}, "rerank is -1"),
        ({"search_list": 64}, "DRQ has no option search_list"),
        ({"filter": "year >"}, "filter 'year >'"),
        ({"filter": "no_such_field == 1"}, "no_such_field"),
        ({"output_fields": ["year", "nope"]}, "no field 'nope'"),
        ({"partitions": ["new"]}, "Collection.search"),
    ],
)
def test_wrong_searches_are_refused_with_a_sentence(cosine, arguments, says):
    with pytest.raises(UsageError, match=says):
        cosine[1].search(QUERIES, **arguments)
    if arguments.keys() <= {"limit", "offset"}:
        with pytest.raises(UsageError, match=says):
            cosine[0].search(QUERIES, **arguments)


@pytest.mark.parametrize("bad", [np.full(DIM, np.nan), np.zeros(3), [["a"] * DIM]])
def test_wrong_queries_are_refused(cosine, bad):
    with pytest.raises(DataError, match="queries"):
        cosine[1].search(bad)


def test_wrong_columns_are_refused(cosine):
    collection, _ = cosine
    with pytest.raises(UsageError, match="no field 'nope'; it has: id, year, word"):
        alula.Replica(collection, columns=["year", "nope"])
    for name in ("embedding", "embedding__drq_sign"):
        with pytest.raises(UsageError, match="is no scalar field"):
            alula.Replica(collection, columns=[name])


def test_documents_arrays_and_dynamic_values_stay_on_the_server(lite, collection_name, tmp_path):
    drq = write_drq(tmp_path / "drq.onnx", input_dim=DIM)
    columns = ["about:JSON", "tags:ARRAY<INT8>(3)", "year:INT64"]
    made = alula.Collection.create(
        lite, collection_name, encoder=drq.path, index_type="DRQ", columns=columns, dynamic=True
    )
    rows = {"id": [1, 2], "about": [{"a": 1}, []], "tags": [[1], []], "year": [3, 4], "colour": ["red", None]}
    made.insert(random_vectors(2, DIM), rows)
    for name in ("about", "tags", "colour"):
        with pytest.raises(UsageError, match=f"'{name}' cannot be stored in a replica, .* per row: id, year"):
            alula.Replica(made, columns=[name])
    replica = alula.Replica(made, columns=["year"])
    (hits,) = replica.search(random_vectors(1, DIM), output_fields=["about", "tags", "year", "colour"])
    assert {hit.id: hit.fields for hit in hits} == {
        1: {"about": {"a": 1}, "tags": [1], "year": 3, "colour": "red"},
        2: {"about": [], "tags": [], "year": 4, "colour": None},
    }
    made.drop()


def test_index_types_that_work_on_a_server_only_are_refused(cosine, monkeypatch):
    collection, _ = cosine
    monkeypatch.setattr("alula.index_types.drq.Drq.local", IndexType.local)
    with pytest.raises(alula.UnsupportedError, match="DRQ cannot be held in this process; search it in Milvus"):
        alula.Replica(collection)


@pytest.fixture
def eager_threads():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("vectors", [False, True])
def test_many_threads_search_at_once(any_type, vectors, eager_threads):
    replica = alula.Replica(any_type, columns=["year"], vectors=vectors)
    replica_search = functools.partial(
        replica.search, filter="year > 1930", output_fields=["year"], rerank=None if vectors else 0
    )
    queries = random_vectors(80, DIM, seed=5)
    wanted = replica_search(queries)
    with ThreadPoolExecutor(8) as pool:
        found = [hits for (hits,) in pool.map(replica_search, queries)]
    assert_same(found, wanted)
    assert all(set(hit.fields) == {"year"} for hits in found for hit in hits)


def test_it_tells_its_progress_and_its_size(cosine):
    collection, _ = cosine
    seen = []
    replica = alula.Replica(
        collection, columns=["year"], vectors=True, progress=lambda s: seen.append((s.stage, s.read, s.total))
    )
    assert seen[-1] == ("reading", ROWS, ROWS)
    assert [read for _, read, _ in seen] == sorted({read for _, read, _ in seen})
    assert len(replica) == ROWS
    assert {"codes", "vectors", "id", "year", "fingerprints"} <= set(replica.nbytes)
    assert (replica.nbytes["vectors"], replica.nbytes["year"]) == (4 * ROWS * DIM, 8 * ROWS)
    assert "'r_cosine' (DRQ, COSINE): 600 rows" in repr(replica)
    assert "with id, year, the vectors" in repr(replica)
