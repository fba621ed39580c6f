"""``alula load``."""

from __future__ import annotations

from pathlib import Path

import click

from alula.cli.options import connection_options, encoder_option, row_progress
from alula.collections import Collection
from alula.servers import Server


@click.command("load")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@encoder_option
@connection_options()
@click.option("--vector-column", help="The column that holds the vectors; by default the only list of numbers.")
@click.option("--text-column", help="The column that holds the texts; by default the only one of strings.")
@click.option("--partition", help="Partition to write to; it must exist.")
def command(
    *,
    name: str,
    file: Path,
    encoder: Path,
    server: Server,
    vector_column: str | None,
    text_column: str | None,
    partition: str | None,
) -> None:
    """Load the rows of FILE (.npy, .parquet, .jsonl, .txt) into the collection NAME.

    The rows are what the encoder takes: vectors, images (.npy) or texts (.txt, .parquet, .jsonl).
    All rows are checked before the first is written. A row whose id is there already is replaced, so a load that broke
    off can be repeated.

    \b
    alula load words words.parquet --uri ./words.db --encoder words-drq.onnx
    """
    collection = Collection.open(server, name, encoder=encoder)
    with row_progress() as progress:
        report = collection.load(
            file, vector_column=vector_column, text_column=text_column, partition=partition, progress=progress
        )
    replaced = f", {report.replaced:,} of them in place of rows with the same id" if report.replaced else ""
    click.echo(
        f"Loaded {report.rows:,} rows in {report.seconds:.1f} s ({report.rows / report.seconds:,.0f}/s){replaced}. "
        f"{name} now holds {report.total:,}."
    )
    if report.numbered:
        click.echo(f"The file has no column {collection.primary_key.name!r}: the rows were numbered from 0.")
    if report.ignored:
        click.echo(f"Left out, since {name} has no such fields: {', '.join(report.ignored)}.")
