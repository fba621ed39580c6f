from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq import signs as signs_module
from alula_exporters.drq.signs import SignBits, learn_signs, start_signs

from ..conftest import clustered

QUERIES = 200


@pytest.fixture(scope="module")
def rows():
    """Rows of uneven variance, so that it matters which axes the bits are taken along."""
    return clustered(4000, dim=32) * np.linspace(2, 0.2, 32, dtype=np.float32)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(signs_module, "_ROWS_PER_STEP", 40)


def generator():
    return torch.Generator().manual_seed(0)


def share_found(signs, rows, metric):
    """Share of the 10 nearest rows, by the metric in numpy, among the 100 of the fewest different bits."""
    queries, stored = rows[:QUERIES].astype(np.float64), rows[QUERIES:].astype(np.float64)
    if metric == "L2":
        scores = -((queries[:, None] - stored) ** 2).sum(2)
    else:
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (queries, stored)]
        scores = unit[0] @ unit[1].T
    bits = (signs(torch.from_numpy(rows)) > 0).numpy()
    different = (bits[:QUERIES, None] != bits[None, QUERIES:]).sum(2)
    nearest = np.argsort(-scores, axis=1)[:, :10]
    found = np.argsort(different, axis=1, kind="stable")[:, :100]
    return np.mean([np.isin(a, b).mean() for a, b in zip(nearest, found, strict=True)])


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
@pytest.mark.parametrize("bits", [16, 64])
def test_learned_bits_find_what_itq_finds_and_itq_more_than_random_directions(rows, metric, bits):
    learned, started, random = (SignBits(32, bits, metric) for _ in range(3))
    tensor = torch.from_numpy(rows)
    learn_signs(learned, tensor[QUERIES:], generator())
    start_signs(started, tensor[QUERIES:], generator())
    random.mean.copy_(started.mean)
    random.projection.copy_(torch.randn(bits, 32, generator=generator()))
    found = [share_found(signs, rows, metric) for signs in (learned, started, random)]
    assert found[0] > found[1] - 0.01  # the start, or better
    assert found[1] > found[2]


def test_learning_finds_more_than_the_start(monkeypatch):
    monkeypatch.setattr(signs_module, "_ROWS_PER_STEP", 20)
    rows = np.random.default_rng(1).standard_normal((4000, 10)).astype(np.float32)
    learned, started = (SignBits(10, 40, "COSINE") for _ in range(2))
    learn_signs(learned, torch.from_numpy(rows[QUERIES:]), generator())
    start_signs(started, torch.from_numpy(rows[QUERIES:]), generator())
    assert share_found(learned, rows, "COSINE") > share_found(started, rows, "COSINE") + 0.005


def test_the_start_is_a_rotation_of_the_principal_axes(rows):
    signs = SignBits(32, 24, "L2")
    start_signs(signs, torch.from_numpy(rows), generator())
    centred = rows - rows.mean(0)
    np.testing.assert_allclose(signs.projection @ signs.projection.T, np.eye(24), atol=1e-4)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, -24:]
    outside = signs.projection.numpy() - signs.projection.numpy() @ axes @ axes.T
    assert abs(outside).max() < 1e-3


def test_same_generator_same_bits(rows):
    first, again = (SignBits(32, 16, "COSINE") for _ in range(2))
    for signs in (first, again):
        learn_signs(signs, torch.from_numpy(rows), generator())
    assert torch.equal(first.projection, again.projection)
    assert torch.equal(first.offset, again.offset)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_few_rows_zero_rows_and_dimensions_without_variance(metric):
    rows = torch.randn(300, 8, generator=generator())
    rows[:, 5:] = 0
    rows[::50] = 0
    signs = SignBits(8, 24, metric)
    learn_signs(signs, rows, generator())
    assert torch.isfinite(signs.projection).all()
    assert torch.isfinite(signs(rows)).all()


def test_progress_is_reported(rows):
    seen = []
    learn_signs(
        SignBits(32, 8, "COSINE"), torch.from_numpy(rows), generator(), progress=lambda *call: seen.append(call[:3])
    )
    assert seen[0] == ("sign bits", 1, 100)
    assert seen[-1] == ("sign bits", 100, 100)
