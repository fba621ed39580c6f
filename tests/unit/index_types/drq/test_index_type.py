"""DRQ as plain data: what each layout stores and asks, and that its scores are the codes' asymmetric distances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.encoders import DrqRows, load_encoder
from alula.errors import UnsupportedError, UsageError
from alula.index_types import Candidates, Capabilities, VectorField, check_options, index_type
from tests.tiny_encoders import prepare, random_vectors, write_drq

LEVELS = 11  # not a multiple of 4 or 8: columns are padded
DRQ = index_type("DRQ")
METRICS = ["COSINE", "IP", "L2"]


@pytest.fixture(scope="module")
def all_encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drq")
    made = {metric: write_drq(folder / f"{metric}.onnx", levels=LEVELS, metric=metric, scale=3.0) for metric in METRICS}
    return {metric: (drq, load_encoder(drq.path, threads=1)) for metric, drq in made.items()}


@pytest.fixture(params=METRICS)
def drq(request, all_encoders):
    return all_encoders[request.param][0]


def lowered(all_encoders, metric, **settings):
    _, encoder = all_encoders[metric]
    return DRQ.lowering(VectorField("embedding", 8, metric, "field"), encoder, settings)


@pytest.fixture
def adc(all_encoders, drq):
    return lowered(all_encoders, drq.info.metric, layout="adc")


@pytest.fixture
def hamming(all_encoders, drq):
    return lowered(all_encoders, drq.info.metric, layout="hamming", binary_index="BIN_FLAT")


def plan(lowering, queries, limit=10, **options):
    return lowering.plan_search(queries, check_options(DRQ.search_options, options, "DRQ"), limit)


def native_scores(lowering, rows, query):
    """What Milvus computes in layout adc: the inner product of the sparse rows with one sparse query."""
    dense = np.zeros(rows.shape[1])
    dense[list(query)] = list(query.values())
    return (rows.astype(np.float64) @ dense).astype(np.float32)


def true_adc(drq, vectors, query, levels):
    """The asymmetric score of layout adc, by brute force over the reconstructions and in the user's units."""
    (q,) = prepare(drq.info, query[None])
    x_hat = drq.reconstructions(drq.codes(vectors))[levels - 1]
    squared = np.square(q - x_hat).sum(1)
    unit = drq.info.scale**2
    first_order = x_hat @ q + 0.6 * (1 - np.square(x_hat).sum(1)) / 2
    return {"IP": x_hat @ q * unit, "L2": squared * unit, "COSINE": first_order}[drq.info.metric]


def assert_estimates(hamming, search, stored, drq, vectors, queries, levels):
    """The estimates of layout hamming are the formula, up to norms of 11 bits."""
    held = Candidates(np.zeros(len(vectors), np.float32), {name: stored[name] for name in search.columns})
    x_hat = drq.reconstructions(drq.codes(vectors))[levels - 1]
    for i, q in enumerate(prepare(drq.info, queries)):
        expected = {
            "IP": x_hat @ q * 9,
            "L2": np.square(q - x_hat).sum(1) * 9,
            "COSINE": x_hat @ q / np.linalg.norm(x_hat, axis=1),
        }[drq.info.metric]
        error = 9 * 2 * 2**-11 * np.square(x_hat).sum(1) + 1e-3
        assert (abs(hamming.estimate(search, i, held) - expected) <= error).all()


# --- choosing a layout ----------------------------------------------------------------------------------------------

ALL = frozenset({"BIN_FLAT", "BIN_IVF_FLAT"})
FLAT = frozenset({"BIN_FLAT"})
NONE = frozenset()


def choose(sparse, binary, **options):
    reasons = {name: f"no {name} here" for name in ("sparse_index", "BIN_FLAT", "BIN_IVF_FLAT")}
    server = Capabilities("Milvus 1", binary | ({"sparse_index"} if sparse else set()), reasons)
    return DRQ.choose(server, check_options(DRQ.create_options, options, "DRQ"))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("index", ["BIN_FLAT", "BIN_IVF_FLAT"])
def test_hamming_is_chosen_where_there_are_binary_vectors(sparse, index):
    expected = {"layout": "hamming", "binary_index": index, "code_bits": "auto"}
    assert choose(sparse, ALL, binary_index=index) == expected
    assert choose(sparse, ALL, binary_index=index, layout="hamming") == expected


