"""``alula tune``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from alula.catalog.description import describe
from alula.catalog.search_defaults import write_defaults
from alula.cli.evaluate import queries_of_collection
from alula.cli.evaluation_options import parse_target, query_options
from alula.cli.options import OutputFile, connection_options, console, encoder_options, format_option, show_json
from alula.collection import Collection
from alula.errors import AlulaError, UnsupportedError, UsageError
from alula.evaluation.queries import QueryOptions
from alula.evaluation.settings import as_options, show_settings
from alula.evaluation.tune import Tuning, check_target, queries_needed, queries_to_draw, tune
from alula.milvus import MissingRightsError, Server
from alula.progress import progress_bar


@click.command("tune")
@click.argument("name", metavar="COLLECTION")
@connection_options()
@encoder_options(required=False)
@click.option("--target", metavar="recall=NUMBER", help="The recall to reach, e.g. recall=0.95.")
@query_options
@click.option(
    "--sample",
    type=click.IntRange(2),
    help="Rows to draw as queries to tune with, and as many to check the choice; enough for the target by default.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    help="Time limit for trying other ways of searching.",
)
@click.option(
    "--dry-run", "dry", is_flag=True, help="Show the choice, and leave the collection's defaults as they are."
)
@click.option("--reset", is_flag=True, help="Remove the collection's default search options, and do nothing else.")
@click.option(
    "--save",
    type=OutputFile(),
    help="Write the chosen search options and all figures to this JSON file.",
)
@format_option
def command(
    *,
    name: str,
    server: Server,
    encoder: Path | None,
    target: str | None,
    vectors: str | None,
    vector_column: str | None,
    queries: Path | None,
    query_column: str | None,
    truth: Path | None,
    k: int,
    seed: int,
    quiet: bool,
    sample: int | None,
    seconds: float,
    dry: bool,
    reset: bool,
    save: Path | None,
    output_format: str,
) -> None:
    """Find the fastest search options for a recall and store them as defaults.

    \b
    alula tune words --target recall=0.95 --queries asked.npy --encoder words-drq.onnx
    alula tune words --reset

    A setting reaches the target if the lower end of the 95 % interval of its recall does; the fastest has the least
    median latency. It is then checked on as many other queries. Later searches of the COLLECTION use it by default.

    Give queries that your users asked (--queries). Without them rows are drawn, which are easier to find, so that
    users get a lower recall than the target.
    """
    if reset:
        _reset(server, name, dry=dry)
        return
    if target is None or encoder is None:
        raise UsageError("Give the recall to reach, e.g. --target recall=0.95, and the collection's --encoder.")
    wanted = parse_target(target)
    drawn = sample or queries_to_draw(wanted, k)
    if queries is None:
        check_target(wanted, drawn, k)
    collection = Collection.open(server, name, encoder=encoder)
    rows = collection.count()
    if queries is None and sample is None:
        drawn = _as_many_as_there_are(name, rows, drawn, wanted, k)
    options = QueryOptions(queries, query_column, 2 * drawn, seed, k, truth)
    with progress_bar(quiet=quiet, one_line=True) as progress:
        _, query_set = queries_of_collection(collection, vectors, vector_column, options, progress)
        half = len(query_set.queries) // 2
        check_target(wanted, half, k)
        tuning, held_out = query_set.queries.part(0, half), query_set.queries.part(half, 2 * half)
        result = tune(collection, tuning, held_out, wanted, rows=rows, seconds=seconds, progress=progress)
    kept = _keep(collection, result, dry)
    written: dict[str, Any] = {
        "collection": name,
        "options": dict(result.chosen.settings) if result.chosen else None,
        "kept": kept,
    }
    written |= {"held": result.held, "queries": query_set.queries_from, **asdict(result)}
    if save is not None:
        save.write_text(json.dumps(written, indent=1, default=str) + "\n", "utf-8")
    if output_format == "json":
        show_json(written)
    else:
        _show(result, query_set.queries_from)
    _end(collection, result, kept, dry=dry)


def _reset(server: Server, name: str, *, dry: bool) -> None:
    about = describe(server, name, count=False)
    if not dry:
        write_defaults(server, name, about.primary_key.name, {})
        click.echo(f"{name} has no default search options any more." if about.defaults else f"{name} had none.")
    elif about.defaults:
        click.echo(f"Would remove the default search options of {name}: {show_settings(about.defaults)}.")
        click.echo("Nothing was removed.")
    else:
        click.echo(f"{name} has no default search options.")


def _as_many_as_there_are(name: str, rows: int, drawn: int, target: float, k: int) -> int:
    """The number of queries to draw twice from the rows, at most `drawn`."""
    needed = queries_needed(target, k)
    if rows < 2 * needed:
        raise UsageError(
            f"{name} has {rows:,} rows, too few to show a recall@{k} of {target:g} with 95 % confidence: that takes "
            f"{needed:,} of them as queries to choose by, and as many to check the choice. Give a lower --target, or "
            "queries of your own with --queries."
        )
    return min(drawn, rows // 2)


def _keep(collection: Collection, result: Tuning, dry: bool) -> str:
    """Make the choice the collection's default; returns the result in words."""
    if result.chosen is None or not result.held:
        return "nothing was chosen"
    if dry:
        return "dry run"
    try:
        collection.set_defaults(**result.chosen.settings)
    except (MissingRightsError, UnsupportedError) as error:
        return str(error)
    return "stored"


