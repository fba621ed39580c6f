"""``alula recommend``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from alula.cli.evaluate import temporary_server
from alula.cli.evaluation_options import (
    build_timeout_option,
    encoders_option,
    figures_option,
    metric_option,
    parse_target,
    sample_options,
)
from alula.cli.options import OutputFile, connection_options, console, format_option, show_json
from alula.cli.wording import as_options
from alula.encoders import load_encoder
from alula.errors import AlulaError
from alula.evaluation.choice import Contender
from alula.evaluation.prospects import Prospect
from alula.evaluation.queries import QueryOptions
from alula.evaluation.recommend import BUILD_TIMEOUT, SAMPLE_ROWS, SECONDS, Recommendation, Wish, recommend
from alula.evaluation.row_source import file_rows
from alula.evaluation.settings import show_settings
from alula.index_types import RowCost
from alula.milvus import Server
from alula.progress import progress_bar


@click.command("recommend")
@click.argument("vectors", metavar="VECTORS")
@connection_options(required=False)
@click.option(
    "--target",
    default="recall=0.95",
    show_default=True,
    metavar="recall=NUMBER",
    help="The recall to reach.",
)
@click.option("--rows", type=click.IntRange(1), help="Rows to recommend for; by default those of VECTORS.")
@encoders_option("An encoder file, to measure its index type too; repeatable.")
@sample_options
@click.option(
    "--sample-rows",
    type=click.IntRange(1),
    default=SAMPLE_ROWS,
    show_default=True,
    help="Most rows to measure on, drawn at random.",
)
@metric_option
@build_timeout_option(BUILD_TIMEOUT)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=SECONDS,
    show_default=True,
    help="Time limit for trying search options with each --encoder.",
)
@figures_option
@click.option("--report", type=OutputFile(), help="Write a page with a plot (.html) that needs no network.")
@format_option
def command(
    *,
    vectors: str,
    server: Server | None,
    target: str,
    rows: int | None,
    encoders: tuple[Path, ...],
    vector_column: str | None,
    queries: Path | None,
    query_column: str | None,
    k: int,
    seed: int,
    quiet: bool,
    sample_rows: int,
    metric: str | None,
    build_timeout: float,
    seconds: float,
    output: Path | None,
    report: Path | None,
    output_format: str,
) -> None:
    """Recommend an index type for VECTORS, Milvus's own included.

    Measures on a sample, in minutes, each index type that the server has: the fastest search that reaches the target,
    its milliseconds, build time, memory and disk. No encoder is needed.

    \b
    alula recommend rows.npy
    alula recommend rows.npy --uri http://localhost:19530 --target recall=0.99 --rows 50000000
    alula recommend rows.npy --encoder rows-drq.onnx --uri ... --report page.html

    The choice is the type with the least memory among those that reach the target with 95 % confidence, unless another
    one takes at most 1.5 times the memory and half of the time. Temporary collections are dropped again; without --uri
    they are in an embedded database that is removed.
    """
    wish = Wish(parse_target(target), rows, metric, sample_rows, build_timeout, seconds)
    loaded = [load_encoder(path) for path in encoders]
    render = None
    if report is not None:
        from alula.evaluation.recommend_report import write_recommendation  # noqa: PLC0415 - it needs an extra

        render = write_recommendation
    options = QueryOptions(queries, query_column, seed=seed, k=k)
    source = file_rows(vectors, vector_column, None)
    with progress_bar(quiet=quiet, one_line=True) as progress, temporary_server(server) as opened:
        found = recommend(opened, source, wish, options, encoders=loaded, progress=progress)
    spelled = click.get_current_context().command
    found = replace(found, refused={name: as_options(why, spelled) for name, why in found.refused.items()})
    if output is not None:
        output.write_text(json.dumps(found.as_json(), indent=1, default=str, ensure_ascii=False) + "\n", "utf-8")
    if render is not None and report is not None:
        render(found.as_json(), report)
    if output_format == "json":
        show_json(found.as_json())
    else:
        _show(found)
        if server is None:
            click.echo("Without --uri this is embedded Milvus Lite, which has few index types: name a server with it.")
        for path in filter(None, (output, report)):
            click.echo(f"Written: {path}")
    if not found.taken:
        raise AlulaError(f"{found.reason} Lower --target, or give an encoder with --encoder.")
    if output_format != "json":
        click.echo(found.reason)


def _show(found: Recommendation) -> None:
    click.echo(
        f"{found.title}: {found.file_rows:,} rows x {found.dim}, {found.metric}, at {found.server}; measured on "
        f"{found.sample_rows:,} of them, with {found.queries_from}."
    )
    title = f"Target recall@{found.k} {found.target:g} with 95 % confidence; memory and disk for {found.rows:,} rows"
    table = Table(title=title, title_justify="left")
    table.add_column("index type", overflow="fold")
    table.add_column("fastest search", overflow="fold")
    heads = [f"recall@{found.k}", "p50 ms", "build s", "memory B/row", "memory"]
    for head in (*heads, *(("disk B/row", "disk") if _on_disk(found) else ())):
        table.add_column(head, justify="right", no_wrap=not head.endswith("B/row"))
    for one in found.contenders:
        table.add_row(*_measured(one, found), style="bold" if one.name == found.taken else None)
    table.add_section()
    for prospect in found.prospects:
        table.add_row(*_unmeasured(prospect, found))
    console().print(table)
    if found.prospects:
        click.echo(found.hint)
    for one in found.contenders:
        for note in one.notes:
            click.echo(f"{one.name}: {note}.")
    for name, why in found.refused.items():
        click.echo(f"Not measured: {name}. {why}")
    click.echo(found.caveat)


def _measured(one: Contender, found: Recommendation) -> list[Text]:
    recall = f"{one.best.recall.value:.3f}" + ("" if one.chosen else " misses")
    figures = [recall, f"{one.p50:.2f}", f"{one.build_seconds:.1f}"]
    return [Text(text) for text in (one.name, show_settings(one.best.settings), *figures, *_sizes(one.sizes, found))]


def _unmeasured(prospect: Prospect, found: Recommendation) -> list[Text]:
    search, recall = "needs an encoder", ""
    if prospect.estimates:
        count = prospect.enough or max(prospect.estimates)
        search, recall = f"candidates {count}", f"~{prospect.estimates[count].value:.3f}"
    return [Text(text) for text in (prospect.name, search, recall, "", "", *_sizes(prospect.sizes, found))]


def _sizes(sizes: RowCost, found: Recommendation) -> list[str]:
    shown = [sizes.memory_bytes, *([sizes.disk_bytes] if _on_disk(found) else [])]
    return [text for size in shown for text in (f"{size:,.0f}", _in_bytes(size * found.rows))]


def _on_disk(found: Recommendation) -> bool:
    """True if any index type keeps something on disk."""
    costs = [*(one.sizes for one in found.contenders), *(one.sizes for one in found.prospects)]
    return any(cost.disk for cost in costs)


def _in_bytes(size: float) -> str:
    """A number of bytes with three digits and its unit."""
    for unit, step in (("TB", 1e12), ("GB", 1e9)):
        if size >= step:
            return f"{size / step:.3g} {unit}"
    return f"{size / 1e6:.3g} MB" if size else "0"
