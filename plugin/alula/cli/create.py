"""``alula create``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from alula.catalog.binding import check_fit
from alula.catalog.create import DEFAULT_FIELD, DEFAULT_KEY, create, design
from alula.catalog.schema import ScalarField
from alula.cli.options import RenamedOption, connection_options, encoder_option, index_type_options, vector_type_option
from alula.cli.row_cost import show_cost
from alula.encoders import METRICS, load_encoder
from alula.errors import UsageError
from alula.milvus import Server
from alula.sources import Source
from alula.sources.columns import is_vector
from alula.sources.encoder_inputs import open_rows


@click.command("create")
@click.argument("name")
@click.option("--index-type", required=True, help="FLOPS_SPARSE, DRQ, or another one of 'alula index-types'.")
@encoder_option
@connection_options(must_exist=False)
@click.option(
    "--schema-from",
    cls=RenamedOption,
    old=("--like",),
    metavar="SOURCE",
    help="The file, glob or URL to load later: its scalar columns become the fields, its ids set the key's type.",
)
@click.option("--primary-key", default=DEFAULT_KEY, show_default=True, help="NAME, NAME:INT64 or NAME:VARCHAR(64).")
@click.option(
    "--column",
    "columns",
    multiple=True,
    help="A scalar field, NAME:TYPE, e.g. word:VARCHAR(64), 'tags:ARRAY<VARCHAR(64)>(16)', about:JSON, "
    "year:INT64:nullable, lang:VARCHAR(8):default=en; repeatable.",
)
@click.option("--field", default=DEFAULT_FIELD, show_default=True, help="Name of the vector field.")
@click.option("--vector-column", help="With --schema-from: the column of the vectors.")
@click.option("--text-column", help="With --schema-from: the column of the texts; it becomes a field as well.")
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="The metric; it must be the encoder's, which is the default.",
)
@click.option(
    "--drop-vectors",
    is_flag=True,
    help="Do not keep the vectors: least memory, scores become estimates and results are not re-ranked exactly.",
)
@vector_type_option
@click.option(
    "--partition-key", metavar="FIELD", help="A scalar field by whose values Milvus spreads the rows over partitions."
)
@click.option(
    "--dynamic",
    is_flag=True,
    help="Take values without a field too: Milvus's dynamic fields, one JSON object per row.",
)
@click.option("--description", default="", help="A text for people.")
@click.option(
    "--consistency",
    type=click.Choice(["Strong", "Bounded", "Session", "Eventually"]),
    help="The collection's default consistency level; Milvus's own default is Bounded.",
)
@click.option("--dry-run", "dry", is_flag=True, help="Show what would be created, and create nothing.")
@index_type_options("create_options")
def command(
    *,
    name: str,
    index_type: str,
    encoder: Path,
    server: Server,
    schema_from: str | None,
    primary_key: str,
    columns: tuple[str, ...],
    field: str,
    vector_column: str | None,
    text_column: str | None,
    metric: str | None,
    drop_vectors: bool,
    vector_type: str,
    partition_key: str | None,
    dynamic: bool,
    description: str,
    consistency: str | None,
    dry: bool,
    options: Mapping[str, Any],
) -> None:
    """Create the collection NAME with an index type on its vector field.

    \b
    alula create words --uri ./words.db --index-type DRQ --encoder words-drq.onnx --schema-from words.parquet
    """
    loaded, source = load_encoder(encoder), None
    if schema_from is not None:
        source = open_rows(loaded, schema_from, vector_column=vector_column, text_column=text_column)
        primary_key, columns = _from_file(source, primary_key, columns, dynamic=dynamic)
    spec = design(
        server,
        name,
        encoder=loaded,
        index_type=index_type,
        field=field,
        primary_key=primary_key,
        columns=columns,
        metric=metric,
        keep_vectors=not drop_vectors,
        vector_type=vector_type,
        partition_key=partition_key,
        dynamic=dynamic,
        options=options,
    )
    if source is not None:
        check_fit(spec.index_type, loaded, subject=source.name, dim=source.dim)
    # before anything is created
    show_cost(spec.cost, spec.lowering.field.dim, spec.lowering.field.storage, spec.primary_key)
    if not dry:
        create(spec, description=description, consistency_level=consistency)
    settings = spec.lowering.settings
    layout = f", layout {settings['layout']}" if "layout" in settings else ""
    done = "Would create" if dry else "Created"
    click.echo(
        f"{done} {name} with {settings['type']}{layout}, metric {settings['metric']}; the vectors are "
        f"{'dropped' if drop_vectors else 'kept for exact re-ranking'}."
    )
    if spec.lowering.hint:
        click.echo(spec.lowering.hint)
    shown = ", ".join(map(str, (spec.primary_key, *spec.fields)))
    click.echo(f"Fields: {shown}{', and any others (dynamic)' if dynamic else ''}.")
    if dry:
        click.echo("Nothing was created.")
        return
    file = shlex.quote(str(schema_from)) if schema_from else "FILE"
    for option, column in (("--vector-column", vector_column), ("--text-column", text_column)):
        file += f" {option} {shlex.quote(column)}" if column else ""
    click.echo(f"Next: alula load {name} {file} --uri {shlex.quote(server.uri)} --encoder {shlex.quote(str(encoder))}")


def _from_file(
    source: Source, primary_key: str, columns: tuple[str, ...], *, dynamic: bool
) -> tuple[str, tuple[str, ...]]:
    named = {column.partition(":")[0] for column in columns}
    key_name = primary_key.partition(":")[0]
    fields = list(columns)
    for name, arrow_type in source.scalars.items():
        inferred = ScalarField.infer(name, arrow_type)
        if name == key_name:
            if inferred is None or inferred.data_type not in ("INT8", "INT16", "INT32", "INT64", "VARCHAR"):
                raise UsageError(
                    f"The ids of {source.name} ({name!r}) are {arrow_type}; Milvus takes integers or strings."
                )
            if ":" not in primary_key:
                primary_key = f"{name}:{'VARCHAR' if inferred.data_type == 'VARCHAR' else 'INT64'}"
        elif name not in named:
            if inferred is None and dynamic:
                click.echo(f"The column {name} ({arrow_type}) gets no field; its values become dynamic ones.", err=True)
            elif inferred is None and is_vector(arrow_type):
                click.echo(
                    f"Left out the column {name}, which may hold vectors; --column '{name}:ARRAY<FLOAT>(n)' keeps it.",
                    err=True,
                )
            elif inferred is None:
                click.echo(f"Left out the column {name} ({arrow_type}): Milvus has no scalar type for it.", err=True)
            else:
                fields.append(str(inferred))
    return primary_key, tuple(fields)