def _show(result: Tuning, queries: str) -> None:
    click.echo(f"{queries}; half of them to choose by, half to check.")
    reached = [point for point in result.tried if point.recall.low >= result.target]
    table = Table(title=f"Tried, target recall@{result.k} {result.target:g}", title_justify="left")
    table.add_column("search options", overflow="fold")
    for head in (f"recall@{result.k}", "p50 ms", "reaches it"):
        table.add_column(head, justify="right")
    finals: Mapping[int, float] = {id(point): time for point, time in result.finalists}
    for point in sorted(result.tried, key=lambda point: point.p50):
        side = f"yes; {finals[id(point)]:.2f} ms side by side" if id(point) in finals else "yes"
        figures = (str(point.recall), f"{point.p50:.2f}", side if point in reached else "no")
        table.add_row(Text(show_settings(point.settings)), *figures)
    console().print(table)
    if not result.complete:
        click.echo("The time was up before every way of searching was tried (--seconds).")


def _end(collection: Collection, result: Tuning, kept: str, *, dry: bool) -> None:
    """Print the verdict as the last line, or raise it."""
    if result.chosen is None:
        best = result.best
        raise AlulaError(
            f"No setting reaches recall@{result.k} {result.target:g}: the best found {best.recall} with "
            f"{show_settings(best.settings)}. {_advice(collection)}"
        )
    options, chosen = as_options(result.chosen.settings), show_settings(result.chosen.settings)
    if not result.held:
        raise AlulaError(
            f"{chosen} reached {result.target:g} on the queries it was chosen by, and {result.held_out} on others; "
            "nothing was stored: run it again with a larger --sample."
        )
    click.echo(
        f"Chosen: {chosen}. On held-out queries: recall@{result.k} {result.held_out}: the target holds.", err=False
    )
    if dry:
        click.echo(f"Nothing was stored. To use it: alula search {collection.name} {options} ...")
    elif kept == "stored":
        click.echo(f"Stored: searches of {collection.name} use it from now on (alula tune {collection.name} --reset).")
    else:
        click.echo(f"{kept} Here: alula search {collection.name} {options} ...")


def _advice(collection: Collection) -> str:
    """Advice for a higher recall than any search option gives."""
    size = collection.lowering.output_size
    if collection.lowering.field.storage == "dropped":
        return (
            "The vectors were dropped: keep them (create without --drop-vectors), so that candidates are ranked again "
            f"exactly, or train an encoder with more than {size}."
        )
    return f"Train an encoder with more than {size}, or on more of your vectors."
