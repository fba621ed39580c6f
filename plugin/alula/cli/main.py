"""The command group, which turns errors into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from alula.cli.wording import as_options, commands_of
from alula.errors import AlulaError
from alula.tracing import traced_command

GROUP = "alula.commands"
# imported when called, so that 'alula --help' does not wait for onnxruntime and pymilvus
COMMANDS = {
    "recommend": "Recommend an index type for vectors, Milvus's own included, before any encoder exists.",
    "create": "Create a collection with an index type.",
    "load": "Load rows from files, URLs or another collection.",
    "migrate": "Move an existing collection to an index type or a newer encoder, while it serves.",
    "search": "Search a collection.",
    "describe": "Show the index type, encoder and settings of a collection.",
    "evaluate": "Measure recall, latency and memory of a collection, or of index types on vectors.",
    "tune": "Find the fastest search options that reach a recall, and make them the defaults.",
    "gateway": "Serve Milvus's protocol in front of a Milvus server, with the index types added.",
    "repair": "Create the indexes that a collection has lost.",
    "drop": "Drop a collection.",
    "encoders": "Keep encoder files in the database: push, pull, list, remove.",
    "inspect": "Show the contents of an encoder file.",
    "index-types": "List the index types, and which of them a server can hold.",
    "doctor": "Show what a server can do for Alula, and why not.",
}


class _Commands(click.Group):
    """Alula's own commands and the entry points ``alula.commands`` of other packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*COMMANDS, *sorted(point.name for point in entry_points(group=GROUP))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"alula.cli.{cmd_name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        for point in entry_points(group=GROUP):
            if point.name == cmd_name:
                return _load(point)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            similar = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not similar:
                raise
            raise click.UsageError(f"{error.message} Did you mean {similar[0]!r}?", error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(COMMANDS.items())
        for name in self.list_commands(ctx)[len(COMMANDS) :]:
            command = self.get_command(ctx, name)
            rows.append((name, command.get_short_help_str(90) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _load(point: EntryPoint) -> click.Command:
    """The command of another package, or one that raises why it cannot be loaded."""
    try:
        loaded: click.Command = point.load()
    except Exception as error:  # modules of other packages may fail in any way
        reason = f"The command {point.name!r} cannot be loaded: {error}. Reinstall or remove its package."

        def fail(**_: object) -> None:
            raise AlulaError(reason)

        return click.Command(
            point.name, callback=fail, short_help=f"(cannot be loaded: {error})", add_help_option=False
        )
    return loaded


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ALULA"})
@click.version_option(package_name="alula", prog_name="alula")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Learned sparse and binary-code index types for Milvus.

    \b
    0. alula recommend which index type your vectors need, Milvus's own included
    1. alula train     learn an encoder from your vectors (one ONNX file)
    2. alula create    a collection with index type FLOPS_SPARSE or DRQ
    3. alula load      your vectors, encoded on the way
    4. alula search    with your vectors; Alula encodes and re-ranks

    Options of all commands can be set in the environment: ALULA_URI, ALULA_ENCODER, ALULA_TOKEN, ...
    """
    del debug


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit.

    The code is 0, 1 for a failure, 2 for wrong usage, 130 when interrupted.
    """
    whole_process = args is None
    args = sys.argv[1:] if args is None else args
    debug = "--debug" in args
    # --debug works in any place, as people append it to the call that failed
    args = [arg for arg in args if arg != "--debug"]
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines on stderr say less than our sentence
    try:
        with traced_command(lambda: " ".join(["alula", *(str(one.name) for one in commands_of(args, cli)[1:])])):
            code: Any = cli.main(args, prog_name="alula", standalone_mode=False)
        if sys.stdout:  # None when it is closed
            sys.stdout.flush()  # write errors are raised here instead of at exit
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        if whole_process:
            # Python would wait forever for a thread of pymilvus that reconnects
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            os._exit(130)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, so no message can reach it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        text, code = _explain(error, commands_of(args, cli)[-1])
        click.echo(f"Error: {_one_line(text)}", err=True)
        sys.exit(code)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception, command: click.Command) -> tuple[str, int]:
    """The message for a person, and the exit code."""
    if isinstance(error, AlulaError):
        return as_options(str(error), command), error.exit_code
    if isinstance(error, click.NoSuchOption):
        old = {spelling for parameter in command.params for spelling in getattr(parameter, "old", ())}
        shown = [name for name in error.possibilities or () if name not in old]
        error = click.NoSuchOption(error.option_name, possibilities=shown, ctx=error.ctx)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" See '{context.command_path} --help'." if context else ""
        return f"{error.format_message()}{hint}", error.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'The output'} cannot be written: no space left on the device.", 1
    # unexpected: people get a sentence, and we get a report
    text = (str(error).splitlines() or ["no message"])[0]
    return f"unexpected {type(error).__name__}: {text}. Run it again with --debug and report what it shows.", 1


def _one_line(text: str) -> str:
    """Escape line breaks and control characters, which a terminal would obey."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
