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

from alula.cli.load_options import (
    DEAD_LETTERS_EXIT,
    journal_options,
    open_journal,
    output_options,
    resumable,
    trouble_options,
)
from alula.cli.load_progress import json_line, load_progress
from alula.cli.options import (
    EncoderFile,
    RenamedOption,
    connection_options,
    console,
    encoder_options,
    index_type_options,
    vector_type_option,
)
from alula.encoders import load_encoder
from alula.errors import UsageError
from alula.ingest.journal import Journal
from alula.migration.migrate import Migration, roll_back
from alula.migration.migration_report import MigrationReport
from alula.migration.recall import NEIGHBOURS
from alula.migration.source_collection import read_source_collection
from alula.milvus import Server


@click.command("migrate")
@click.option("--from", "old", required=True, help="The collection to migrate: any with float vectors.")
@click.option("--to", "new", required=True, help="The collection to create.")
@click.option("--index-type", help="FLOPS_SPARSE, DRQ, or another one of 'alula index-types'.")
@encoder_options(required=False)
@connection_options()
@click.option("--swap-alias", "alias", help="The alias to point to the new collection at the end, in one step.")
@click.option("--rollback", is_flag=True, help="Only point --swap-alias back to --from.")
@click.option("--filter", "expression", default="", help="Migrate only rows that satisfy this filter of Milvus.")
@click.option(
    "--changed-field",
    help="An integer field that grows with every change of any row (a time, a version): rows that change during the "
    "migration are copied again.",
)
@click.option("--vector-field", help="The field with the vectors; by default the only one.")
@click.option(
    "--exclude-field",
    "exclude_fields",
    cls=RenamedOption,
    old=("--leave-out",),
    multiple=True,
    help="A field to migrate without; repeatable.",
)
@click.option("--drop-vectors", is_flag=True, help="Do not keep the vectors; see 'alula create'.")
@vector_type_option
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
    help=f"Fail, and leave the alias, if the new recall at {NEIGHBOURS} is less.",
)
@click.option(
    "--from-encoder",
    type=EncoderFile(),
    help="The encoder of --from, if that is Alula's, to measure its recall.",
)
@journal_options
@trouble_options
@click.option(
    "--dry-run", "dry", is_flag=True, help="Show every field in the new collection, with its size; write nothing."
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
    exclude_fields: tuple[str, ...],
    drop_vectors: bool,
    vector_type: str,
    queries: int,
    min_recall: float | None,
    from_encoder: Path | None,
    journal_path: Path | None,
    resume: bool,
    restart: bool,
    max_errors: int,
    dead_letters: Path | None,
    retry_timeout: float,
    dry: bool,
    quiet: bool,
    json_logs: bool,
    options: Mapping[str, Any],
) -> None:
    """Move a collection to an Alula index type, or a newer encoder, while in use.

    Creates --to with the key and scalar fields of --from and copies the rows, then the rows added, deleted and (with
    --changed-field) changed during the copy. It compares the recall of both collections on vectors of the rows, and
    points an alias to the new one. The old collection is not changed. The alias moves only if the last comparison found
    both equal: pause the writers, and repeat the command with --resume and --swap-alias.

    \b
    alula migrate --from docs --to docs_v2 --index-type DRQ --encoder docs.onnx --uri http://localhost:19530 --dry-run
    alula migrate --from docs --to docs_v2 --index-type DRQ --encoder docs.onnx --uri http://localhost:19530 \\
        --changed-field updated_at --min-recall 0.95 --swap-alias docs_live
    alula migrate --from docs --to docs_v2 --uri http://localhost:19530 --swap-alias docs_live --rollback

    Exit codes: 0 all rows are migrated, 1 failed or alias not moved, 2 wrong usage, 3 all except rejected rows,
    130 stopped.
    """
    if rollback:
        _roll_back(server, old, new, alias, quiet=quiet)
        return
    _check_usage(index_type, encoder, min_recall, queries)
    reading: dict[str, Any] = {"vector_field": vector_field, "exclude_fields": exclude_fields, "filter": expression}
    making: dict[str, Any] = {
        "encoder": load_encoder(encoder, threads=1),  # type: ignore[arg-type]
        "index_type": index_type,
        "options": options,
        "keep_vectors": not drop_vectors,
        "vector_type": vector_type,
        "changed_field": changed_field,
        "alias": alias,
        "old_encoder": from_encoder,
        "resume": resume or restart,
    }
    running: dict[str, Any] = {
        "dead_letters": dead_letters or Path(f"alula-{new}.dead.parquet"),
        "max_errors": max_errors,
        "retry_timeout": retry_timeout,
        "queries": queries,
        "min_recall": min_recall,
    }
    if dry:
        _show_plan(Migration(read_source_collection(server, old, **reading), new, **making), json_logs=json_logs)
        return
    journal = open_journal(journal_path or Path(f"alula-{new}.journal"), resume=resume, restart=restart)
    with resumable(journal):
        migration = Migration(read_source_collection(server, old, **reading), new, **making)
        report = _run(migration, journal, quiet=quiet, json_logs=json_logs, **running)
    _finish(report, migration, server, journal, quiet=quiet, json_logs=json_logs)


