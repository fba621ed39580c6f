"""Compile all loops of in-process searches before the first search."""

from __future__ import annotations

import logging
import time
from functools import cache

import numpy as np
import scipy.sparse as sp

from alula.kernels.code_index.index import CodeIndex
from alula.kernels.inverted_index.index import InvertedIndex
from alula.kernels.jit import HAS_NUMBA
from alula.kernels.linear import LinearQueries

log = logging.getLogger(__name__)


@cache
def warm_up() -> float:
    """Compile the loops of in-process searches, or load them from the cache, once.

    Creating or opening a `LocalIndex` calls it, so `Replica` and `alula.lite` need not; a search never does. An
    `InvertedIndex` or `CodeIndex` used directly compiles each loop when it first runs, unless this was called before.
    It takes about 15 s once after an installation or update, and about a second in later processes, and logs the time
    (INFO, ``alula.kernels.warm_up``).

    Returns:
        The seconds it took; 0 without numba.
    """
    if not HAS_NUMBA:
        return 0.0
    log.info("Loading the compiled loops of searches in this process; the first time this compiles them, about 15 s.")
    started = time.perf_counter()
    compile_all()
    seconds = time.perf_counter() - started
    log.info("Loaded the compiled loops in %.1f s.", seconds)
    return seconds


def compile_all() -> None:
    """Run every loop once on a few rows, so that it is compiled."""
    rows = sp.csr_array(np.tri(12, 16, dtype=np.float32))
    vectors = np.tri(12, 16, dtype=np.float32)
    index = InvertedIndex(16, "L2", 16)
    index.add(rows, vectors)
    weight = vectors.repeat(16, 1).reshape(-1, 16)
    LinearQueries(weight, np.zeros(192, np.float32), nnz=2, floor=1, scale=None).encode(vectors[0])
    for rerank in (None, 0):
        index.search(rows, 2, vectors=vectors, candidates=3, rerank=rerank, valid=index.alive)
    codes = CodeIndex(1, "COSINE")
    codes.add(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.float32))
    codes.search(np.zeros((1, 1, 256), np.float32), np.ones(1, np.float32), 1)
