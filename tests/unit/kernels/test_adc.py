"""Codes in INT64 columns, and asymmetric distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alula.kernels import adc_inner_products, adc_scores, pack_bytes, pack_norms, unpack_bytes, unpack_norms

shapes = st.tuples(st.integers(1, 30), st.integers(1, 40))


@given(hnp.arrays(np.uint8, shapes))
def test_bytes_come_back_from_their_columns(codes):
    columns = pack_bytes(codes)
    assert len(columns) == -(-codes.shape[1] // 8)
    assert {column.dtype for column in columns} == {np.dtype(np.int64)}
    np.testing.assert_array_equal(unpack_bytes(columns, codes.shape[1]), codes)


@given(hnp.arrays(np.uint8, shapes), st.data())
def test_a_prefix_needs_only_the_first_columns(codes, data):
    levels = data.draw(st.integers(1, codes.shape[1]))
    columns = pack_bytes(codes)[: -(-levels // 8)]
    np.testing.assert_array_equal(unpack_bytes(columns, levels), codes[:, :levels])


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 20))))
def test_the_first_level_is_the_lowest_byte(codes):
    for row, column in enumerate(np.stack(pack_bytes(codes), axis=1)):
        number = sum(int(code) << (8 * level) for level, code in enumerate(codes[row]))
        assert sum((int(value) % 2**64) << (64 * i) for i, value in enumerate(column)) == number


def test_bytes_of_values_that_came_back_as_python_ints():
    codes = np.full((2, 8), 255, np.uint8)
    column = np.array([int(value) for value in pack_bytes(codes)[0]])
    assert column.tolist() == [-1, -1]
    np.testing.assert_array_equal(unpack_bytes([column], 8), codes)


norms = hnp.arrays(np.float32, shapes, elements=st.floats(0, 1e5, width=32))


@settings(deadline=None)
@given(norms)
def test_norms_come_back_within_half_precision(norms):
    columns = pack_norms(norms)
    assert len(columns) == -(-norms.shape[1] // 4)
    for level in range(norms.shape[1]):
        found = unpack_norms(columns[level // 4], level)
        assert found.dtype == np.float32
        expected = np.minimum(norms[:, level], 65504)
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=2**-25)


def test_no_rows_pack_into_empty_columns():
    assert [len(column) for column in pack_bytes(np.empty((0, 9), np.uint8))] == [0, 0]
    assert [len(column) for column in pack_norms(np.empty((0, 9), np.float32))] == [0, 0, 0]


def reconstruct(codewords, codes):
    """What the codes stand for, by plain loops: float64 (n, d)."""
    return np.array([sum(codewords[t][code] for t, code in enumerate(row)) for row in codes])


def plain_score(query, vector, metric):
    if metric == "IP":
        return sum(a * b for a, b in zip(query, vector, strict=True))
    if metric == "L2":
        return sum((a - b) ** 2 for a, b in zip(query, vector, strict=True))
    norm = np.sqrt(sum(b * b for b in vector))
    return 0.0 if norm == 0 else sum(a * b for a, b in zip(query, vector, strict=True)) / norm


@settings(deadline=None, max_examples=40)
@given(
    metric=st.sampled_from(["COSINE", "IP", "L2"]),
    levels=st.integers(1, 6),
    dim=st.integers(1, 5),
    rows=st.integers(0, 8),
    scale=st.sampled_from([1.0, 0.25, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_adc_scores_are_exact_scores_of_the_reconstructions(metric, levels, dim, rows, scale, seed):
    rng = np.random.default_rng(seed)
    codewords = rng.standard_normal((levels, 256, dim))
    query = rng.standard_normal(dim)
    if metric == "COSINE":
        query, scale = query / np.linalg.norm(query), 1.0
    codes = rng.integers(0, 256, (rows, levels)).astype(np.uint8)
    x_hat = reconstruct(codewords, codes).reshape(rows, dim)

    products = adc_inner_products(codes, (codewords @ query).astype(np.float32))
    norms = np.linalg.norm(x_hat, axis=1).astype(np.float32)
    found = adc_scores(products, norms, float(np.linalg.norm(query)), metric, scale)

    expected = [plain_score(scale * query, scale * vector, metric) for vector in x_hat]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale * scale)


def test_a_prefix_uses_only_its_levels_of_the_table():
    lut = np.arange(3 * 256, dtype=np.float32).reshape(3, 256)
    assert adc_inner_products(np.array([[7, 9]], np.uint8), lut).tolist() == [7 + 256 + 9]
    assert adc_inner_products(np.array([[7, 9, 255]], np.uint8), lut).tolist() == [7 + 256 + 9 + 512 + 255]


def test_the_cosine_of_a_zero_reconstruction_is_zero():
    found = adc_scores(np.array([0.0, 0.5], np.float32), np.array([0.0, 1.0], np.float32), 1.0, "COSINE")
    assert found.tolist() == [0.0, 0.5]


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_a_batch_scores_each_row_alone(metric):
    rng = np.random.default_rng(0)
    products, norms = rng.standard_normal((2, 10)).astype(np.float32)
    norms = abs(norms)
    together = adc_scores(products, norms, 1.5, metric, 2.0)
    alone = [adc_scores(products[i : i + 1], norms[i : i + 1], 1.5, metric, 2.0)[0] for i in range(10)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
