"""Encoding: what comes out equals the same encoder written in numpy; what goes in is checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.encoders import load_encoder
from alula.errors import DataError
from tests.tiny_encoders import prepare, random_vectors, write_drq, write_flops

BATCHES = [1, 2, 7, 300]


@pytest.fixture(scope="module")
def sparse(flops):
    return load_encoder(flops.path, threads=1)


@pytest.fixture(scope="module")
def codes(drq):
    return load_encoder(drq.path, threads=1)


@pytest.mark.parametrize("rows", BATCHES)
def test_sparse_rows_equal_numpy(flops, sparse, rows):
    vectors = random_vectors(rows, seed=rows)
    found = sparse.encode_rows(vectors)
    assert (found.dtype, found.shape) == (np.float32, (rows, 32))
    assert found.has_sorted_indices
    assert (found.data > 0).all()
    np.testing.assert_allclose(found.toarray(), flops.dense(vectors), atol=1e-6)


def test_sparse_queries_are_encoded_as_rows_are(flops, sparse):
    vectors = random_vectors(20, seed=3)
    np.testing.assert_allclose(sparse.encode_queries(vectors).toarray(), flops.dense(vectors), atol=1e-6)


@pytest.mark.parametrize("rows", BATCHES)
def test_codes_norms_and_signs_equal_numpy(drq, codes, rows):
    vectors = random_vectors(rows, seed=rows)
    found, expected = codes.encode_rows(vectors), drq.codes(vectors)
    np.testing.assert_array_equal(found.codes, expected)
    np.testing.assert_allclose(found.norms, drq.norms(expected), atol=1e-5)
    np.testing.assert_array_equal(found.signs, drq.row_signs(vectors))


@pytest.mark.parametrize("rows", BATCHES)
def test_rows_of_sign_bits_alone_are_encoded_without_their_codes(drq, codes, rows):
    vectors = random_vectors(rows, seed=rows)
    found = codes.encode_rows(vectors, codes=False)
    assert (found.codes.shape, found.norms.shape) == ((rows, 0), (rows, 0))
    np.testing.assert_array_equal(found.signs, drq.row_signs(vectors))
    np.testing.assert_array_equal(codes.native_rows(vectors), found.signs)


@pytest.mark.parametrize("rows", BATCHES)
def test_tables_signs_and_norms_of_queries_equal_numpy(drq, codes, rows):
    queries = random_vectors(rows, seed=rows + 1)
    found = codes.encode_queries(queries)
    np.testing.assert_allclose(found.lut, drq.lut(queries), atol=1e-5)
    np.testing.assert_array_equal(found.signs, drq.query_signs(queries))
    np.testing.assert_allclose(found.norms, np.linalg.norm(prepare(drq.info, queries), axis=1), rtol=1e-6)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@pytest.mark.parametrize("tables", [True, False])
def test_estimates_by_sign_bits_equal_numpy(tmp_path, metric, tables):
    tiny = write_drq(tmp_path / "drq.onnx", metric=metric)
    encoder, vectors, queries = load_encoder(tiny.path), random_vectors(40, seed=8), random_vectors(7, seed=9)
    rows = encoder.encode_rows(vectors, codes=tables)
    found = encoder.encode_queries(queries, tables=tables)
    np.testing.assert_array_equal(found.signs, tiny.query_signs(queries))
    assert found.lut.shape == (7, 4 if tables else 0, 256)
    np.testing.assert_allclose(rows.sign_lengths, tiny.sign_lengths(vectors), rtol=1e-6)
    signs = np.unpackbits(rows.signs, axis=1) * 2.0 - 1
    estimates = found.sign_weights @ signs.T + found.sign_bias[:, None]
    if metric == "L2":
        estimates = found.sign_bias[:, None] + rows.sign_lengths**2 - 2 * found.sign_weights @ signs.T
        estimates *= tiny.info.scale**2
    np.testing.assert_allclose(estimates, tiny.sign_estimates(queries, vectors), rtol=1e-5, atol=1e-5)


def test_the_signs_of_format_1_have_no_weights(tmp_path):
    encoder = load_encoder(write_drq(tmp_path / "old.onnx", metric="L2", version=1).path)
    rows, queries = encoder.encode_rows(random_vectors(5)), encoder.encode_queries(random_vectors(3))
    assert not encoder.info.signs_rank
    assert queries.sign_weights.shape == (3, 0)
    assert rows.sign_lengths.tolist() == [1] * 5


def test_a_table_sums_to_the_inner_product_with_the_reconstruction(drq, codes):
    rows, queries = random_vectors(30, seed=5), random_vectors(4, seed=6)
    encoded, tables = codes.encode_rows(rows).codes, codes.encode_queries(queries).lut
    sums = tables[:, np.arange(5), encoded].sum(axis=2)
    expected = prepare(drq.info, queries) @ drq.reconstructions(drq.codes(rows))[-1].T
    np.testing.assert_allclose(sums, expected, atol=1e-5)


def test_no_rows_give_empty_columns(sparse, codes):
    nothing = np.empty((0, 8), np.float32)
    assert sparse.encode_rows(nothing).shape == (0, 32)
    rows, queries = codes.encode_rows(nothing), codes.encode_queries(nothing)
    assert (rows.codes.shape, rows.norms.shape, rows.signs.shape) == ((0, 5), (0, 5), (0, 4))
    assert (queries.lut.shape, queries.signs.shape, queries.norms.shape) == ((0, 5, 256), (0, 4), (0,))
    assert {rows.codes.dtype, rows.signs.dtype, queries.signs.dtype} == {np.dtype(np.uint8)}


def test_a_single_vector_is_a_batch_of_one(sparse, codes):
    vector = random_vectors(1)[0]
    np.testing.assert_array_equal(sparse.encode_rows(vector).toarray(), sparse.encode_rows(vector[None]).toarray())
    np.testing.assert_array_equal(codes.encode_rows(vector).codes, codes.encode_rows(vector[None]).codes)


def test_a_row_does_not_depend_on_its_batch(sparse, codes):
    vectors = random_vectors(50, seed=9)
    together, alone = sparse.encode_rows(vectors), sparse.encode_rows(vectors[17])
    np.testing.assert_allclose(together[[17]].toarray(), alone.toarray(), atol=1e-6)
    np.testing.assert_array_equal(codes.encode_rows(vectors).codes[17], codes.encode_rows(vectors[17]).codes[0])


def test_a_zero_vector_gets_a_row(flops, sparse, drq, codes):
    zero = np.zeros((1, 8), np.float32)
    np.testing.assert_allclose(sparse.encode_rows(zero).toarray(), flops.dense(zero), atol=1e-6)
    np.testing.assert_array_equal(codes.encode_rows(zero).codes, drq.codes(zero))
    assert np.isfinite(codes.encode_queries(zero).lut).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.int8, np.uint8])
def test_other_numbers_are_taken_as_float32(sparse, dtype):
    vectors = np.arange(16).reshape(2, 8).astype(dtype)
    expected = sparse.encode_rows(vectors.astype(np.float32)).toarray()
    np.testing.assert_array_equal(sparse.encode_rows(vectors).toarray(), expected)
    np.testing.assert_array_equal(sparse.encode_rows(vectors.tolist()).toarray(), expected)
    np.testing.assert_array_equal(sparse.encode_rows(np.asfortranarray(vectors)).toarray(), expected)


@pytest.mark.parametrize("shape", [(3, 7), (3, 9), (0, 7), (7,), (0,), (2, 3, 8), (1, 1, 8)])
def test_vectors_of_another_shape(sparse, shape):
    with pytest.raises(DataError, match=r"have dimension .* and the encoder flops\.onnx takes 8\.$"):
        sparse.encode_rows(np.zeros(shape, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_the_first_row(sparse, codes, bad):
    vectors = random_vectors(6)
    vectors[2, 3] = vectors[4, 0] = bad
    for encode in (sparse.encode_rows, codes.encode_rows, codes.encode_queries):
        with pytest.raises(DataError, match=r"NaN or infinite values \(2 rows, the first is row 2\)"):
            encode(vectors)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_values_too_large_for_float32_are_refused(sparse):
    with pytest.raises(DataError):
        sparse.encode_rows(np.full((1, 8), 1e300))


@pytest.mark.parametrize(
    "vectors",
    [
        "text",
        None,
        [["a"] * 8],
        [["1.5"] * 8],
        np.array([["1.5"] * 8]),
        [[None] * 8],
        [[object()] * 8],
        [[1.0] * 8, [1.0] * 7],
        {"a": 1},
        [[1j] * 8],
        [[10**400] * 8],
        np.zeros((2, 8), "datetime64[s]"),
        np.zeros((2, 8), bool),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_array_of_numbers(sparse, vectors):
    with pytest.raises(DataError):
        sparse.check_vectors(vectors)


def test_an_error_says_whether_rows_or_queries_are_wrong(codes):
    with pytest.raises(DataError, match=r"^The queries have dimension 3"):
        codes.encode_queries(np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"^The vectors have dimension 3"):
        codes.encode_rows(np.zeros((1, 3)))


@pytest.fixture(scope="module")
def many_sizes(tmp_path_factory):
    """Sparse encoders of several sizes, with what they compute."""
    folder = tmp_path_factory.mktemp("sizes")
    sizes = [(1, 1, 1), (3, 2, 2), (8, 64, 1), (5, 40, 40), (16, 300, 20)]
    made = [
        write_flops(folder / f"{i}.onnx", input_dim=d, dim=dim, max_nnz=k, metric="L2")
        for i, (d, dim, k) in enumerate(sizes)
    ]
    return [(flops, load_encoder(flops.path, threads=1)) for flops in made]


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 4), rows=st.integers(0, 40), seed=st.integers(0, 2**32 - 1), size=st.floats(1e-3, 1e3))
def test_coordinates_become_the_same_matrix_as_the_dense_reference(many_sizes, which, rows, seed, size):
    flops, encoder = many_sizes[which]
    vectors = (size * random_vectors(rows, flops.info.input_dim, seed)).astype(np.float32)
    found = encoder.encode_rows(vectors)
    # top-k ties apart, which random numbers do not have, the same entries and the same weights
    np.testing.assert_allclose(found.toarray(), flops.dense(vectors), atol=2e-6)
    assert (np.diff(found.indptr) >= 1).all()


@pytest.fixture(scope="module")
def many_lengths(tmp_path_factory):
    """Quantisers of several lengths, with what they compute."""
    folder = tmp_path_factory.mktemp("lengths")
    sizes = [(1, 1, 8), (4, 2, 8), (6, 3, 64), (12, 9, 16)]
    made = [
        write_drq(folder / f"{i}.onnx", input_dim=d, levels=m, sign_bits=s, metric="IP")
        for i, (d, m, s) in enumerate(sizes)
    ]
    return [(drq, load_encoder(drq.path, threads=1)) for drq in made]


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, 3), rows=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_norms_and_tables_belong_to_the_codes(many_lengths, which, rows, seed):
    drq, encoder = many_lengths[which]
    vectors = random_vectors(rows, drq.info.input_dim, seed)
    found = encoder.encode_rows(vectors)
    np.testing.assert_allclose(found.norms, drq.norms(found.codes), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(vectors).lut, drq.lut(vectors), atol=1e-4)
    # a level never makes the distance to what it left of the row larger than its best codeword would
    left = prepare(drq.info, vectors) - np.vstack([np.zeros_like(vectors)[None], drq.reconstructions(found.codes)[:-1]])
    for level, words in enumerate(drq.codewords):
        distances = np.square(left[level][:, None] - words).sum(2)
        chosen = distances[np.arange(rows), found.codes[:, level]]
        assert (chosen <= distances.min(1) + 1e-4).all()


def test_a_file_is_read_once(tmp_path, monkeypatch):
    """Its fingerprint is that of the model that was checked, also if it is replaced while it is opened."""
    first, second = (write_flops(tmp_path / f"{seed}.onnx", seed=seed).path for seed in (1, 2))
    expected = hashlib.sha256(first.read_bytes()).hexdigest()
    read, count = Path.read_bytes, []

    def replaced_after(path):
        data = read(path)
        count.append(path)
        second.replace(first)
        return data

    monkeypatch.setattr(Path, "read_bytes", replaced_after)
    assert load_encoder(first).sha256 == expected
    assert count == [first]
