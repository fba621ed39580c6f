"""``alula encoders``: the encoder files in a database."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from alula import encoder_store
from alula.cli.options import EncoderFile, confirmed, connection_options, console, format_option, show_json
from alula.encoder_store import Entry
from alula.encoders import ENCODERS
from alula.errors import AlulaError
from alula.milvus import Server
from alula.progress import progress_bar


@click.group("encoders")
def command() -> None:
    """Keep encoder files in the database, for all users of its collections.

    \b
    alula encoders push words-drq.onnx --uri http://milvus:19530
    alula encoders list --uri http://milvus:19530
    alula encoders pull words-drq --uri http://milvus:19530

    They are in a small collection, _alula_encoders, of the database that --database names.
    """


@command.command("push")
@click.argument("file", type=EncoderFile())
@connection_options(must_exist=False)
@click.option("--name", help="Its name in the database; by default the file name without the ending.")
@click.option(
    "--replace",
    is_flag=True,
    help="Take the name from another encoder; rewrite damaged parts.",
)
def _push(file: Path, server: Server, name: str | None, replace: bool) -> None:
    """Push the encoder FILE (.onnx) into the database.

    The file is checked first and read back after. Repeat an interrupted push; until it is complete, no client sees
    the encoder.
    """
    with progress_bar(in_bytes=True) as progress:
        done = encoder_store.push(server, file, name=name, replace=replace, progress=progress)
    pushed = f"{done.name} ({done.entry.sha256[:16]}, {_size(done.entry)})"
    if done.before == done.entry.sha256:
        click.echo(f"Repaired {pushed}." if done.written else f"{pushed} is there already; nothing was written.")
    else:
        click.echo(f"Pushed {pushed}." if done.written else f"Named {pushed}; the file was there already.")
    if done.before not in (None, done.entry.sha256):
        old = str(done.before)[:16]
        click.echo(
            f"The encoder that had this name before, {old}, stays for the collections created with it; 'alula encoders "
            f"remove {old}' removes it."
        )


@command.command("pull")
@click.argument("name")
@connection_options()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to write; by default NAME.onnx, here."
)
@click.option("--overwrite", is_flag=True, help="Replace another file.")
def _pull(name: str, server: Server, out: Path | None, overwrite: bool) -> None:
    """Write the encoder NAME to a file.

    NAME may be the first eight or more digits of its sha256.
    """
    with progress_bar(in_bytes=True) as progress:
        entry, path = encoder_store.pull(server, name, out, overwrite=overwrite, progress=progress)
    click.echo(f"{path} is the encoder {entry.sha256[:16]} ({_size(entry)}).")


@command.command("list")
@connection_options()
@format_option
def _list(server: Server, output_format: str) -> None:
    """List the encoders in the database."""
    known, bad = encoder_store.entries_and_bad_rows(encoder_store.querying(server))
    if bad:
        click.echo(f"Rows that cannot be read, and are skipped: {len(bad)}; see 'alula encoders repair'.", err=True)
    if output_format == "json":
        for entry in known:
            show_json({**asdict(entry), "pushed": _when(entry).isoformat()})
        return
    if not known:
        click.echo(f"There are no encoders at {server.uri}; push one with 'alula encoders push FILE'.")
        return
    table = Table()
    for heading in ("name", "sha256", "kind", "takes", "gives", "metric", "size", "pushed (UTC)"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "size" else "left")
    for entry in known:
        takes = f"{entry.input}, {entry.input_dim}-d"
        gives = f"{entry.output_dim:,} {ENCODERS[entry.kind].output_unit}"
        row = ["\n".join(entry.names) or "(replaced)", entry.sha256[:16], entry.kind, takes, gives, entry.metric]
        table.add_row(*map(Text, [*row, _size(entry), f"{_when(entry):%Y-%m-%d %H:%M}"]))
    console().print(table)


@command.command("remove")
@click.argument("name")
@connection_options()
@click.option("--force", is_flag=True, help="Remove it although collections were created with it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def _remove(name: str, server: Server, force: bool, yes: bool) -> None:
    """Remove the encoder NAME, unless a collection was created with it.

    NAME may be the first eight or more digits of a sha256: then all names of that encoder are removed with it.
    """
    entry = encoder_store.find(encoder_store.querying(server), name)
    question = f"Remove the encoder {name} ({entry.sha256[:16]}) at {server.uri}? This cannot be undone."
    if not yes and not confirmed(question, "remove it"):
        raise AlulaError(f"{name} was not removed.")
    done = encoder_store.remove(server, name, force=force)
    rest = ", ".join(other for other in done.entry.names if other not in done.names)
    click.echo(f"Removed {name}." if done.gone else f"Removed the name {name}; the encoder is still there as {rest}.")


@command.command("repair")
@connection_options()
def _repair(server: Server) -> None:
    """Remove rows that cannot be read, and check every encoder.

    A row that is no description of an encoder is skipped by all readers. Rows that a newer Alula wrote stay. An encoder
    that is damaged is named: push its file again with --replace.
    """
    with progress_bar(in_bytes=True) as progress:
        done = encoder_store.repair(server, progress=progress)
    for row in done.removed:
        click.echo(f"Removed the row {row}.")
    for row in done.kept:
        click.echo(f"Kept the row {row}.")
    for entry in done.damaged:
        click.echo(f"{entry} is damaged; push its file again with 'alula encoders push FILE --replace'.")
    click.echo(f"Encoders that are complete: {len(done.whole)}.")
    if done.damaged:
        raise AlulaError(f"Damaged encoders: {len(done.damaged)}.")


def _size(entry: Entry) -> str:
    return f"{entry.size / 1e6:.1f} MB"


def _when(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.pushed, timezone.utc)
