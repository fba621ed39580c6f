from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alula_exporters.drq.model import RecurrentQuantizer, pack_signs
from alula_exporters.drq.start import random_orthogonal


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    model = RecurrentQuantizer(5, 3, 16)
    with torch.no_grad():
        model.codebook.copy_(torch.randn(256, 5, generator=generator))
        model.log_scales.copy_(torch.tensor([0.0, -0.5, -1.2]))
        model.offset.copy_(torch.randn(5, generator=generator))
        model.direction_mean.copy_(0.1 * torch.randn(5, generator=generator))
        model.projection.copy_(torch.randn(16, 5, generator=generator))
        for level in range(3):
            model.rotations[level] = random_orthogonal(5, generator)
    return model.requires_grad_(False)


def _numpy_codewords(model):
    codebook, turns = model.codebook.numpy().astype(np.float64), model.rotations.numpy()
    words = [np.exp(float(model.log_scales[t])) * codebook @ turns[t] for t in range(3)]
    words[0] = words[0] + model.offset.numpy()
    return np.stack(words)


def test_codewords_are_scaled_turned_copies_of_one_codebook(model):
    np.testing.assert_allclose(model.codewords().numpy(), _numpy_codewords(model), atol=1e-5)


def test_reconstructions_and_tables_give_the_asymmetric_distance(model):
    rng = np.random.default_rng(1)
    codes, queries = rng.integers(256, size=(20, 3)), rng.standard_normal((4, 5)).astype(np.float32)
    words = _numpy_codewords(model)
    x_hat = model(torch.from_numpy(codes)).numpy()
    tables = model.tables(torch.from_numpy(queries)).numpy()
    for t in range(3):
        expected = sum(words[s][codes[:, s]] for s in range(t + 1))
        np.testing.assert_allclose(x_hat[:, t], expected, atol=1e-5)
        inner = sum(tables[:, s][:, codes[:, s]] for s in range(t + 1))
        np.testing.assert_allclose(inner, queries @ expected.T, atol=1e-4)
        norms = np.linalg.norm(x_hat[:, t], axis=1)
        distance = (queries**2).sum(1)[:, None] + norms**2 - 2 * inner
        np.testing.assert_allclose(distance, ((queries[:, None] - expected[None]) ** 2).sum(2), atol=1e-3)


def _error(model, x, codes):
    return (x - model(codes)[:, -1]).square().sum(1)


def test_greedy_codes_against_numpy(model):
    x = np.random.default_rng(2).standard_normal((30, 5)).astype(np.float32)
    words, residual, expected = _numpy_codewords(model), x.astype(np.float64), []
    for t in range(3):
        expected.append(((residual[:, None] - words[t][None]) ** 2).sum(2).argmin(1))
        residual = residual - words[t][expected[-1]]
    expected = np.stack(expected, axis=1)
    assert np.array_equal(model.assign(torch.from_numpy(x), model.codewords()).numpy(), expected)
    assert np.array_equal(model.encode(torch.from_numpy(x), beam=1).numpy(), expected)


def test_a_wider_beam_is_nearer_and_a_full_one_is_exact(model):
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((40, 5)).astype(np.float32))
    errors = [float(_error(model, x, model.encode(x, beam)).mean()) for beam in (1, 5, 64)]
    assert errors[0] > errors[1] >= errors[2]
    # with all 256 prefixes kept, the first two levels are searched exhaustively
    two = RecurrentQuantizer(5, 2, 16)
    with torch.no_grad():
        for name in ("codebook", "offset"):
            getattr(two, name).copy_(getattr(model, name))
        two.log_scales.copy_(model.log_scales[:2])
        two.rotations.copy_(model.rotations[:2])
        words = two.codewords()
        pairs = (words[0][:, None] + words[1][None]).reshape(-1, 5)
        best = torch.cdist(x, pairs).min(1).values.square()
        got = _error(two, x, two.encode(x, beam=256))
    np.testing.assert_allclose(got, best, atol=1e-4)


def test_signs_against_numpy(model):
    x = np.random.default_rng(4).standard_normal((25, 5)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = (unit - model.direction_mean.numpy()) @ model.projection.numpy().T > 0
    assert np.array_equal(model.signs(torch.from_numpy(x)).numpy(), expected)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000))
def test_bits_are_packed_as_numpy_packs_them(rows, size, seed):
    bits = np.random.default_rng(seed).random((rows, 8 * size)) < 0.5
    assert np.array_equal(pack_signs(torch.from_numpy(bits)).numpy(), np.packbits(bits, axis=1))
