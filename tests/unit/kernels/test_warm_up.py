"""Who compiles the loops: whoever creates an index, never a search."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp

from alula.index_types.local import LocalIndex
from alula.kernels import CodeIndex, InvertedIndex, warm_up
from alula.kernels.jit import HAS_NUMBA
from alula.kernels.loops import code_loops, sparse_loops


class _Local(LocalIndex):
    def add(self, rows, vectors=None):
        raise NotImplementedError

    def search(self, queries, limit, options, *, rerank=None, valid=None):
        raise NotImplementedError


@pytest.fixture
def cold(caplog):
    """The log of a process that has not warmed up yet."""
    warm_up.cache_clear()
    caplog.set_level(logging.INFO, "alula.kernels")
    return caplog


def test_the_loops_are_those_of_numba_where_it_is_installed():
    kind = "loops_numba" if HAS_NUMBA else "loops_numpy"
    assert sparse_loops().__name__ == f"alula.kernels.inverted_index.{kind}"
    assert code_loops().__name__ == f"alula.kernels.code_index.{kind}"


def test_warm_up_returns_the_seconds_of_the_first_call():
    seconds = warm_up()
    assert seconds > 0 or not HAS_NUMBA
    assert warm_up() == seconds


def test_no_search_warms_up(cold):
    inverted = InvertedIndex(4, "IP")
    inverted.add(sp.csr_array(np.eye(4, dtype=np.float32)))
    inverted.search(sp.csr_array(np.eye(4, dtype=np.float32)), 2)
    codes = CodeIndex(1, "IP")
    codes.add(np.zeros((3, 1), np.uint8), np.ones((3, 1), np.float32))
    codes.search(np.zeros((1, 1, 256), np.float32), np.ones(1, np.float32), 2)
    assert not [record for record in cold.records if record.name == "alula.kernels.warm_up"]


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed: pip install 'alula[fast]'")
@pytest.mark.parametrize("index", [InvertedIndex(4, "IP"), CodeIndex(1, "IP")], ids=["inverted", "codes"])
def test_a_new_local_index_warms_up_once(cold, index):
    for _ in range(2):
        _Local(index)
    logged = [record.getMessage() for record in cold.records if record.name == "alula.kernels.warm_up"]
    assert len(logged) == 2
    assert "about 15 s" in logged[0]
    assert logged[1].startswith("Loaded the compiled loops in ")
