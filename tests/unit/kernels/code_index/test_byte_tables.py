"""Sums of look-ups in byte tables: in registers where the processor can, and one by one everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from alula.kernels.code_index.layout import CODE_BLOCK
from alula.kernels.jit import HAS_NUMBA, compiled

if not HAS_NUMBA:
    pytest.skip("numba is not installed: pip install 'alula[fast]'", allow_module_level=True)

from alula.kernels.code_index import byte_tables
from alula.kernels.code_index import loops_numba as codes_numba


@compiled
def sums_in_registers(codes, block, tables, levels, sums):
    byte_tables.add_in_registers(codes, block, tables, levels, sums)


@compiled
def passing(sums, norms, block, first, a, b, least):
    return byte_tables.reach(sums, norms, block, first, a, b, least)


@pytest.mark.parametrize("add", ["registers", "one by one"])
@pytest.mark.parametrize("levels", [1, 3, 4, 11])
def test_sums_are_those_of_the_tables(add, levels):
    if add == "registers" and not byte_tables.has_registers():
        pytest.skip("this processor has no AVX-512 VBMI")
    rng = np.random.default_rng(levels)
    codes = rng.integers(0, 256, (3, 11, CODE_BLOCK), np.uint8)
    tables = rng.integers(0, 256, (levels, 256), np.uint8)
    sums = np.full(CODE_BLOCK, 7, np.uint16)
    function = sums_in_registers if add == "registers" else compiled(codes_numba._add_one_by_one)
    for block in range(3):
        function(codes, block, tables, levels, sums)
        true = sum(tables[level][codes[block, level]].astype(np.uint16) for level in range(levels))
        np.testing.assert_array_equal(sums, true)


def test_rows_pass_that_reach_what_their_norm_asks():
    rng = np.random.default_rng(0)
    sums = rng.integers(0, 1_000, CODE_BLOCK).astype(np.uint16)
    norms = np.concatenate([rng.uniform(0, 3, CODE_BLOCK - 3), [0, 6e-8, 65_504]]).astype(np.float16)
    held = np.stack([np.zeros_like(norms), norms]).view(np.uint16)
    for a, b, least in ((300.0, 0.0, 50.0), (0.0, 80.0, 10.0), (0.0, 0.0, 500.0)):
        wide = norms.astype(np.float64)
        wanted = least + (a + b * wide) * wide
        clear = np.abs(sums - wanted) > 1e-3 * np.abs(wanted)
        for first in (0, CODE_BLOCK - 64):
            mask = passing(sums, held, 1, first, np.float32(a), np.float32(b), np.float32(least))
            bits = (int(mask) >> np.arange(64).astype(object)) & 1
            part = slice(first, first + 64)
            np.testing.assert_array_equal(bits.astype(bool)[clear[part]], (sums >= wanted)[part][clear[part]])
    assert passing(sums, held, 1, 0, np.float32(0), np.float32(0), np.float32(np.nan)) == 2**64 - 1