def test_hamming_with_the_plain_index_is_the_default():
    assert choose(True, FLAT) == {"layout": "hamming", "binary_index": "BIN_FLAT", "code_bits": "auto"}
    assert choose(True, FLAT, code_bits=16)["code_bits"] == "16"


def test_adc_is_chosen_where_there_are_none():
    assert choose(True, NONE) == {"layout": "adc"}
    assert choose(True, ALL, layout="adc") == {"layout": "adc"}


def test_adc_takes_no_length_of_code():
    with pytest.raises(UsageError, match=r"stores the whole code; leave code_bits=\.\.\. out"):
        choose(True, ALL, layout="adc", code_bits=0)


@pytest.mark.parametrize(
    ("sparse", "binary", "options", "words"),
    [
        (False, ALL, {"layout": "adc"}, r'no sparse_index here.*use layout="hamming"\.$'),
        (False, NONE, {"layout": "adc"}, r"no sparse_index here.*use Milvus 2\.4 or later\.$"),
        (False, NONE, {}, r"cannot index sparse vectors.*use Milvus 2\.4 or later\.$"),
        (True, NONE, {"layout": "hamming"}, r'has no BIN_FLAT \(no BIN_FLAT here\).*use layout="adc"\.$'),
        (False, NONE, {"layout": "hamming"}, r"has no BIN_FLAT.*use Milvus 2\.3 or later, or Milvus Lite 2\.5\.$"),
        (
            True,
            FLAT,
            {"layout": "hamming", "binary_index": "BIN_IVF_FLAT"},
            r'no BIN_IVF_FLAT.*use binary_index="BIN_FLAT"\.$',
        ),
        (False, FLAT, {"layout": "hamming", "binary_index": "BIN_IVF_FLAT"}, r'use binary_index="BIN_FLAT"\.$'),
    ],
)
def test_what_a_server_cannot_hold_says_what_to_do(sparse, binary, options, words):
    with pytest.raises(UnsupportedError, match=rf"^Milvus 1 .*{words}"):
        choose(sparse, binary, **options)


@pytest.mark.parametrize("sparse", [True, False])
def test_an_index_that_was_asked_for_and_is_missing_is_not_silently_replaced(sparse):
    with pytest.raises(UnsupportedError, match='binary_index="BIN_FLAT"'):
        choose(sparse, FLAT, binary_index="BIN_IVF_FLAT")


# --- layout adc -----------------------------------------------------------------------------------------------------


def allowed_lengths(metric):
    return range(1, LEVELS + 1) if metric == "IP" else (1, 2, 4, 8, LEVELS)


def test_adc_stores_one_sparse_companion(adc, drq):
    (field,) = adc.fields
    assert (field.name, field.data_type) == ("embedding__drq_onehot", "SPARSE_FLOAT_VECTOR")
    assert (adc.index.field, adc.index.index_type, adc.index.metric) == (field.name, "SPARSE_INVERTED_INDEX", "IP")
    rows = adc.encode_rows(random_vectors(10))[field.name]
    assert field.bytes_per_row == 8 * rows.nnz / 10, "an id and a weight for each non-zero"


def test_adc_rows_are_one_hot_in_the_codes(adc, drq):
    vectors = random_vectors(20)
    rows = adc.encode_rows(vectors)["embedding__drq_onehot"].toarray()
    one_hot = rows[:, : 256 * LEVELS].reshape(20, LEVELS, 256)
    np.testing.assert_array_equal(one_hot.argmax(2), drq.codes(vectors))
    assert (one_hot.sum(2) == 1).all()


