"""What ``alula evaluate`` and ``alula tune`` share: their questions, and how progress is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alula.evaluation.row_source import Progress as Show
from alula.evaluation.row_source import silent

Command = Callable[..., Any]
_FILE = click.Path(path_type=Path, dir_okay=False)


def question_options(command: Command) -> Command:
    """Add what queries there are, and what is known of their true neighbours."""
    for option in reversed(
        (
            click.option(
                "--queries",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help="Queries: vectors, or what the encoder takes. By default rows are drawn.",
            ),
            click.option("--query-column", help="With --queries: the column that holds them."),
            click.option(
                "--vectors",
                help="The rows' vectors as files (a path, glob or URL), to find the true neighbours with.",
            ),
            click.option("--vector-column", help="With --vectors: the column that holds them."),
            click.option(
                "--truth",
                type=_FILE,
                help="True neighbours: a .npy array (queries, k) of keys. A .npz file is written where there is none, "
                "and read the next time.",
            ),
            click.option(
                "--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Neighbours per query."
            ),
            click.option("--seed", default=0, show_default=True, help="Of what is drawn at random."),
            click.option("--quiet", is_flag=True, help="Show no progress."),
        )
    ):
        command = option(command)
    return command


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Show]:
    """Something to tell the progress to: a line with a bar on standard error, where that is a terminal."""
    screen = Console(stderr=True)
    if quiet or not screen.is_terminal:
        yield silent
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show
