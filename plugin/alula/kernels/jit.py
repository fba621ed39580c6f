"""Loops compiled by numba where that is installed (the extra ``fast``), numpy otherwise, with the same results."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger(__name__)

try:
    HAS_NUMBA = importlib.util.find_spec("numba") is not None
except ValueError:  # it stands in the list of modules as one that must not be imported
    HAS_NUMBA = False


def compiled(function: Function) -> Function:
    """A function compiled on its first call; it runs without the interpreter's lock.

    The machine code is kept beside the package, or in the user's cache folder where that cannot be written
    (``NUMBA_CACHE_DIR`` names another), so that the next process only loads it. Sums and products are those of the
    source, in its order: no processor gives other results.
    """
    import numba  # noqa: PLC0415 (optional)

    made = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        made.enable_caching()
    except RuntimeError:  # no folder can be written, so every process compiles for itself
        log.debug("The compiled loops cannot be kept on disk.")
    return cast(Function, made)


@cache
def sparse_loops() -> ModuleType:
    """The module with the loops over sparse rows: `sparse_numba`, or `sparse_numpy` where there is no numba."""
    if not HAS_NUMBA:
        from alula.kernels.inverted_index import loops_numpy as sparse_numpy  # noqa: PLC0415

        log.info("numba is not installed, so searches in this process are slow: pip install 'alula[fast]'.")
        return sparse_numpy
    from alula.kernels.inverted_index import loops_numba as sparse_numba  # noqa: PLC0415 (needs numba)

    return sparse_numba


@cache
def code_loops() -> ModuleType:
    """The module with the scan over codes: `codes_numba`, or `codes_numpy` where there is no numba."""
    if not HAS_NUMBA:
        from alula.kernels.code_index import loops_numpy as codes_numpy  # noqa: PLC0415

        return codes_numpy
    from alula.kernels.code_index import loops_numba as codes_numba  # noqa: PLC0415 (needs numba)

    return codes_numba


_seconds: list[float] = []


def warm_up() -> float:
    """Compile what searches in this process run, or load what was compiled before; the seconds that took.

    The first search does it where nobody did before; it takes some 15 s once after an installation or update, and
    under a second in later processes. One line of logging (INFO, ``alula.kernels.jit``) says which it was.
    """
    if _seconds or not HAS_NUMBA:
        return sum(_seconds)
    from alula.kernels.code_index import index as code_index  # noqa: PLC0415 (they import this)
    from alula.kernels.inverted_index import index as inverted  # noqa: PLC0415 (they import this)

    _seconds.append(0.0)  # what is tried warms up too
    log.info("Loading the compiled loops of searches in this process; the first time they are compiled, in some 15 s.")
    started = time.perf_counter()
    inverted.try_everything()
    code_index.try_everything()
    seconds = time.perf_counter() - started
    log.info("The compiled loops are there after %.1f s.", seconds)
    _seconds.append(seconds)
    return seconds