@pytest.mark.parametrize("levels", range(1, LEVELS + 1))
def test_adc_native_scores_and_estimates_are_the_true_distances(adc, drq, levels):
    vectors, queries = random_vectors(60, seed=1), random_vectors(5, seed=2)
    if levels not in allowed_lengths(drq.info.metric):
        with pytest.raises(
            UsageError, match=rf"bits is {8 * levels}; the collection has the lengths 8, 16, 32, 64, 88\."
        ):
            plan(adc, queries, bits=8 * levels)
        return
    rows = adc.encode_rows(vectors)["embedding__drq_onehot"]
    search = plan(adc, queries, bits=8 * levels)
    assert (search.metric, search.columns, search.estimate_metric) == ("IP", (), drq.info.metric)
    for i, query in enumerate(queries):
        native = native_scores(adc, rows, search.queries[i])
        expected = true_adc(drq, vectors, query, levels)
        np.testing.assert_allclose(adc.estimate(search, i, Candidates(native, {})), expected, rtol=1e-4, atol=2e-3)
        closeness = -expected if drq.info.metric == "L2" else expected
        order = np.argsort(-closeness)
        drops = np.diff(native[order])
        assert (drops <= 1e-4).all(), "the native order is the order of the true distances"


def test_adc_without_bits_uses_the_longest_code(adc, drq):
    queries = random_vectors(3, seed=2)
    assert plan(adc, queries).queries == plan(adc, queries, bits=8 * LEVELS).queries


@settings(deadline=None, max_examples=40)
@given(
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-6, 1e-2, 1.0, 30.0, 1e4]),
    length=st.sampled_from([8, 16, 64, 88]),
)
def test_adc_stores_and_asks_nothing_negative(all_encoders, metric, seed, size, length):
    """Milvus refuses negative weights and empty rows."""
    lowering = lowered(all_encoders, metric, layout="adc")
    vectors = (size * random_vectors(5, seed=seed)).astype(np.float32)
    rows = lowering.encode_rows(vectors)["embedding__drq_onehot"]
    assert (rows.data > 0).all()
    assert np.isfinite(rows.data).all()
    assert (np.diff(rows.indptr) > 0).all()
    for query in plan(lowering, vectors, bits=length).queries:
        assert query
        assert all(np.isfinite(weight) and weight > 0 for weight in query.values())
        assert all(0 <= dim < rows.shape[1] for dim in query)


