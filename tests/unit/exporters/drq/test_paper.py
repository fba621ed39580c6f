from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.drq.paper import TEMPERATURE, PaperStages, hard_and_soft_parts


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return rng.standard_normal((12, 5)), rng.standard_normal((3, 256, 5)) * [[[1.0]], [[0.5]], [[0.3]]]


def slow_reconstructions(x, words):
    """Row by row: hard is the nearest codeword, soft the mean by the softmax of minus the squared distances."""
    hard, soft = np.zeros((len(x), 3, 5)), np.zeros((len(x), 3, 5))
    for i, row in enumerate(x):
        residual, hard_sum, soft_sum = row.copy(), np.zeros(5), np.zeros(5)
        for t in range(3):
            distances = ((residual - words[t]) ** 2).sum(1)
            weights = np.exp(-(distances - distances.min()) / TEMPERATURE)
            soft_sum += weights / weights.sum() @ words[t]
            chosen = words[t][distances.argmin()]
            hard_sum, residual = hard_sum + chosen, residual - chosen
            hard[i, t], soft[i, t] = hard_sum, soft_sum
    return hard, soft


def test_hard_and_soft_codes_are_the_formulas(case):
    found = hard_and_soft_parts(*map(torch.tensor, case))
    for parts, expected in zip(found, slow_reconstructions(*case), strict=True):
        np.testing.assert_allclose(torch.stack(parts, dim=1).cumsum(1), expected, atol=1e-9)


def test_stages_take_the_shortest_code_and_then_by_turns_the_longer_ones(case):
    x, words = case
    hard, soft = slow_reconstructions(x, words)

    def errors(y):
        return ((x[:, None] - y) ** 2).sum(2).mean(0)

    def joint(t):
        return ((soft[:, t] - hard[:, t]) ** 2).sum(1).mean()

    first = errors(hard)[0] + errors(soft)[0] + 0.1 * joint(0)
    later = errors(hard)[1:].sum() + errors(soft)[1:].sum() + 0.1 * joint(2)
    stages = PaperStages(steps=8)
    losses = [float(stages.loss(torch.tensor(x), torch.tensor(words), number)[0]) for number in range(8)]
    assert losses == pytest.approx([first] * 5 + [later, first, later])
