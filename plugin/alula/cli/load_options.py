"""Options of commands that write rows: journal, rejected rows, retries, output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from alula.cli.options import RenamedOption
from alula.errors import AlulaError, UsageError
from alula.ingest.journal import Journal
from alula.ingest.load import RETRY_TIMEOUT

DEAD_LETTERS_EXIT = 3
Command = Callable[..., Any]


def journal_options(command: Command) -> Command:
    """Add ``--journal``, ``--resume``, ``--restart``: arguments of `open_journal`."""
    return _add(
        command,
        (
            click.option(
                "--journal",
                "journal_path",
                type=click.Path(path_type=Path, dir_okay=False),
                help="The file that records the loaded rows; alula-NAME.journal in this folder by default.",
            ),
            click.option("--resume", is_flag=True, help="Resume the load recorded in the journal, if any."),
            click.option("--restart", is_flag=True, help="Forget the load recorded in the journal, and begin again."),
        ),
    )


def trouble_options(command: Command) -> Command:
    """Add the options for rejected rows and for a server that does not answer."""
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
                help="The Parquet file for rows that cannot be loaded; alula-NAME.dead.parquet by default, or the next "
                "free name if it is there from another load.",
            ),
            click.option(
                "--retry-timeout",
                cls=RenamedOption,
                old=("--patience",),
                type=click.FloatRange(min=0),
                default=RETRY_TIMEOUT,
                show_default=True,
                help="Seconds to keep trying while Milvus does not answer or limits the rate.",
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
    """The journal of a command, new or resumed.

    Raises:
        UsageError: If it records an unfinished load, and neither `resume` nor `restart` is given.
    """
    if resume and restart:
        raise UsageError("--resume and --restart are opposites; give one of them.")
    there = path.exists()
    journal = Journal(path)
    plan = journal.plan
    if there and plan is not None and not (resume or restart):
        done, source = journal.read_rows, plan["source"]
        journal.close()
        raise UsageError(
            f"The journal {path} records an unfinished load of {source} ({done:,} rows done): add --resume to continue "
            "it, or --restart to forget it."
        )
    if restart and there:
        journal.remove()
        journal = Journal(path)
    return journal


@contextmanager
def resumable(journal: Journal) -> Iterator[None]:
    """Leave the journal after an error, with the option that resumes the load."""
    try:
        yield
    except (AlulaError, KeyboardInterrupt) as error:
        written = not journal.untouched
        journal.leave()
        if written and isinstance(error, AlulaError) and not isinstance(error, UsageError):
            raise type(error)(f"{error} Give the same command with --resume to continue.") from error
        raise
    except BaseException:
        journal.leave()
        raise