@pytest.mark.parametrize("metric", ["IP", "L2"])
@pytest.mark.parametrize("levels", [1, LEVELS])
def test_adc_takes_a_zero_query(all_encoders, metric, levels):
    """Its tables say nothing of any row, and the estimate must still be the true distance."""
    drq, adc = all_encoders[metric][0], lowered(all_encoders, metric, layout="adc")
    vectors, query = random_vectors(300, seed=3), np.zeros((1, 8), np.float32)
    rows = adc.encode_rows(vectors)["embedding__drq_onehot"]
    search = plan(adc, query, bits=8 * levels)
    native = native_scores(adc, rows, search.queries[0])
    expected = true_adc(drq, vectors, query[0], levels)
    np.testing.assert_allclose(adc.estimate(search, 0, Candidates(native, {})), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("bits", [8, 88])
def test_adc_shares_a_term_with_every_row(adc, bits):
    """Milvus's inverted index returns only rows that share a term with the query: none may be out of reach."""
    vectors = random_vectors(400, seed=8)
    rows = adc.encode_rows(vectors)["embedding__drq_onehot"]
    # the farthest rows are those that the lowest codewords stand for
    for query in plan(adc, -vectors[:50], bits=bits).queries:
        assert (native_scores(adc, rows, query) > 0).all()


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
def test_adc_takes_a_row_longer_than_the_norm_bound(all_encoders, metric):
    """It keeps the least weight that Milvus takes, so that it is not refused."""
    lowering, codes = lowered(all_encoders, metric, layout="adc"), np.zeros((2, LEVELS), np.uint8)
    norms = np.array([[1.0], [1e3]], np.float32).repeat(LEVELS, axis=1)
    rows = lowering.one_hot(DrqRows(codes, norms, np.zeros((2, 4), np.uint8), np.ones(2, np.float32)))
    room = rows.toarray()[:, 256 * LEVELS :].max(1)
    assert room[0] > 1
    assert 0 < room[1] < 1e-3
    assert (rows.data > 0).all()


# --- layout hamming, ranked by sign bits ----------------------------------------------------------------------------


def signs_only(all_encoders, metric, **settings):
    return lowered(all_encoders, metric, layout="hamming", binary_index="BIN_FLAT", code_bits="auto", **settings)


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
def test_sign_bits_alone_are_stored_and_rank(all_encoders, metric):
    drq, lowering = all_encoders[metric][0], signs_only(all_encoders, metric)
    signs, *others = lowering.fields
    assert (signs.name, signs.data_type, signs.bytes_per_row) == ("embedding__drq_sign", "BINARY_VECTOR", 4)
    assert [(one.name, one.data_type, one.bytes_per_row) for one in others] == (
        [("embedding__drq_length", "FLOAT", 4)] if metric == "L2" else []
    )
    assert lowering.settings["code_bits"] == "0"
    vectors, queries = random_vectors(60, seed=6), random_vectors(4, seed=7)
    stored = lowering.encode_rows(vectors)
    assert set(stored) == {field.name for field in lowering.fields}
    np.testing.assert_array_equal(stored[signs.name], drq.row_signs(vectors))
    search = plan(lowering, queries)
    assert set(search.columns) == set(stored)
    assert search.queries == [one.tobytes() for one in drq.query_signs(queries)]
    held = Candidates(np.zeros(60, np.float32), {name: stored[name] for name in search.columns})
    for i, expected in enumerate(drq.sign_estimates(queries, vectors)):
        np.testing.assert_allclose(lowering.estimate(search, i, held), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
def test_signs_alone_have_no_code_to_cut(all_encoders, metric):
    with pytest.raises(UsageError, match=r"bits is 8, and this collection stores no codes: its 32 sign bits rank"):
        plan(signs_only(all_encoders, metric), random_vectors(1), bits=8)


def test_signs_know_no_lengths_so_inner_products_keep_the_code(all_encoders):
    lowering = signs_only(all_encoders, "IP")
    assert lowering.settings["code_bits"] == str(8 * LEVELS)
    assert [field.name for field in lowering.fields][1:] == ["embedding__drq_code_0", "embedding__drq_code_1"]
    with pytest.raises(UsageError, match=r"code_bits is 0, and for IP sign bits alone cannot rank"):
        lowered(all_encoders, "IP", layout="hamming", binary_index="BIN_FLAT", code_bits="0")


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
@pytest.mark.parametrize(("levels", "stored"), [(3, "0"), (4, "32"), (LEVELS, str(8 * LEVELS))])
def test_dropped_vectors_keep_a_code_as_long_as_the_sign_bits(tmp_path, metric, levels, stored):
    encoder = load_encoder(write_drq(tmp_path / "drq.onnx", levels=levels, metric=metric, sign_bits=32).path)
    settings = {"layout": "hamming", "binary_index": "BIN_FLAT"}
    for storage, expected in (("dropped", stored), ("field", "0"), ("column", "0")):
        field = VectorField("embedding", 8, metric, storage)
        auto = DRQ.lowering(field, encoder, {**settings, "code_bits": "auto"})
        assert auto.settings["code_bits"] == expected
        assert ("alula train drq --bits 64" in auto.hint) == (storage == "dropped" and expected == "0")
        asked = DRQ.lowering(field, encoder, {**settings, "code_bits": "0"})  # a choice that was made stays
        assert asked.settings["code_bits"] == "0"


@pytest.mark.parametrize("metric", METRICS)
def test_an_encoder_of_format_1_keeps_the_code(tmp_path, metric):
    drq = write_drq(tmp_path / "old.onnx", levels=LEVELS, metric=metric, version=1)
    field, encoder = VectorField("embedding", 8, metric, "field"), load_encoder(drq.path)
    settings = {"layout": "hamming", "binary_index": "BIN_FLAT"}
    lowering = DRQ.lowering(field, encoder, {**settings, "code_bits": "auto"})
    assert lowering.settings["code_bits"] == str(8 * LEVELS)
    assert plan(lowering, random_vectors(1)).candidates == 1000
    with pytest.raises(UsageError, match=r"code_bits is 0, and for .*sign bits alone cannot rank"):
        DRQ.lowering(field, encoder, {**settings, "code_bits": "0"})


@pytest.mark.parametrize("bits", ["4", "12", "96"])
def test_a_code_that_the_encoder_does_not_have(all_encoders, bits):
    with pytest.raises(UsageError, match=rf"code_bits is {bits}; this encoder's codes have a multiple of 8 bits up to"):
        lowered(all_encoders, "L2", layout="hamming", binary_index="BIN_FLAT", code_bits=bits)


@pytest.mark.parametrize("metric", METRICS)
def test_a_shorter_code_beside_the_signs(all_encoders, metric):
    """Norms of four lengths, in one column, are stored with it."""
    drq = all_encoders[metric][0]
    lowering = lowered(all_encoders, metric, layout="hamming", binary_index="BIN_FLAT", code_bits="72")
    names = [field.name.removeprefix("embedding__drq_") for field in lowering.fields]
    assert names == ["sign", "code_0", "code_1", *(["norm_0"] if metric != "IP" else [])]
    vectors, queries = random_vectors(60, seed=6), random_vectors(4, seed=7)
    stored = lowering.encode_rows(vectors)
    rows = lowering.decode_rows(stored)
    np.testing.assert_array_equal(rows.codes, drq.codes(vectors)[:, :9])
    if metric == "IP":
        lengths = range(1, 10)
    else:
        lengths = (2, 4, 8, 9)
        assert np.isnan(rows.norms[:, [0, 2, 4, 5, 6]]).all()
        np.testing.assert_allclose(
            rows.norms[:, [1, 3, 7, 8]], drq.norms(drq.codes(vectors))[:, [1, 3, 7, 8]], rtol=1e-3
        )
        with pytest.raises(UsageError, match=r"bits is 8; the collection has the lengths 16, 32, 64, 72\."):
            plan(lowering, queries, bits=8)
    for levels in lengths:
        search = plan(lowering, queries, bits=8 * levels)
        assert_estimates(lowering, search, stored, drq, vectors, queries, levels)


# --- layout hamming of collections without the setting code_bits: the whole code, the norms of all its lengths -------


def test_hamming_stores_signs_codes_and_norms(hamming, drq):
    signs, *columns = hamming.fields
    assert (signs.name, signs.data_type, signs.bytes_per_row) == ("embedding__drq_sign", "BINARY_VECTOR", 4)
    assert signs.params == {"dim": 32}
    names = ["embedding__drq_code_0", "embedding__drq_code_1"]
    if drq.info.metric != "IP":
        names += [f"embedding__drq_norm_{i}" for i in range(3)]
    assert [column.name for column in columns] == names
    assert {(column.data_type, column.bytes_per_row) for column in columns} == {("INT64", 8)}
    assert set(hamming.encode_rows(random_vectors(2))) == {field.name for field in hamming.fields}


@pytest.mark.parametrize(
    ("index", "params"), [("BIN_FLAT", {}), ("BIN_IVF_FLAT", {"nprobe": 7}), ("HNSW", {"ef": 1000})]
)
def test_hamming_searches_the_binary_index_that_was_chosen(all_encoders, index, params):
    lowering = lowered(all_encoders, "IP", layout="hamming", binary_index=index)
    assert (lowering.index.index_type, lowering.index.metric) == (index, "HAMMING")
    assert ("nlist" in lowering.index.params) == (index == "BIN_IVF_FLAT")
    assert plan(lowering, random_vectors(1), nprobe=7, ef=1000).native_params == params


def test_a_graph_keeps_at_least_the_candidates_in_view(all_encoders):
    """Milvus refuses a search with ef below the number of results."""
    lowering = lowered(all_encoders, "COSINE", layout="hamming", binary_index="HNSW")
    planned = plan(lowering, random_vectors(1), candidates=50)
    assert planned.native_params == {"ef": 50}
    assert replace(planned, candidates=300).native_params == {"ef": 300}
    assert plan(lowering, random_vectors(1), candidates=50, ef=80).native_params == {"ef": 80}


def test_hamming_columns_hold_the_encoders_bytes(hamming, drq):
    vectors = random_vectors(30, seed=4)
    found, codes = hamming.encode_rows(vectors), drq.codes(vectors)
    np.testing.assert_array_equal(found["embedding__drq_sign"], drq.row_signs(vectors))
    raw = np.stack([found[f"embedding__drq_code_{i}"] for i in range(2)], axis=1).astype("<i8").view(np.uint8)
    np.testing.assert_array_equal(raw[:, :LEVELS], codes)
    assert not raw[:, LEVELS:].any()
    if drq.info.metric != "IP":
        raw = np.stack([found[f"embedding__drq_norm_{i}"] for i in range(3)], axis=1).astype("<i8").view("<f2")
        np.testing.assert_allclose(raw[:, :LEVELS], drq.norms(codes), rtol=1e-3)


def test_hamming_asks_with_the_packed_signs_of_the_query(hamming, drq):
    queries = random_vectors(7, seed=5)
    search = plan(hamming, queries)
    assert (search.field, search.metric) == ("embedding__drq_sign", "HAMMING")
    assert search.queries == [signs.tobytes() for signs in drq.query_signs(queries)]


@pytest.mark.parametrize("levels", range(1, LEVELS + 1))
def test_hamming_estimates_are_the_formula_for_every_prefix(hamming, drq, levels):
    vectors, queries = random_vectors(60, seed=6), random_vectors(4, seed=7)
    stored = hamming.encode_rows(vectors)
    search = plan(hamming, queries, bits=8 * levels)
    # only what the prefix needs is read
    assert len(search.columns) == -(-levels // 8) + (drq.info.metric != "IP")
    assert_estimates(hamming, search, stored, drq, vectors, queries, levels)


# --- both layouts ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["adc", "hamming"])
def either(request, adc, hamming):
    return adc if request.param == "adc" else hamming


@pytest.mark.parametrize("bits", [9, 12, 87, 8 * LEVELS + 8, 800])
def test_bits_must_be_a_length_that_the_encoder_has(either, bits):
    with pytest.raises(UsageError, match=rf"bits is {bits}; this encoder's codes have a multiple of 8 bits up to 88\."):
        plan(either, random_vectors(1), bits=bits)


@pytest.mark.parametrize("bits", [0, 7, -8])
def test_bits_under_the_minimum(either, bits):
    with pytest.raises(UsageError, match="must be at least 8"):
        plan(either, random_vectors(1), bits=bits)


@pytest.mark.parametrize(
    ("limit", "options", "adc", "signs"),
    [
        (10, {}, (100, None), (300, 100)),
        (1, {}, (100, None), (300, 100)),
        (100, {}, (1000, None), (3000, 1000)),
        (1000, {}, (10_000, None), (16_384, 10_000)),
        (5000, {}, (16_384, None), (16_384, None)),
        (10, {"oversample": 1}, (10, None), (30, 10)),
        (10, {"candidates": 20}, (20, None), (20, None)),
        (30, {"candidates": 20}, (20, None), (20, None)),
        (10, {"candidates": 500, "oversample": 20}, (500, 200), (500, 200)),
        (10, {"candidates": 50, "oversample": 20}, (50, 50), (50, 50)),
    ],
)
def test_candidates_and_how_many_of_them_are_scored(all_encoders, limit, options, adc, signs):
    for lowering, asked in ((lowered(all_encoders, "L2", layout="adc"), adc), (signs_only(all_encoders, "L2"), signs)):
        found = plan(lowering, random_vectors(1), limit, **options)
        assert (found.candidates, found.rerank) == asked


def test_an_oversampling_that_milvus_cannot_return(either):
    with pytest.raises(UsageError, match=r"oversample is 200 for 100 results, and Milvus returns at most 16,384"):
        plan(either, random_vectors(1), 100, oversample=200)
    with pytest.raises(UsageError, match=r"oversample is 0, and must be at least 1"):
        plan(either, random_vectors(1), oversample=0)


def test_no_rows_and_no_queries(either):
    nothing = np.empty((0, 8), np.float32)
    assert {column.shape[0] for column in either.encode_rows(nothing).values()} == {0}
    assert list(plan(either, nothing).queries) == []


def test_signs_alone_are_encoded_without_a_beam_search(all_encoders, monkeypatch):
    drq = signs_only(all_encoders, "L2").drq
    asked, run = [], drq._run
    monkeypatch.setattr(drq, "_run", lambda outputs, feed: (asked.append(outputs), run(outputs, feed))[1])
    signs_only(all_encoders, "L2").encode_rows(random_vectors(3))
    assert asked == [("signs", "sign_lengths")]


def test_no_rows_and_no_queries_of_signs_alone(all_encoders):
    lowering, nothing = signs_only(all_encoders, "L2"), np.empty((0, 8), np.float32)
    assert {column.shape[0] for column in lowering.encode_rows(nothing).values()} == {0}
    assert list(plan(lowering, nothing).queries) == []
