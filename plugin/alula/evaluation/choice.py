"""Choose an index type among measured ones: the rule of ``alula recommend``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alula.evaluation.measure import Point
from alula.evaluation.settings import show_settings
from alula.index_types import RowCost

MORE_MEMORY = 1.5  # a faster type may take this many times the least memory
LESS_TIME = 0.5  # if it takes at most this share of the time
_ALIKE = 0.2  # median times that differ by less are not distinguished in words


@dataclass(frozen=True)
class Contender:
    """One index type, measured on a sample.

    Args:
        name: The index type, with its storage and encoder where it has them.
        points: All measured settings.
        chosen: The fastest of them that reaches the target; None if no one does.
        p50: Median milliseconds of `chosen`, or of `best` without one.
        p50_at_rows: The same for all rows, of a type that compares every row; else None, as it is not known.
        sizes: Bytes per row, at the number of rows that the recommendation is for.
        build_seconds: Seconds for writing, building and loading the sample.
        build: Build parameters.
        encoder: The encoder file; "" for Milvus's index types.
        notes: Remarks on the figures.
    """

    name: str
    points: Sequence[Point]
    chosen: Point | None
    p50: float
    sizes: RowCost
    build_seconds: float
    p50_at_rows: float | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    encoder: str = ""
    notes: Sequence[str] = ()

    @property
    def memory(self) -> float:
        """Bytes of a row in memory."""
        return self.sizes.memory_bytes

    @property
    def best(self) -> Point:
        """The fastest setting that reaches the target, or the one with the best recall."""
        return self.chosen or max(self.points, key=lambda point: point.recall.value)

    @property
    def time(self) -> float:
        """Milliseconds to compare by."""
        return self.p50 if self.p50_at_rows is None else self.p50_at_rows


def choose(contenders: Sequence[Contender]) -> Contender | None:
    """Choose by memory, then by time; None if no one reaches the target.

    The type with the least memory is taken, unless another one with at most `MORE_MEMORY` times as much takes at most
    `LESS_TIME` of its time; of several such ones the fastest.
    """
    good = [one for one in contenders if one.chosen]
    if not good:
        return None
    least = min(good, key=lambda one: (one.memory, one.time))
    near = [one for one in good if one.memory <= MORE_MEMORY * least.memory]
    fastest = min(near, key=lambda one: one.time)
    return fastest if fastest.time <= LESS_TIME * least.time else least


def reason(taken: Contender | None, contenders: Sequence[Contender], *, target: float, k: int) -> str:
    """The choice in one or two sentences."""
    if taken is None:
        best = max(contenders, key=lambda one: one.best.recall.value)
        return (
            f"No index type reached recall@{k} {target:g} with 95 % confidence: the best, {best.name}, found "
            f"{best.best.recall} with {show_settings(best.best.settings)}."
        )
    good = [one for one in contenders if one.chosen]
    least = min(good, key=lambda one: (one.memory, one.time))
    own = "" if taken.encoder else ", Milvus's own"
    search = f" with {show_settings(taken.best.settings)}" if taken.best.settings else ""
    what = (
        f"Take {taken.name}{own}: recall@{k} {taken.best.recall.value:.3f} at {taken.p50:.1f} ms{search}, "
        f"{taken.memory:,.0f} bytes of memory per row"
    )
    if len(good) == 1:
        return f"{what}. No other type reached {target:g}."
    if taken is not least:
        more, less = taken.memory / least.memory, least.time / taken.time
        return (
            f"{what}. {least.name} takes the least ({least.memory:,.0f}), and for {more:.1f} times its "
            f"memory {taken.name} is {less:.1f} times as fast."
        )
    fastest = min(good, key=lambda one: one.time)
    more, less = fastest.memory / taken.memory, taken.time / fastest.time
    if less < 1 + _ALIKE:
        return f"{what}: the least of those that reach {target:g}."
    return (
        f"{what}: the least of those that reach {target:g}. The fastest, {fastest.name}, is {less:.1f} times as fast, "
        f"for {more:.1f} times the memory."
    )
