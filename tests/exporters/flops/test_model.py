from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops.model import SparseEncoder


def _encoder(metric, scale=1.0):
    model = SparseEncoder(6, 40, 5, metric, scale)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.weight.copy_(torch.randn(40, 6, generator=generator))
        model.bias.fill_(-0.2)
        model.length_power.fill_(1.7)
    return model


def _numpy_rows(model, x):
    """The formula, row by row, in float64."""
    weight, bias = model.weight.detach().numpy().astype(np.float64), model.bias.detach().numpy()
    result = np.zeros((len(x), 40))
    for i, row in enumerate(x.astype(np.float64)):
        length = np.linalg.norm(row)
        seen = row / model.scale if model.metric == "L2" else row / length
        h = weight @ seen + bias
        top = np.argsort(-h)[:5]
        kept = np.maximum(h[top], 0)
        shortest = {"IP": 0, "L2": 0.25}.get(model.metric)
        factor = 1 if model.metric == "COSINE" else max(length / model.scale, shortest) ** 1.7
        result[i, top] = kept / np.linalg.norm(kept) * factor
    return result


@pytest.mark.parametrize(("metric", "scale"), [("COSINE", 1.0), ("IP", 2.5), ("L2", 2.5)])
def test_rows_against_numpy(metric, scale):
    model = _encoder(metric, scale)
    x = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    with torch.no_grad():
        got = model.dense(*model(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(got, _numpy_rows(model, x), atol=1e-5)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_zero_and_hopeless_rows_keep_one_dimension(metric):
    model = _encoder(metric)
    with torch.no_grad():
        model.bias.fill_(-1e3)  # no activation is positive
        weights, _ = model(torch.cat([torch.zeros(1, 6), torch.randn(3, 6)]))
    assert torch.isfinite(weights).all()
    assert ((weights > 0).sum(1) == 1).all()


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_outliers_stay_finite(metric):
    model = _encoder(metric, 2.0)
    with torch.no_grad():
        model.length_power.fill_(6.0 if metric == "IP" else -3.0)
        weights, _ = model(torch.tensor([[1e12] * 6, [1e-12] * 6]))
    assert torch.isfinite(weights).all()
    assert torch.isfinite(weights @ weights.T).all()
    assert (weights[:, 0] > 0).all()
