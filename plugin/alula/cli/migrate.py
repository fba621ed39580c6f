"""``alula migrate``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from alula.cli.load_options import DEAD_LETTERS_EXIT, journal_options, open_journal, output_options, trouble_options
from alula.cli.load_progress import json_line, load_progress
from alula.cli.options import connection_options, console, encoder_options, index_type_options
from alula.encoders import load_encoder
from alula.errors import UsageError
from alula.ingest.journal import Journal
from alula.migration.migrate import NEIGHBOURS, Migration, MigrationReport, roll_back
from alula.migration.source_collection import read_old
from alula.milvus import Server


@click.command("migrate")
@click.option("--from", "old", required=True, help="The collection to migrate: any with float vectors.")
@click.option("--to", "new", required=True, help="The collection to create.")
@click.option("--index-type", help="FLOPS_SPARSE, DRQ, or another one of 'alula index-types'.")
@encoder_options(required=False)
@connection_options()
@click.option("--swap-alias", "alias", help="The alias to point to the new collection at the end, in one step.")
@click.option("--rollback", is_flag=True, help="Only point --swap-alias back to --from.")
@click.option("--filter", "expression", default="", help="Migrate only rows that satisfy this, in Milvus's words.")
@click.option(
    "--changed-field",
    help="An integer field that grows with every change of any row (a time, a version): rows that change meanwhile are "
    "copied again.",
)
@click.option("--vector-field", help="The field with the vectors; by default the only one.")
@click.option("--leave-out", multiple=True, help="A field to migrate without; repeatable.")
@click.option("--drop-vectors", is_flag=True, help="Do not keep the vectors; see 'alula create'.")
@click.option(
    "--queries",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Rows whose vectors are searched for in both, to compare the recall. 0: no comparison.",
)
@click.option(
    "--min-recall",
    type=click.FloatRange(0, 1),
    help=f"Fail, before the alias is touched, when the new recall at {NEIGHBOURS} is less.",
)
@click.option(
    "--from-encoder",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The encoder of --from, where that is Alula's: its recall cannot be measured without.",
)
@journal_options
@trouble_options
@click.option(
    "--dry-run", "dry", is_flag=True, help="Show what becomes of every field, and how large it gets; write nothing."
)
@output_options
@index_type_options("create_options")
def command(
    *,
    old: str,
    new: str,
    index_type: str | None,
    encoder: Path | None,
    server: Server,
    alias: str | None,
    rollback: bool,
    expression: str,
    changed_field: str | None,
    vector_field: str | None,
    leave_out: tuple[str, ...],
    drop_vectors: bool,
    queries: int,
    min_recall: float | None,
    from_encoder: Path | None,
    journal_path: Path | None,
    resume: bool,
    restart: bool,
    max_errors: int,
    dead_letters: Path | None,
    patience: float,
    dry: bool,
    quiet: bool,
    json_logs: bool,
    options: Mapping[str, Any],
) -> None:
    """Move the collection --from to an index type of Alula's, or to a newer encoder, while it serves.

    Creates --to with the same key and scalar fields, copies the rows, catches up with rows that are added, deleted and
    (with --changed-field) changed meanwhile, compares the recall of both on vectors of their own, and points an alias
    to the new one. The old one stays as it is. To lose no write, let writers pause for the last round: give the same
    command with --resume then, and --swap-alias.

    \b
    alula migrate --from docs --to docs_v2 --index-type DRQ --encoder docs.onnx --uri http://localhost:19530 --dry-run
    alula migrate --from docs --to docs_v2 --index-type DRQ --encoder docs.onnx --uri http://localhost:19530 \\
        --changed-field updated_at --min-recall 0.95 --swap-alias docs_live
    alula migrate --from docs --to docs_v2 --uri http://localhost:19530 --swap-alias docs_live --rollback

    Exit codes: 0 all rows are migrated, 1 failed, 2 wrong usage, 3 all but rows that cannot be, 130 stopped.
    """
    if rollback:
        _roll_back(server, old, new, alias, quiet=quiet)
        return
    _check_usage(index_type, encoder, min_recall, queries)
    reading: dict[str, Any] = {"vector_field": vector_field, "leave_out": leave_out, "filter": expression}
    making: dict[str, Any] = {
        "encoder": load_encoder(encoder, threads=1),  # type: ignore[arg-type]
        "index_type": index_type,
        "options": options,
        "keep_vectors": not drop_vectors,
        "changed_field": changed_field,
        "alias": alias,
        "old_encoder": from_encoder,
        "go_on": resume or restart,
    }
    if dry:
        _show_plan(Migration(read_old(server, old, **reading), new, **making), json_logs=json_logs)
        return
    journal = open_journal(journal_path or Path(f"alula-{new}.journal"), resume=resume, restart=restart)
    try:
        migration = Migration(read_old(server, old, **reading), new, **making)
        if not (quiet or json_logs):
            _show_start(migration)
        with load_progress(quiet=quiet, json_logs=json_logs) as progress:
            report = migration.run(
                journal=journal,
                max_errors=max_errors,
                dead_letters=dead_letters or Path(f"alula-{new}.dead.parquet"),
                patience=patience,
                queries=queries,
                min_recall=min_recall,
                progress=progress,
            )
    except BaseException:
        journal.leave()
        raise
    if alias is None:
        journal.close()
    else:
        journal.remove()
    if json_logs:
        json_line("done", **_as_json(report))
    else:
        _show(report, migration, server, journal, quiet=quiet)
    if report.bad:
        click.get_current_context().exit(DEAD_LETTERS_EXIT)


def _check_usage(index_type: str | None, encoder: Path | None, min_recall: float | None, queries: int) -> None:
    if index_type is None or encoder is None:
        missing = "--index-type" if index_type is None else "--encoder"
        raise UsageError(f"{missing} is missing: a migration needs to know what to make; only --rollback does not.")
    if min_recall is not None and not queries:
        raise UsageError("--min-recall needs queries to measure the recall with; leave --queries 0 out.")


def _roll_back(server: Server, old: str, new: str, alias: str | None, *, quiet: bool) -> None:
    if alias is None:
        raise UsageError("--rollback points an alias back; name it with --swap-alias.")
    roll_back(server, old, new, alias)
    if not quiet:
        click.echo(f"{alias} points to {old} again. {new} is still there; 'alula drop {new}' drops it.")


def _show_start(migration: Migration) -> None:
    old = migration.old
    for note in old.notes:
        click.echo(note, err=True)
    left = [fate.name for fate in old.fates if fate.becomes == "left out"]
    if left:
        click.echo(f"Left out: {', '.join(left)}.", err=True)
    if migration.changed_field is None:
        click.echo(
            "Without --changed-field, rows that are changed in place while this runs keep their older values in "
            f"{migration.new.name}; rows that are added and deleted are seen.",
            err=True,
        )


def _show_plan(migration: Migration, *, json_logs: bool) -> None:
    old, sizes = migration.old, migration.sizes()
    if json_logs:
        json_line(
            "dry run",
            rows=old.rows,
            fields=[asdict(fate) for fate in old.fates],
            notes=old.notes,
            bytes={size.name: size.bytes_per_row * old.rows for size in sizes},
        )
        return
    fields = Table("field", "in " + old.name, "in " + migration.new.name, box=None, pad_edge=False)
    for fate in old.fates:
        fields.add_row(*map(Text, (fate.name, fate.kind, fate.becomes)))
    console().print(fields)
    click.echo()
    table = Table(box=None, pad_edge=False)
    for title in ("structure", "type", "bytes per row", f"MB for {old.rows:,} rows"):
        table.add_column(title, justify="left" if title in ("structure", "type") else "right")
    for size in sizes:
        known = (
            (f"{size.bytes_per_row:,}", f"{size.bytes_per_row * old.rows / 1e6:,.1f}")
            if size.bytes_per_row
            else ("as long as they are", "")
        )
        table.add_row(*map(Text, (size.name, size.data_type, *known)))
    console().print(table)
    click.echo()
    for note in old.notes:
        click.echo(note)
    click.echo(f"{old.rows:,} rows; nothing was written.")


def _show(report: MigrationReport, migration: Migration, server: Server, journal: Journal, *, quiet: bool) -> None:
    old, new, alias = migration.old.name, migration.new.name, migration.alias
    if report.bad:
        click.echo(f"{report.bad:,} rows could not be migrated: {report.reason}.", err=True)
    if not report.settled:
        click.echo(
            f"{old} was written to until the last look: what was written since is missing in {new}. Let writers pause "
            "while a migration ends.",
            err=True,
        )
    if quiet:
        return
    if report.load is not None:
        click.echo(
            f"Copied {report.load.rows:,} rows in {report.load.seconds:.1f} s ({report.load.rows_per_second:,.0f}/s)."
        )
    changed = "" if report.changed is None else f"{report.changed:,} changed, "
    end = "then both were equal" if report.settled else f"then rows of {old} still changed"
    click.echo(f"Caught up: {changed}{report.added:,} added, {report.deleted:,} deleted; {end}.")
    if report.new_recall is not None:
        theirs = report.old_recall or (
            "not measured, since its encoder was not given (--from-encoder)"
            if migration.old.settings
            else "not measured, since it has no index"
        )
        click.echo(f"Recall at {NEIGHBOURS} over {report.new_recall.queries:,} queries:")
        click.echo(f"  {old}: {theirs}")
        click.echo(f"  {new}: {report.new_recall}")
    if alias is not None:
        before = f"{alias} pointed to {report.alias_before}, and" if report.alias_before else f"{alias} is new, and"
        click.echo(f"{before} points to {new} now. Back: {_command(server, old, new, alias)} --rollback")
    else:
        click.echo(
            f"{old} is as it was. {journal.path} remembers this: the same command with --resume catches up again, and "
            "with --swap-alias points an alias to the new collection. Delete it when you are done."
        )


def _command(server: Server, old: str, new: str, alias: str) -> str:
    return f"alula migrate --from {old} --to {new} --uri {shlex.quote(server.uri)} --swap-alias {alias}"


def _as_json(report: MigrationReport) -> Mapping[str, Any]:
    shown = asdict(report)
    shown.pop("load")
    return {"copied": report.load.rows if report.load else None, **shown}
