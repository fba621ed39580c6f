"""Progress of long calls: the callback that they take, and the bar that shows it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_SECONDS = 30.0
NARROW = 100  # columns; a narrower terminal has a shorter bar and no elapsed time
_TIME = 8  # characters of a time and a space
Figures: TypeAlias = "Mapping[str, float | str]"
NO_FIGURES: Figures = MappingProxyType({})


class Progress(Protocol):
    """Receives the progress of a stage; what it raises ends the work."""

    def __call__(self, stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES, /) -> None:
        """Receive one report.

        Args:
            stage: The stage in a word or two.
            done: Rows, bytes or steps done.
            total: All of them; None if unknown.
            figures: Further figures by name.
        """


def silent(stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES) -> None:
    """A `Progress` that shows nothing."""


@contextmanager
def progress_bar(*, quiet: bool = False, in_bytes: bool = False, one_line: bool = False) -> Iterator[Progress]:
    """A bar per stage on standard error, where that is a terminal.

    Elsewhere a line every `LINE_SECONDS`.

    Args:
        quiet: Show nothing.
        in_bytes: True if bytes are counted.
        one_line: Show the present stage alone, and remove it at the end.
    """
    from rich.console import Console  # noqa: PLC0415 - only where something is shown
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    screen = Console(stderr=True)
    if quiet or not screen.is_terminal:
        yield silent if quiet else _Lines(in_bytes=in_bytes)
        return
    narrow = screen.width < NARROW
    bar = Bar(
        TextColumn("{task.description:>9}", markup=False),
        BarColumn(bar_width=10 if narrow else 20),
        TextColumn("{task.fields[count]}", markup=False),
        *(() if narrow else (TimeElapsedColumn(),)),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=screen,
        transient=one_line,
    )
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES) -> None:
        if one_line and stage not in tasks:
            for task in tasks.values():
                bar.remove_task(task)
            tasks.clear()
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total, count="", figures="")
        count = count_text(done, total, in_bytes=in_bytes)
        # rich would cut all columns alike
        room = screen.width - max(9, len(stage)) - (10 if narrow else 20 + _TIME) - len(count) - _TIME - 4
        bar.update(tasks[stage], completed=done, total=total, count=count, figures=figures_text(figures, most=room))

    with bar:
        yield show


class _Lines:
    """Progress as lines on standard error, for logs and pipes.

    Args:
        in_bytes: True if bytes are counted.
    """

    def __init__(self, *, in_bytes: bool) -> None:
        self._in_bytes = in_bytes
        self._stage, self._began, self._first = "", 0.0, 0
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES, /) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._first = stage, now, done
        if now - self._last < LINE_SECONDS:
            return
        self._last = now
        left = ""
        if total and done > self._first:
            seconds = (total - done) * (now - self._began) / (done - self._first)
            left = f"{timedelta(seconds=round(seconds))} left"
        parts = (stage, count_text(done, total, in_bytes=self._in_bytes), left, figures_text(figures))
        sys.stderr.write("  ".join(filter(None, parts)) + "\n")
        sys.stderr.flush()


def count_text(done: int, total: int | None, *, in_bytes: bool = False) -> str:
    """Counts as ``1,024/4,096`` or ``1.0/4.1 MB``; "" while nothing is counted."""
    if not done and total is None:
        return ""
    numbers = [done] if total is None else [done, total]
    if in_bytes:
        return "/".join(f"{number / 1e6:.1f}" for number in numbers) + " MB"
    return "/".join(f"{number:,}" for number in numbers)


def figures_text(figures: Figures, *, most: float = math.inf) -> str:
    """The first figures that fit into `most` characters, floats with three digits."""
    texts = [f"{name} {_number(value)}" for name, value in figures.items()]
    while texts and len("  ".join(texts)) > most:
        texts.pop()
    return "  ".join(texts)


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
