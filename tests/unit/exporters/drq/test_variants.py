from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq import RecurrentQuantizer, SeparateQuantizer, SharedQuantizer
from alula_exporters.drq.variants import QUANTIZERS


def _filled(kind):
    generator = torch.Generator().manual_seed(0)
    model = kind(5, 3, 16).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_shared_codewords_are_scaled_copies_of_one_codebook():
    model = _filled(SharedQuantizer)
    scales = [1, *model.later_scales.numpy()]
    expected = [scales[t] * model.codebook.numpy() for t in range(3)]
    np.testing.assert_array_equal(model.codewords().numpy(), np.stack(expected))


def test_separate_codewords_are_scaled_codebooks():
    model = _filled(SeparateQuantizer)
    expected = [
        np.exp(scale) * book for scale, book in zip(model.log_scales.numpy(), model.codebooks.numpy(), strict=True)
    ]
    np.testing.assert_allclose(model.codewords().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (RecurrentQuantizer, 2 * 256 * 5 + 3 + 5 * 5),
        (SharedQuantizer, 256 * 5 + 2),
        (SeparateQuantizer, 3 * 256 * 5 + 3),
    ],
)
def test_parameters(kind, count):
    assert kind(5, 3, 16).parameter_count == count


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
