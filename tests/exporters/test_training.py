from __future__ import annotations

import pytest
import torch

from alula.errors import AlulaError
from alula_exporters.training import fit, reproducible


def test_reproducible_restores_the_global_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with reproducible(1) as generator:
        assert torch.are_deterministic_algorithms_enabled()
        first = torch.rand(2, generator=generator)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), expected)
    with reproducible(1) as generator:
        assert torch.equal(torch.rand(2, generator=generator), first)


def _fit(loss_of, steps=3, **options):
    parameter = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    fit(optimizer, schedule, lambda _: (loss_of(parameter), {"x": 1.0}), steps=steps, clip=100.0, **options)
    return float(parameter.detach())


def test_fit_steps_down_and_reports():
    seen = []
    value = _fit(lambda p: p * p, progress=lambda *report: seen.append(report))
    assert value == pytest.approx(2 * 0.8**3)
    assert seen[-1] == ("training", 3, 3, {"x": 1.0})


def test_fit_refuses_a_loss_that_is_not_finite():
    with pytest.raises(AlulaError, match="step 0 is not a finite number"):
        _fit(lambda p: p * float("nan"))
