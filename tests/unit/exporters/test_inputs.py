from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from alula_exporters.inputs import unit_rows


@given(st.floats(-25, 25), st.integers(1, 50), st.integers(0, 10_000))
def test_unit_rows_at_any_magnitude(exponent, dim, seed):
    rows = (np.random.default_rng(seed).standard_normal((3, dim)) * 10.0**exponent).astype(np.float32)
    directions, lengths = unit_rows(torch.from_numpy(rows))
    expected = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(lengths.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(directions.numpy(), rows / expected, atol=1e-5)


def test_zero_rows_stay_zero():
    directions, lengths = unit_rows(torch.zeros(2, 5))
    assert not directions.any()
    assert not lengths.any()
