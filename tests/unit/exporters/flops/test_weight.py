from __future__ import annotations

import pytest

from alula_exporters.flops.weight import FlopsController, QuadraticRamp


def test_controller_raises_lambda_while_too_expensive_and_lowers_it_when_too_cheap():
    dear, cheap = FlopsController(1.0, 100), FlopsController(1.0, 100)
    dear_weights = [dear.weight(1.2) for _ in range(100)]
    cheap_weights = [cheap.weight(0.8) for _ in range(100)]
    assert dear_weights[-1] > dear_weights[50] > dear_weights[0]
    assert cheap_weights[-1] < cheap_weights[50] < cheap_weights[0]


def test_controller_brings_a_simple_system_to_its_budget():
    controller, flops = FlopsController(0.5, 400), 3.0
    for _ in range(400):
        flops += 0.05 * (3.0 / (1 + controller.weight(flops)) - flops)
    assert flops == pytest.approx(0.5, rel=0.1)


def test_ramp_is_quadratic_and_then_constant():
    ramp = QuadraticRamp(3.0, 10)
    weights = [ramp.weight(2.0) for _ in range(15)]
    expected = [3.0 * min(1, t / 10) ** 2 for t in range(1, 16)]
    assert weights == pytest.approx(expected)
    assert ramp.mean == pytest.approx(2.0)
