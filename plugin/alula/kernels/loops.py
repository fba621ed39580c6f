"""Choose compiled loops if numba is installed, else numpy's, with equal results."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

from alula.kernels.jit import HAS_NUMBA

log = logging.getLogger(__name__)


@cache
def sparse_loops() -> ModuleType:
    """The module `loops_numba` or `loops_numpy` of `alula.kernels.inverted_index`."""
    if not HAS_NUMBA:
        from alula.kernels.inverted_index import loops_numpy  # noqa: PLC0415

        log.info("numba is not installed, so searches in this process are slow: pip install 'alula[fast]'.")
        return loops_numpy
    from alula.kernels.inverted_index import loops_numba  # noqa: PLC0415 (needs numba)

    return loops_numba


@cache
def code_loops() -> ModuleType:
    """The module `loops_numba` or `loops_numpy` of `alula.kernels.code_index`."""
    if not HAS_NUMBA:
        from alula.kernels.code_index import loops_numpy  # noqa: PLC0415

        return loops_numpy
    from alula.kernels.code_index import loops_numba  # noqa: PLC0415 (needs numba)

    return loops_numba
