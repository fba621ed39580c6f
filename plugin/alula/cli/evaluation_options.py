"""Options of ``alula evaluate`` and ``alula tune`` for queries and progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
_FILE = click.Path(path_type=Path, dir_okay=False)


def query_options(command: Command) -> Command:
    """Add the options of queries and their true neighbours."""
    for option in reversed(
        (
            click.option(
                "--queries",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help="File of queries: vectors, or the encoder's input. By default rows are drawn.",
            ),
            click.option("--query-column", help="With --queries: the column that contains them."),
            click.option(
                "--vectors",
                help="The rows' vectors as files (a path, glob or URL), to find the true neighbours with.",
            ),
            click.option("--vector-column", help="With --vectors: the column that contains them."),
            click.option(
                "--truth",
                type=_FILE,
                help="True neighbours: a .npy array (queries, k) of keys, or a .npz file, which is written if it "
                "does not exist, read the next time, and rejected after the rows changed.",
            ),
            click.option(
                "--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Neighbours per query."
            ),
            click.option("--seed", default=0, show_default=True, help="Seed of the random draw."),
            click.option("--quiet", is_flag=True, help="Show no progress."),
        )
    ):
        command = option(command)
    return command
