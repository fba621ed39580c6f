"""``alula load``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from alula.cli.load_options import (
    DEAD_LETTERS_EXIT,
    journal_options,
    open_journal,
    output_options,
    resumable,
    trouble_options,
)
from alula.cli.load_progress import json_line, load_progress
from alula.cli.load_source import SourceOptions, forget_stdin, source_options
from alula.cli.options import connection_options, encoder_option
from alula.collection import Collection
from alula.encoders import load_encoder
from alula.errors import AlulaError
from alula.ingest.journal import Journal
from alula.ingest.load import LoadReport, load
from alula.ingest.pipeline import Via
from alula.ingest.plan import Mode
from alula.ingest.preflight import dry_run
from alula.milvus import Server
from alula.sources import Source

if TYPE_CHECKING:
    from alula.ingest.ray.engine import RayCluster


@click.command("load")
@click.argument("name")
@source_options
@encoder_option
@connection_options()
@click.option("--partition", help="Partition to write to; it must exist.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "insert", "upsert"]),
    default="auto",
    show_default=True,
    help="upsert: replace rows with the same id. insert: faster, and doubles them. auto: insert into an empty "
    "collection, else upsert.",
)
@click.option(
    "--via",
    type=click.Choice(["auto", "insert", "import"]),
    default="auto",
    show_default=True,
    help="insert: by calls. import: as Parquet files that the server reads from --stage, into an empty collection. "
    "auto: import very many rows if --stage is given.",
)
@click.option(
    "--stage",
    help="For --via import: a folder or URL (s3://BUCKET/PREFIX) that the server reads files from; they are removed "
    "afterwards.",
)
@click.option("--stage-at-server", help="The stage as the server names it, if the name differs.")
@journal_options
@trouble_options
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Read, encode and write in this process, or in the workers of a Ray cluster, which must find the files under "
    "the same names.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    help="The Ray cluster: HOST:PORT, 'auto' for the one that this machine belongs to (the default), or 'local' to "
    "start one here.",
)
@click.option(
    "--dry-run", "dry", is_flag=True, help="Read and check every row, show what would be loaded, write nothing."
)
@output_options
def command(
    *,
    name: str,
    given: SourceOptions,
    encoder: Path,
    server: Server,
    partition: str | None,
    mode: Mode,
    via: Via,
    stage: str | None,
    stage_at_server: str | None,
    journal_path: Path | None,
    resume: bool,
    restart: bool,
    max_errors: int,
    dead_letters: Path | None,
    retry_timeout: float,
    engine: Literal["local", "ray"],
    ray_address: str | None,
    dry: bool,
    quiet: bool,
    json_logs: bool,
) -> None:
    """Load the rows of SOURCE into the collection NAME.

    SOURCE is one or more files, globs, folders or URLs (s3://, gs://, https://) of one format, or - for standard input:
    Parquet, JSON lines, CSV or Arrow tables, .npy, .npz, HDF5 or .fvecs arrays, images, or .txt files with a text per
    line. The rows are the inputs of the encoder: vectors, images or texts. Rows that cannot be loaded are written to a
    Parquet file, with their reasons. A journal records the rows that Milvus has acknowledged, so that a load resumes
    after any crash; at the end the rows are counted, and a sample is encoded again and compared.

    \b
    alula load words words.parquet --uri ./words.db --encoder words-drq.onnx
    alula load words words.parquet --uri ./words.db --encoder words-drq.onnx --resume
    alula load docs "s3://bucket/docs/*.parquet" --map title=headline --uri http://milvus:19530 --encoder docs.onnx

    Exit codes: 0 all rows are loaded, 1 failed, 2 wrong usage, 3 loaded except rejected rows, 130 stopped.
    """
    loaded = load_encoder(encoder, threads=1)  # leaves the cores to concurrent batches
    collection = Collection.open(server, name, encoder=loaded)
    journal_path = journal_path or Path(f"alula-{name}.journal")
    spool = journal_path.with_suffix("")
    if dry:
        _show_dry_run(collection, given.open(collection.target(), spool), quiet=quiet, json_logs=json_logs)
        return
    cluster = _cluster(ray_address) if engine == "ray" else None
    dead_letters = dead_letters or Path(f"alula-{name}.dead.parquet")
    if restart:
        forget_stdin(spool)
    journal = open_journal(journal_path, resume=resume, restart=restart)
    with _keeping_stdin(journal, spool), resumable(journal):
        rows = given.open(collection.target(), spool)
        with load_progress(quiet=quiet, json_logs=json_logs) as progress:
            report = load(
                collection.target(),
                rows,
                partition=partition,
                mode=mode,
                via=via,
                stage=stage,
                stage_at_server=stage_at_server,
                journal=journal,
                max_errors=max_errors,
                dead_letters=dead_letters,
                retry_timeout=retry_timeout,
                progress=progress,
                engine=cluster,
            )
    _end(journal, spool, report, name)
    _show(report, collection, quiet=quiet, json_logs=json_logs)
    if report.bad:
        click.get_current_context().exit(DEAD_LETTERS_EXIT)


@contextmanager
def _keeping_stdin(journal: Journal, spool: Path) -> Iterator[None]:
    """Remove the copy of standard input after an error, unless a resume needs it."""
    try:
        yield
    except BaseException:
        if journal.path is None or not journal.path.exists():
            forget_stdin(spool)
        raise


def _end(journal: Journal, spool: Path, report: LoadReport, name: str) -> None:
    """Remove the journal and the copy of standard input, unless rows are wrong."""
    if report.verification.problem:
        journal.close()
        raise AlulaError(
            f"{report.rows:,} rows were loaded into {name}, but {report.verification.problem}. Give the same command "
            "with --resume to check again, or with --restart to load all rows again."
        )
    journal.remove()
    forget_stdin(spool)


def _cluster(address: str | None) -> RayCluster:
    if address == "local":  # Ray reads these when it is imported
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # means: listen at 127.0.0.1 alone
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends no usage report
    from alula.ingest.ray.engine import RayCluster  # noqa: PLC0415 - Ray is an extra, and slow to import

    return RayCluster(address or "auto")


def _show_dry_run(collection: Collection, source: Source, *, quiet: bool, json_logs: bool) -> None:
    with load_progress(quiet=quiet, json_logs=json_logs) as progress:
        found = dry_run(collection.target(), source, progress=progress)
    if json_logs:
        json_line("dry run", rows=found.rows, bad=found.bad, reasons=found.reasons, ignored=found.ignored)
        return
    for field in (collection.primary_key, *collection.fields):
        given = source.scalars.get(field.name)
        without = "no column" if field.optional else "the row numbers"
        click.echo(f"{field}  from  {f'{field.name} ({given})' if given else without}")
    click.echo(f"{collection.lowering.field.name}  from  the {source.input} of {source.name}")
    others = collection.target().dynamic_columns(source.scalars)
    if others:
        click.echo(f"Dynamic values  from  {', '.join(others)}")
    if found.ignored:
        click.echo(f"Columns without a field in {collection.name}: {', '.join(found.ignored)}.")
    click.echo(f"{found.rows - found.bad:,} of {found.rows:,} rows can be loaded; nothing was written.")
    for row, reason in found.reasons:
        click.echo(f"  Row {row}: {reason}")
    if found.bad > len(found.reasons):
        click.echo(f"  and {found.bad - len(found.reasons):,} more")


def _show(report: LoadReport, collection: Collection, *, quiet: bool, json_logs: bool) -> None:
    name, check = collection.name, report.verification
    if json_logs:
        json_line("done", **_as_json(report))
        return
    if report.bad:
        where = shlex.quote(str(report.dead_letters))
        click.echo(f"{report.bad:,} rows could not be loaded: they are in {where}, with the reasons.", err=True)
    if quiet:
        return
    replaced = f", {report.replaced:,} of them replaced rows with the same id" if report.replaced else ""
    earlier = f" ({report.rows - report.written:,} of them in earlier runs)" if report.rows > report.written else ""
    rate = f"{report.rows_per_second:,.0f}/s, {report.bytes / 1e6 / report.seconds:,.1f} MB/s"
    click.echo(
        f"Loaded {report.rows:,} rows{earlier} in {report.seconds:.1f} s ({rate}){replaced}. {name} now contains "
        f"{report.total:,}."
    )
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    click.echo(f"Bottleneck: {report.bottleneck} (busy: {busy}).")
    click.echo(
        f"Checked: {check.compared} rows equal their source bit for bit; {check.found} of them are among their own "
        "10 nearest rows."
    )
    if report.auto_ids:
        click.echo(f"The source has no column {collection.primary_key.name!r}: the rows were numbered from 0.")
    if report.ignored:
        click.echo(f"Columns without a field in {name}: {', '.join(report.ignored)}.")


def _as_json(report: LoadReport) -> Mapping[str, Any]:
    return {
        "rows": report.rows,
        "written": report.written,
        "replaced": report.replaced,
        "total": report.total,
        "bad": report.bad,
        "dead_letters": report.dead_letters,
        "seconds": round(report.seconds, 3),
        "rows_per_second": round(report.rows_per_second, 1),
        "mb_per_second": round(report.bytes / 1e6 / report.seconds, 2),
        "busy": {stage: round(share, 3) for stage, share in report.shares.items()},
        "bottleneck": report.bottleneck,
        "retries": report.retries,
        "compared": report.verification.compared,
        "found": report.verification.found,
    }
