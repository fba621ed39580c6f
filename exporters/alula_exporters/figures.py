"""Figures of a training summary: numbers, and costs away from the requested ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

TOLERANCE = 0.1  # share of a requested cost that a training may be off without a note

_COSTS = (("FLOPs", "flops_requested", "flops_achieved"), ("Mean non-zeros", "nnz_requested", "nnz_mean"))


def is_number(value: Any) -> TypeGuard[float]:
    """True if a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def compared(reached: float, requested: float) -> str:
    """A cost's request, and the share that it is off, for a table of figures."""
    off = reached / requested - 1
    return f"asked for {requested:.3g}: {off:+.1%}{', missed' if abs(off) > TOLERANCE else ''}"


def missed_costs(training: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each cost more than `TOLERANCE` off the requested one.

    Args:
        training: The training summary of `alula.encoders.EncoderInfo`.
    """
    for name, *keys in _COSTS:
        requested, reached = (training.get(key) for key in keys)
        if not is_number(requested) or not is_number(reached) or requested <= 0:
            continue
        off = reached / requested - 1
        if abs(off) > TOLERANCE:
            remedy = "train for more steps" if off > 0 else "more steps may find more at the cost that is left"
            yield f"{name} are {reached:.3g}, {off:+.0%} off the {requested:.3g} that were asked for; {remedy}."
