"""Errors for missing packages of an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alula.errors import AlulaError


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Turn the import error of a missing package into a sentence.

    Args:
        what: Subject of the sentence.
        extra: The extra of Alula that brings it.

    Raises:
        AlulaError: If a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("alula", "alula_exporters"):
            raise
        raise AlulaError(
            f"{what} needs the package '{package}', which is not installed; install it with: "
            f"pip install 'alula[{extra}]'"
        ) from None
