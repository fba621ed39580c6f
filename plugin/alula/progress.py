"""Progress of long calls: the callback that they take, and the bar that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from rich.progress import TaskID

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
    """A bar per stage on standard error, or nothing where that is no terminal.

    Args:
        quiet: Show nothing.
        in_bytes: True if bytes are counted.
        one_line: Show the present stage alone, and remove it at the end.
    """
    from rich.console import Console  # noqa: PLC0415 - only for a terminal
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    screen = Console(stderr=True)
    if quiet or not screen.is_terminal:
        yield silent
        return
    bar = Bar(
        TextColumn("{task.description:>9}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
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
        bar.update(
            tasks[stage],
            completed=done,
            total=total,
            count=count_text(done, total, in_bytes=in_bytes),
            figures=figures_text(figures),
        )

    with bar:
        yield show


def count_text(done: int, total: int | None, *, in_bytes: bool = False) -> str:
    """Counts as ``1,024/4,096`` or ``1.0/4.1 MB``; "" while nothing is counted."""
    if not done and total is None:
        return ""
    numbers = [done] if total is None else [done, total]
    if in_bytes:
        return "/".join(f"{number / 1e6:.1f}" for number in numbers) + " MB"
    return "/".join(f"{number:,}" for number in numbers)


def figures_text(figures: Figures) -> str:
    """Figures on one line, floats with three digits."""
    return "  ".join(f"{name} {_number(value)}" for name, value in figures.items())


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
