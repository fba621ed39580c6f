from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq import PaperQuantizer, RecurrentQuantizer, SeparateQuantizer
from alula_exporters.drq.model import SOFTNESS, LinearQuantizer, reconstruct, soft_reconstruct
from alula_exporters.drq.variants import QUANTIZERS


def _filled(kind):
    generator = torch.Generator().manual_seed(0)
    model = kind(5, 3, 16).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_paper_codewords_are_scaled_copies_of_one_codebook():
    model = _filled(PaperQuantizer)
    expected = [model.scales.numpy()[t] * model.codebook.numpy() for t in range(3)]
    np.testing.assert_array_equal(model.codewords().numpy(), np.stack(expected))


def test_separate_codewords_are_the_codebooks():
    model = _filled(SeparateQuantizer)
    np.testing.assert_array_equal(model.codewords().numpy(), model.codebooks.numpy())


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (RecurrentQuantizer, 2 * 256 * 5 + 2 + 2 * 5 * 5),
        (LinearQuantizer, 2 * 256 * 5 + 2 + 2 * 5 * 5),
        (PaperQuantizer, 256 * 5 + 3),
        (SeparateQuantizer, 3 * 256 * 5),
    ],
)
def test_parameters(kind, count):
    assert kind(5, 3, 16).parameter_count == count


def test_long_vectors_take_a_third_of_the_parameters_of_separate_codebooks():
    for dim in (50, 384, 768):
        third = SeparateQuantizer(dim, 16, 16).parameter_count / 3
        assert RecurrentQuantizer(dim, 16, 16).parameter_count <= third
    axes, codebooks, turns, scales = 256 * 384, 2 * 256 * 256, 15 * 4 * 64 * 64, 15 * 4
    assert RecurrentQuantizer(384, 16, 16).parameter_count == axes + codebooks + turns + scales


@pytest.mark.parametrize("kind", QUANTIZERS.values())
def test_codes_and_tables_mean_the_same_for_every_mode(kind):
    model, rng = _filled(kind), np.random.default_rng(1)
    words = model.codewords().numpy().astype(np.float64)
    x = rng.standard_normal((20, 5)).astype(np.float32)
    codes = model.encode(torch.from_numpy(x), 1).numpy()
    residual = x.astype(np.float64)
    for t in range(3):
        assert np.array_equal(codes[:, t], ((residual[:, None] - words[t]) ** 2).sum(2).argmin(1))
        residual = residual - words[t][codes[:, t]]
        np.testing.assert_allclose(model(torch.from_numpy(codes))[:, t], x - residual, atol=1e-4)
    tables = model.tables(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(tables, np.einsum("nd,mkd->nmk", x, words), atol=1e-4)


def test_soft_reconstruction_against_numpy():
    model, rng = _filled(PaperQuantizer), np.random.default_rng(2)
    words = model.codewords()
    x = rng.standard_normal((12, 5)).astype(np.float32)
    codes = model.encode(torch.from_numpy(x), 1)
    hard = reconstruct(codes, words)
    got = soft_reconstruct(torch.from_numpy(x), hard, words).numpy()
    w, residual, expected = words.numpy().astype(np.float64), x.astype(np.float64), np.zeros((12, 5))
    for t in range(3):
        tau = SOFTNESS * (w[t] ** 2).sum(1).mean()
        power = -((residual[:, None] - w[t]) ** 2).sum(2) / tau
        share = np.exp(power - power.max(1, keepdims=True))
        expected = expected + share / share.sum(1, keepdims=True) @ w[t]
        np.testing.assert_allclose(got[:, t], expected, atol=1e-3)
        residual = residual - w[t][codes[:, t].numpy()]


def test_soft_becomes_hard_when_a_codeword_is_far_nearer_than_the_others():
    words = torch.tensor([100.0, 10.0])[:, None, None] * torch.eye(256)
    x = words[0][[3, 7]] + words[1][[9, 200]]
    codes = torch.tensor([[3, 9], [7, 200]])
    hard = reconstruct(codes, words)
    soft = soft_reconstruct(x, hard, words)
    np.testing.assert_allclose(soft[:, 1], hard[:, 1], atol=1e-2)
