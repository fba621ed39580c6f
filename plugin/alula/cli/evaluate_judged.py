"""``alula evaluate --qrels``: ranking quality beside latency and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from alula.cli.options import console
from alula.collection import Collection
from alula.encoders import Encoder
from alula.errors import EncoderError, UsageError
from alula.evaluation.judged import JudgedEvaluation
from alula.evaluation.judgements import MEASURES
from alula.evaluation.row_source import RowSource, collection_rows, rows_of_collection_files
from alula.evaluation.settings import show_settings
from alula.milvus import Server

_OF_NO_USE = ("truth", "sample", "k", "layouts", "metric", "seconds", "clients")
_ONLY_JUDGED = ("bm25", "weights")


def check_options(
    server: Server | None, names: Sequence[str], queries: Path | None, *, single: bool
) -> tuple[Server, Path]:
    """Check the options of an evaluation with judgements.

    Args:
        server: Server of the collections.
        names: The collections.
        queries: File of the queries.
        single: True if an option takes one collection only.

    Raises:
        UsageError: If one is missing, or another was given that judgements make useless.
    """
    if given := _given(_OF_NO_USE):
        raise UsageError(f"{', '.join(given)} cannot be combined with --qrels; leave it out.")
    if server is None or not names or queries is None:
        raise UsageError("Judgements need a collection, its --uri, and the judged queries (--queries).")
    if single and len(names) > 1:
        raise UsageError("--vectors and --compare take one collection at a time.")
    if len(names) == 1 and _given(_ONLY_JUDGED) == ["--weight"]:
        raise UsageError("--weight is of a fusion of two; give two collections, or one and --bm25.")
    return server, queries


def check_unjudged() -> None:
    """Raise a `UsageError` if an option was given that needs judgements."""
    if given := _given(_ONLY_JUDGED):
        raise UsageError(f"{', '.join(given)}: only with judged queries; give --queries and --qrels too.")


def _given(names: Sequence[str]) -> list[str]:
    """The flags of these parameters that the command line has."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]


def open_judged(
    server: Server, name: str, encoders: Sequence[Encoder], vectors: str | None, vector_column: str | None
) -> tuple[Collection, RowSource | None]:
    """Open a collection with its encoder, and its vectors if they can be read."""
    if not encoders:
        raise UsageError("Give the encoder of each collection with --encoder.")
    collection = _open(server, name, encoders)
    if vectors is not None:
        return collection, rows_of_collection_files(collection, vectors, vector_column)
    return collection, None if collection.lowering.field.storage == "dropped" else collection_rows(collection)


def _open(server: Server, name: str, encoders: Sequence[Encoder]) -> Collection:
    for encoder in encoders[:-1]:
        try:
            return Collection.open(server, name, encoder=encoder)
        except EncoderError:
            continue
    return Collection.open(server, name, encoder=encoders[-1])


def show_judged(evaluation: JudgedEvaluation) -> None:
    """Print the figures as a table."""
    click.echo(f"{evaluation.title} at {evaluation.server}: {evaluation.rows:,} rows; ", nl=False)
    click.echo(f"{evaluation.queries:,} queries of {evaluation.queries_from}.")
    table = Table(title="Means with their 95 % intervals", title_justify="left")
    for head in ("searched by", "search options"):
        table.add_column(head, overflow="fold")
    for head in (*MEASURES, f"{MEASURES[0]} less the first row's", "p50 ms", "B/row memory"):
        table.add_column(head, justify="right")
    for system in evaluation.systems:
        difference = system.differences.get(MEASURES[0])
        table.add_row(
            Text(system.name),
            Text(show_settings(system.settings) if system.settings else ""),
            *(str(system.measures[name]) for name in MEASURES),
            "" if difference is None else difference.signed,
            "" if system.p50 is None else f"{system.p50:.2f}",
            "" if system.memory is None else f"{system.memory:.0f}",
        )
    console().print(table)
    for note in evaluation.notes:
        click.echo(f"Note: {note}.")
    for name, reason in evaluation.refused.items():
        click.echo(f"Not measured: {name}. {reason}")
