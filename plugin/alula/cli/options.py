"""Options that several commands share."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alula.errors import ServerError, UsageError
from alula.index_types import VECTOR_TYPES, Option, index_types
from alula.milvus import Server, connect, is_local, milvus_errors

Command = Callable[..., Any]


def connection_options(*, must_exist: bool = True, required: bool = True) -> Callable[[Command], Command]:
    """Add the connection options; the command gets a connected ``server``.

    It is closed when the command returns.

    Args:
        must_exist: False to create a local database that does not exist, and to remove it again if the command leaves
            no collection in it; True to raise an error.
        required: False to make ``--uri`` optional; without it ``server`` is None.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, uri: str | None, **options: Any) -> Any:
            login = {name: options.pop(name) for name in ("user", "password", "token", "database")}
            rest = {name: options.pop(name) for name in ("ca_file", "server_name", "timeout")}
            if uri is None:
                return command(*args, server=None, **options)
            given: Any = {name: value or "" for name, value in login.items()}
            is_new = not must_exist and is_local(uri) and not Path(uri).exists()
            is_used = False
            try:
                with connect(uri, **given, **rest, must_exist=must_exist) as server:
                    try:
                        return command(*args, server=server, **options)
                    finally:
                        is_used = not is_new or _has_collections(server)
            finally:
                if is_new and not is_used:
                    Path(uri).unlink(missing_ok=True)

        for option in reversed(
            (
                click.option(
                    "--uri",
                    required=required,
                    envvar="ALULA_URI",
                    help="http://HOST:19530, https://HOST, or a local file ending in .db for embedded Milvus Lite.",
                ),
                click.option("--user", envvar="ALULA_USER", help="User name."),
                click.option("--password", envvar="ALULA_PASSWORD", help="Password; better set ALULA_PASSWORD."),
                click.option("--token", envvar="ALULA_TOKEN", help="API key, or user:password."),
                click.option("--database", envvar="ALULA_DATABASE", help="Database of the server."),
                click.option(
                    "--ca-file",
                    envvar="ALULA_CA_FILE",
                    type=click.Path(exists=True, dir_okay=False),
                    help="PEM file of the authority (CA) that signed the server's certificate.",
                ),
                click.option("--server-name", envvar="ALULA_SERVER_NAME", help="Name in the server's certificate."),
                click.option(
                    "--timeout",
                    envvar="ALULA_TIMEOUT",
                    type=click.FloatRange(min=0.1),
                    default=10.0,
                    show_default=True,
                    help="Seconds to wait for the server's first answer.",
                ),
            )
        ):
            run = option(run)
        return run

    return decorate


def _has_collections(server: Server) -> bool:
    try:
        with milvus_errors("list the collections"):
            return bool(server.client.list_collections())
    except ServerError:
        return False


class RenamedOption(click.Option):
    """An option whose old spellings still work, and are in no help.

    Args:
        old: The old spellings, with dashes; they name environment variables too.
    """

    def __init__(self, declarations: list[str], *, old: tuple[str, ...], **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.old = old
        self._shown = list(self.opts)
        self.opts += old

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help, with the present spelling alone."""
        every, self.opts = self.opts, self._shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value in the environment, by the present name or an old one."""
        names = (f"{ctx.auto_envvar_prefix}_{old.lstrip('-').replace('-', '_').upper()}" for old in self.old)
        found = super().resolve_envvar_value(ctx)
        return found or next(filter(None, map(os.environ.get, names)), None)


class OutputFile(click.Path):
    """A file to write at the end of a run; write access is checked at the start."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        path = Path(str(super().convert(value, param, ctx)))
        folder = path.parent
        if not folder.is_dir():
            self.fail(f"There is no folder {str(folder)!r} to write {path.name!r} into; create it first.", param, ctx)
        if not path.exists() and not os.access(folder, os.W_OK | os.X_OK):
            self.fail(f"The folder {str(folder)!r} is not writable; choose another.", param, ctx)
        return path


class EncoderFile(click.Path):
    """An existing encoder file, as a path; one at a URL is copied into a cache."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.Path`."""
        if isinstance(value, str) and "://" in value:
            from alula.encoders.remote import local_copy  # noqa: PLC0415 (help texts load no encoder)

            value = str(local_copy(value))
        return super().convert(value, param, ctx)


def encoder_options(*, required: bool = True) -> Callable[[Command], Command]:
    """Add ``--encoder``.

    Args:
        required: False to make it optional.
    """
    return click.option(
        "--encoder",
        required=required,
        envvar="ALULA_ENCODER",
        type=EncoderFile(),
        help="The encoder file (.onnx) that 'alula train' wrote: a path or a URL (hf://, s3://, https://).",
    )


encoder_option = encoder_options()

format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json: for scripts.",
)


vector_type_option = click.option(
    "--vector-type",
    type=click.Choice(list(VECTOR_TYPES)),
    default="FLOAT_VECTOR",
    show_default=True,
    help="The type of the field that keeps the vectors. FLOAT16_VECTOR: half the disk, scores exact to about 0.001; "
    "Milvus 2.4 or later.",
)


def index_type_options(which: Literal["create_options", "all_search_options"]) -> Callable[[Command], Command]:
    """Add an option for each parameter of the registered index types.

    The command gets the given ones as ``options``.
    """
    declared: dict[str, Option] = {}
    owners: dict[str, list[str]] = {}
    for name, index_type in index_types().items():
        for option in getattr(index_type, which):
            declared.setdefault(option.name, option)
            owners.setdefault(option.name, []).append(f"{name}: {option.default}" if option.default else name)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            options = {name: given.pop(name) for name in declared}
            options = {name: value for name, value in options.items() if value is not None}
            return command(*args, options=options, **given)

        for option in reversed(declared.values()):
            value_type = click.Choice(option.choices) if option.choices else option.value_type
            note = f"{option.help} [{', '.join(owners[option.name])}]"
            run = click.option(f"--{option.name.replace('_', '-')}", option.name, type=value_type, help=note)(run)
        return run

    return decorate


def show_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    text = json.dumps(value, ensure_ascii=False, default=_as_json)
    # JSON allows some control characters that a terminal obeys
    click.echo(re.sub(r"[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text))


def _as_json(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


def show_pairs(pairs: Mapping[str, Any], title: str | None = None) -> None:
    """Print names and values as two columns."""
    table = Table(show_header=False, box=None, title=title, title_justify="left", pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(Text(printable(name)), Text(printable(str(value))))
    console().print(table)


def printable(text: str) -> str:
    """A text from a file or a server, with control characters escaped."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def console() -> Console:
    """Standard output, as wide as the terminal or 120 columns in a pipe."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=120)


def confirmed(question: str, action: str) -> bool:
    """Ask a person on standard error, and return True for a yes.

    Args:
        question: The question.
        action: The action, in words that continue "Pass --yes to".

    Raises:
        UsageError: If standard input is not a terminal.
    """
    try:
        return click.confirm(question, err=True)
    except (click.Abort, RuntimeError) as error:  # input() raises RuntimeError when standard input is closed
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        click.echo(err=True)
        raise UsageError(f"Not a terminal, so nothing can be asked. Pass --yes to {action}.") from None
