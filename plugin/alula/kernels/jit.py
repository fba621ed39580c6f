"""The decorator of compiled loops: numba, if the extra ``fast`` is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger(__name__)

try:
    HAS_NUMBA = importlib.util.find_spec("numba") is not None
except ValueError:  # sys.modules lists it as blocked
    HAS_NUMBA = False


def compiled(function: Function) -> Function:
    """Compile a function on its first call, to run without the interpreter's lock.

    The machine code is cached beside the package, or in the user's cache folder if the package is read-only
    (``NUMBA_CACHE_DIR`` names another), so that the next process only loads it. Sums and products are evaluated in the
    order of the source, so results are equal on all processors.
    """
    import numba  # noqa: PLC0415 (optional)

    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no writable folder: every process compiles for itself
        log.debug("The compiled loops cannot be cached on disk.")
    return cast(Function, dispatcher)