def _check_usage(index_type: str | None, encoder: Path | None, min_recall: float | None, queries: int) -> None:
    if index_type is None or encoder is None:
        missing = "--index-type" if index_type is None else "--encoder"
        raise UsageError(f"{missing} is missing; only --rollback works without it.")
    if min_recall is not None and not queries:
        raise UsageError("--min-recall needs queries to measure the recall with; leave --queries 0 out.")


def _roll_back(server: Server, old: str, new: str, alias: str | None, *, quiet: bool) -> None:
    if alias is None:
        raise UsageError("--rollback points an alias back; name it with --swap-alias.")
    roll_back(server, old, new, alias)
    if not quiet:
        click.echo(f"{alias} points to {old} again. {new} is still there; 'alula drop {new}' drops it.")


def _run(migration: Migration, journal: Journal, *, quiet: bool, json_logs: bool, **running: Any) -> MigrationReport:
    """Migrate, with a progress bar under notes on what stays behind."""
    if not (quiet or json_logs):
        _show_start(migration)
    with load_progress(quiet=quiet, json_logs=json_logs) as progress:
        return migration.run(journal=journal, progress=progress, **running)


def _finish(
    report: MigrationReport, migration: Migration, server: Server, journal: Journal, *, quiet: bool, json_logs: bool
) -> None:
    """Show the result; the journal stays until an alias points to the new collection."""
    if migration.alias is None:
        journal.close()
    else:
        journal.remove()
    if json_logs:
        json_line("done", **_as_json(report))
    else:
        _show(report, migration, server, journal, quiet=quiet)
    if report.bad:
        click.get_current_context().exit(DEAD_LETTERS_EXIT)


def _show_start(migration: Migration) -> None:
    old = migration.old
    for note in old.notes:
        click.echo(note, err=True)
    left = [field.name for field in old.mappings if field.becomes == "left out"]
    if left:
        click.echo(f"Left out: {', '.join(left)}.", err=True)
    if migration.changed_field is None:
        click.echo(
            "Without --changed-field, rows that are changed in place during the migration keep their older values in "
            f"{migration.new.name}; added and deleted rows are synchronised.",
            err=True,
        )


def _show_plan(migration: Migration, *, json_logs: bool) -> None:
    old, sizes = migration.old, migration.sizes()
    if json_logs:
        json_line(
            "dry run",
            rows=old.rows,
            fields=[asdict(field) for field in old.mappings],
            notes=old.notes,
            bytes={size.name: size.bytes_per_row * old.rows for size in sizes},
        )
        return
    fields = Table("field", "in " + old.name, "in " + migration.new.name, box=None, pad_edge=False)
    for field in old.mappings:
        fields.add_row(*map(Text, (field.name, field.type, field.becomes)))
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
            f"{old} changed until the last look: later writes are missing in {new}. Pause the writers before the alias "
            "is moved.",
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
    click.echo(f"Synchronised: {changed}{report.added:,} added, {report.deleted:,} deleted; {end}.")
    if report.new_recall is not None:
        theirs = report.old_recall or (
            "not measured without its encoder (--from-encoder)"
            if migration.old.settings
            else "not measured, it has no index"
        )
        click.echo(f"Recall at {NEIGHBOURS} over {report.new_recall.queries:,} queries, with its 95 % interval:")
        click.echo(f"  {old}: {theirs}")
        click.echo(f"  {new}: {report.new_recall}")
    if alias is not None:
        before = f"{alias} pointed to {report.alias_before}, and" if report.alias_before else f"{alias} is new, and"
        click.echo(f"{before} points to {new} now. Back: {_command(server, old, new, alias)} --rollback")
    else:
        click.echo(
            f"{old} is as it was. {journal.path} records this: the same command with --resume synchronises again, and "
            "with --swap-alias points an alias to the new collection. Delete it when you are done."
        )


def _command(server: Server, old: str, new: str, alias: str) -> str:
    return f"alula migrate --from {old} --to {new} --uri {shlex.quote(server.uri)} --swap-alias {alias}"


def _as_json(report: MigrationReport) -> Mapping[str, Any]:
    shown = asdict(report)
    shown.pop("load")
    return {"copied": report.load.rows if report.load else None, **shown}
