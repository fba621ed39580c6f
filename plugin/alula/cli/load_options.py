"""Options of the commands that write rows: the journal, rows that cannot be written, what is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alula.errors import UsageError
from alula.ingest.journal import Journal
from alula.ingest.load import PATIENCE

DEAD_LETTERS_EXIT = 3
Command = Callable[..., Any]


def journal_options(command: Command) -> Command:
    """Add ``--journal``, ``--resume`` and ``--restart``; `open_journal` takes what they give."""
    return _add(
        command,
        (
            click.option(
                "--journal",
                "journal_path",
                type=click.Path(path_type=Path, dir_okay=False),
                help="The file that remembers what is loaded; alula-NAME.journal in this folder by default.",
            ),
            click.option(
                "--resume", is_flag=True, help="Go on with the load that the journal tells of, if there is one."
            ),
            click.option("--restart", is_flag=True, help="Forget the load that the journal tells of, and begin again."),
        ),
    )


def trouble_options(command: Command) -> Command:
    """Add what to do with rows that cannot be written, and with a server that does not answer."""
    return _add(
        command,
        (
            click.option(
                "--max-errors",
                type=click.IntRange(min=0),
                default=100,
                show_default=True,
                help="Stop when more rows than this cannot be loaded. 0: check every row before the first is written.",
            ),
            click.option(
                "--dead-letters",
                type=click.Path(path_type=Path, dir_okay=False),
                help="The Parquet file for rows that cannot be loaded; alula-NAME.dead.parquet by default.",
            ),
            click.option(
                "--patience",
                type=click.FloatRange(min=0),
                default=PATIENCE,
                show_default=True,
                help="Seconds to keep trying while Milvus does not answer or asks for less.",
            ),
        ),
    )


def output_options(command: Command) -> Command:
    """Add ``--quiet`` and ``--json-logs``."""
    return _add(
        command,
        (
            click.option("--quiet", is_flag=True, help="Show nothing but errors."),
            click.option("--json-logs", is_flag=True, help="Progress and result as lines of JSON."),
        ),
    )


def _add(command: Command, options: tuple[Command, ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def open_journal(path: Path, *, resume: bool, restart: bool) -> Journal:
    """The journal of a command, new or taken up again.

    Raises:
        UsageError: If it tells of something unfinished and nobody said what to do about it.
    """
    if resume and restart:
        raise UsageError("--resume and --restart are opposites; give one of them.")
    there = path.exists()
    journal = Journal(path)
    job = journal.job
    if there and job is not None and not (resume or restart):
        done, source = journal.read_rows, job["source"]
        journal.close()
        raise UsageError(
            f"The journal {path} tells of an unfinished load of {source} ({done:,} rows done): add --resume to go on "
            "with it, or --restart to forget it."
        )
    if restart and there:
        journal.remove()
        journal = Journal(path)
    return journal
