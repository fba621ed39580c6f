from __future__ import annotations

import math

import pytest
import torch

from alula.errors import AlulaError, UsageError
from alula_exporters.checkpoint import Checkpoint, GeneratorState
from alula_exporters.training import EarlyStopping, TrainingStage, fit, reproducible, warmed_up_cosine


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


class Square(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(2.0))


def _stage(model, steps=3, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    return TrainingStage("training", optimizer, schedule, steps, 100.0, state={"model": model}, **options)


def _fit(loss_of, **options):
    model = Square()
    fit(_stage(model), lambda _: (loss_of(model.value), {"x": 1.0}), **options)
    return float(model.value.detach())


def test_fit_steps_down_and_reports():
    seen = []
    value = _fit(lambda p: p * p, progress=lambda *report: seen.append(report))
    assert value == pytest.approx(2 * 0.8**3)
    assert seen[-1] == ("training", 3, 3, {"x": 1.0})


def test_fit_refuses_a_loss_that_is_not_finite():
    with pytest.raises(AlulaError, match="step 0 is not a finite number"):
        _fit(lambda p: p * float("nan"))


class Killed(BaseException):
    pass


def _noisy_run(path, *, killed_after=None):
    """Adam on a noisy loss: its result depends on the moments, the generator and the step."""
    model = Square()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    checkpoint = Checkpoint(path, {"seed": 3})
    with reproducible(3) as generator:
        state = {"model": model, "generator": GeneratorState(generator)}
        stage = TrainingStage("training", optimizer, schedule, 20, 10.0, state=state)
        taken = []

        def step(number):
            if number == killed_after:
                raise Killed
            taken.append(number)
            noise = torch.randn((), generator=generator) + torch.rand(())  # the global generator too
            return (model.value - noise) ** 2, {}

        fit(stage, step, checkpoint=checkpoint)
    return float(model.value.detach()), taken


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("alula_exporters.checkpoint.SECONDS", 0.0)
    expected, _ = _noisy_run(tmp_path / "whole")
    with pytest.raises(Killed):
        _noisy_run(tmp_path / "killed", killed_after=13)
    value, taken = _noisy_run(tmp_path / "killed")
    assert taken == list(range(13, 20))
    assert value == expected


def test_a_stage_that_ended_is_not_run_again(tmp_path):
    first, _ = _noisy_run(tmp_path / "run")
    again, taken = _noisy_run(tmp_path / "run")
    assert (again, taken) == (first, [])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    _noisy_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"another training run \(seed differ"):
        Checkpoint(tmp_path / "run", {"seed": 4})


def test_a_damaged_checkpoint_is_refused(tmp_path):
    _noisy_run(tmp_path / "run")
    content = (tmp_path / "run").read_bytes()
    (tmp_path / "run").write_bytes(content[: len(content) // 2])
    with pytest.raises(AlulaError, match="cannot be read"):
        Checkpoint(tmp_path / "run", {"seed": 3})


def test_early_stopping_goes_back_to_the_best_weights():
    model = Square()
    # the best measurement is the third; two worse ones follow
    measured = iter([1.0, 2.0, 3.0, 2.5, 2.9, 9.0])
    values = []

    def measure():
        values.append(float(model.value.detach()))
        return next(measured)

    stopping = EarlyStopping(model, measure, patience=2, every=2, after=1)
    steps = fit(_stage(model, steps=50, stopping=stopping), lambda _: (model.value**2, {}))
    assert steps == 10  # five measurements, one every second step
    assert stopping.best == 3.0
    assert float(model.value.detach()) == values[2]


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    rates = [warmed_up_cosine(step, 100, 10) for step in range(101)]
    cosine = [(1 + math.cos(math.pi * step / 100)) / 2 for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 * cosine[step] for step in range(10)])
    assert rates[10:] == pytest.approx(cosine[10:])
    assert [warmed_up_cosine(step, 100, 0) for step in range(101)] == pytest.approx(cosine)
