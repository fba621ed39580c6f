"""Options of the commands that measure recall: queries, rows, target and progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alula.cli.options import EncoderFile, OutputFile, RenamedOption
from alula.encoders import METRICS
from alula.errors import UsageError

Command = Callable[..., Any]
_FILE = click.Path(path_type=Path, dir_okay=False)

_QUERIES = (
    click.option(
        "--queries",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="File of queries: vectors, or the encoder's input. By default rows are drawn.",
    ),
    click.option("--query-column", help="With --queries: the column that contains them."),
)
_ROWS = (
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
)
_DRAW = (
    click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Neighbours per query."),
    click.option("--seed", default=0, show_default=True, help="Seed of the random draw."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
)


def query_options(command: Command) -> Command:
    """Add the options of queries and their true neighbours."""
    return _with(command, (*_QUERIES, *_ROWS, *_DRAW))


def sample_options(command: Command) -> Command:
    """Add the options of queries for a command that draws a sample of the rows."""
    column = click.option("--vector-column", help="The column of VECTORS that contains the vectors.")
    return _with(command, (column, *_QUERIES, *_DRAW))


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def encoders_option(note: str) -> Callable[[Command], Command]:
    """The repeatable option of encoder files.

    Args:
        note: Its help.
    """
    return click.option("--encoder", "encoders", multiple=True, envvar="ALULA_ENCODER", type=EncoderFile(), help=note)


def build_timeout_option(seconds: float) -> Callable[[Command], Command]:
    """The option of the time limit for building a temporary index, with its default."""
    return click.option(
        "--build-timeout",
        cls=RenamedOption,
        old=("--patience",),
        type=click.FloatRange(min=0),
        default=seconds,
        show_default=True,
        help="Seconds to wait for the build of a temporary index.",
    )


metric_option = click.option(
    "--metric", type=click.Choice(METRICS), help="Without an encoder: the metric; else it is the encoder's."
)
figures_option = click.option("--output", type=OutputFile(), help="Write all figures to this JSON file.")


def parse_target(text: str) -> float:
    """Read a target recall, ``recall=0.95``.

    Raises:
        UsageError: If it is no such text, or the number does not lie between 0 and 1.
    """
    what, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if what.strip() != "recall" or math.isnan(value):
        raise UsageError(f"{text!r} is not a target; give recall=NUMBER, e.g. --target recall=0.95.")
    if not 0 < value < 1:
        raise UsageError(f"The target recall is {value:g}, and must lie between 0 and 1, e.g. recall=0.95.")
    return value
