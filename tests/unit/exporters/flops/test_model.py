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


def _variant(activation, metric="COSINE", scale=1.0):
    model = SparseEncoder(6, 40, 9, metric, scale, activation=activation)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.weight.copy_(torch.randn(40, 6, generator=generator))
        model.bias.copy_(0.5 * torch.randn(40, generator=generator) - 0.5)
    return model.requires_grad_(False)


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
@pytest.mark.parametrize("activation", ["relu", "soft-threshold"])
def test_variants_against_numpy(activation, metric):
    model, x = _variant(activation, metric), np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    weight, bias = model.weight.numpy().astype(np.float64), model.bias.numpy()
    got = model.dense(*model(torch.from_numpy(x))).numpy()
    assert got.shape == (200, model.dim)
    cut = 0
    for row, vector in zip(got, x.astype(np.float64), strict=True):
        seen = vector / np.linalg.norm(vector)
        if activation == "relu":
            dense = np.maximum(weight @ seen + bias, 0)
        else:
            y = weight @ seen
            soft = np.sign(y) * np.maximum(abs(y) - abs(bias), 0)
            dense = np.concatenate([np.maximum(soft, 0), np.maximum(-soft, 0)])
        cut += (dense > 0).sum() > 9
        dense[np.argsort(-dense)[9:]] = 0
        np.testing.assert_allclose(row, dense / np.linalg.norm(dense), atol=1e-5)
    assert cut > 0  # the bound on a row's length was needed


def test_split_inner_products_are_kept_but_for_the_cross_terms():
    model = SparseEncoder(6, 40, 80, activation="soft-threshold").requires_grad_(False)
    model.weight.copy_(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)))
    model.bias.fill_(-0.3)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    split = model.dense(*model(x)).double().numpy()
    signed = split[:, :40] - split[:, 40:]
    np.testing.assert_allclose(np.linalg.norm(split, axis=1), np.linalg.norm(signed, axis=1))
    products = signed[:, None] * signed[None]
    np.testing.assert_allclose(split @ split.T, signed @ signed.T - np.minimum(products, 0).sum(2), atol=1e-12)
    assert (split @ split.T >= signed @ signed.T - 1e-12).all()


@pytest.mark.parametrize("activation", ["relu", "soft-threshold"])
def test_hopeless_rows_of_variants_keep_one_dimension(activation):
    model = _variant(activation)
    model.bias.fill_(-1e3)
    weights, _ = model(torch.cat([torch.zeros(1, 6), torch.randn(3, 6)]))
    assert ((weights > 0).sum(1) == 1).all()
