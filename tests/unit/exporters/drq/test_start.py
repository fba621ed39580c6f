from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq.model import RecurrentQuantizer
from alula_exporters.drq.start import k_means, random_orthogonal, start_from_data
from alula_exporters.drq.variants import SeparateQuantizer, SharedQuantizer


def test_random_orthogonal():
    turn = random_orthogonal(12, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(turn @ turn.T, np.eye(12), atol=1e-5)


def test_k_means_beats_random_centres_and_survives_repeated_points():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4000, 6, generator=generator)
    centres = k_means(points, generator)
    first = points[torch.randperm(4000, generator=generator)[:256]]
    assert torch.cdist(points, centres).min(1).values.mean() < 0.95 * torch.cdist(points, first).min(1).values.mean()
    repeated = k_means(points[:300].repeat(5, 1), generator)
    assert torch.isfinite(repeated).all()


def test_start_is_a_working_quantiser(vectors):
    rows = torch.from_numpy(vectors)
    model = RecurrentQuantizer(rows.shape[1], 4, 8).requires_grad_(False)
    start_from_data(model, rows, torch.Generator().manual_seed(0))
    errors = (rows[:, None] - model(model.encode(rows, 1))).square().sum(2).mean(0)
    variance = (rows - rows.mean(0)).square().sum(1).mean()
    assert errors[0] < 0.7 * variance
    assert (errors.diff() < 0).all()
    for turn in model.turns.flatten(0, 1):
        np.testing.assert_allclose(turn @ turn.T, np.eye(rows.shape[1]), atol=1e-4)


def test_long_vectors_are_quantised_along_their_principal_axes():
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(2, 0.05, 100)
    rows = torch.randn(3000, 100, generator=generator) * spread @ random_orthogonal(100, generator) + 1
    model = RecurrentQuantizer(100, 6, 8).requires_grad_(False)
    start_from_data(model, rows, generator)
    assert model.log_scales.shape == (6, 3)
    assert len(model.axes) == 72
    values = np.linalg.eigvalsh(np.cov(rows.numpy().T))
    np.testing.assert_allclose(model.inner(rows).var(0), values[-72:], rtol=1e-3)
    errors = (rows[:, None] - model(model.encode(rows, 5))).square().sum(2).mean(0)
    assert (errors.diff() < 0).all()
    assert errors[-1] < 0.7 * values.sum()


@pytest.mark.parametrize("kind", [SharedQuantizer, SeparateQuantizer])
def test_variants_start_as_working_quantisers(vectors, kind):
    rows = torch.from_numpy(vectors)
    model = kind(rows.shape[1], 4, 8).requires_grad_(False)
    start_from_data(model, rows, torch.Generator().manual_seed(0))
    errors = (rows[:, None] - model(model.encode(rows, 1))).square().sum(2).mean(0)
    assert errors[0] < 0.7 * (rows - rows.mean(0)).square().sum(1).mean()
    assert (errors.diff() < 0).all()


def test_every_level_of_a_long_code_starts_with_something_to_say():
    """Few rows: a plain residual quantiser knows each of them after some levels."""
    rows = torch.randn(1_000, 64, generator=torch.Generator().manual_seed(3))
    model = RecurrentQuantizer(64, 32, 8).requires_grad_(False)
    start_from_data(model, rows, torch.Generator().manual_seed(0))
    prefixes = model(model.encode(rows, beam=1))
    errors = (rows[:, None] - prefixes).square().sum(2).mean(0)
    assert (errors[8::8] < 0.9 * errors[:-8:8]).all()
