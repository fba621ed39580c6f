"""``alula search``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table
from rich.text import Text

from alula.cli.options import (
    connection_options,
    console,
    encoder_option,
    format_option,
    index_type_options,
    show_json,
)
from alula.collection import Collection
from alula.encoders import Input
from alula.errors import UsageError
from alula.milvus import Id, Server
from alula.search import Hit, Results
from alula.search.hits import value_text
from alula.sources import read_inputs


@click.command("search")
@click.argument("name")
@click.option("--id", "like", help="Find rows like the one with this id.")
@click.option("--vector", help="One query vector as a JSON list; - reads it from standard input.")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Many query vectors: a .npy, Parquet or JSON lines file.",
)
@click.option("--vector-column", help="With --vectors: the column that holds them.")
@click.option("--text", "texts", multiple=True, help="A text to search for; repeatable.")
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Many texts: a .txt file with one per line, a Parquet or JSON lines file.",
)
@click.option("--text-column", help="With --texts: the column that holds them.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Images: a .npy file of uint8 (rows, height, width, channels).",
)
@encoder_option
@connection_options()
@click.option("--limit", default=10, show_default=True, help="Results per query.")
@click.option("--offset", default=0, show_default=True, help="Results to leave out at the start.")
@click.option("--filter", "expression", default="", help="Scalar filter in Milvus's words, e.g. 'year > 2020'.")
@click.option("--output-field", "-o", "output_fields", multiple=True, help="Field to show with each hit; repeatable.")
@click.option("--partition", "partitions", multiple=True, help="Partition to search; repeatable, all by default.")
@click.option(
    "--consistency",
    type=click.Choice(["Strong", "Bounded", "Session", "Eventually"]),
    help="Consistency level; the collection's own by default.",
)
@index_type_options("all_search_options")
@format_option
def command(
    *,
    name: str,
    like: str | None,
    vector: str | None,
    vectors: Path | None,
    vector_column: str | None,
    texts: tuple[str, ...],
    texts_file: Path | None,
    text_column: str | None,
    images: Path | None,
    encoder: Path,
    server: Server,
    expression: str,
    consistency: str | None,
    options: Mapping[str, Any],
    output_format: str,
    **arguments: Any,
) -> None:
    """Search the collection NAME by a row's id, or by vectors, texts or images.

    \b
    alula search words --id cat -o word --uri ./words.db --encoder words-drq.onnx
    alula search words --vectors queries.npy --limit 20 --bits 64 --format json
    alula search papers --text "birds that fly slowly" --uri ./papers.db --encoder papers-text.onnx
    """
    files: tuple[tuple[Any, str | None, Input], ...] = (
        (vectors, vector_column, "vectors"),
        (texts_file, text_column, "text"),
        (images, None, "images"),
    )
    if sum(value is not None for value in (like, vector, texts or None, *(file for file, _, _ in files))) != 1:
        raise UsageError("Say what to search for: one of --id, --vector, --vectors, --text, --texts or --images.")
    limit, candidates = arguments["limit"], options.get("candidates", math.inf)
    if candidates < limit:
        click.echo(f"--candidates {candidates} is below --limit {limit}; more candidates are taken.", err=True)
    arguments = {**arguments, "filter": expression, "consistency_level": consistency, **options}
    collection = Collection.open(server, name, encoder=encoder)
    if like is not None:
        results = Results([collection.search_like(_key(collection, like), **arguments)])
    elif vector is not None:
        results = collection.search(_parse(vector), **arguments)
    elif texts:
        _check_takes(collection, "text")
        results = collection.search(texts, **arguments)
    else:
        file, column, kind = next(given for given in files if given[0] is not None)
        if kind != "vectors":  # which any encoder takes: they may be embeddings
            _check_takes(collection, kind)
        results = collection.search(read_inputs(file, column, kind), **arguments)
    if output_format == "json":
        for number, hits in enumerate(results):
            show_json({"query": number, "hits": [_plain(hit) for hit in hits]})
        return
    for number, found in enumerate(results):
        title = f"query {number}" if len(results) > 1 else None
        _show(found, collection.lowering.field.metric, arguments["output_fields"], title)


def _key(collection: Collection, text: str) -> Id:
    if collection.primary_key.data_type == "VARCHAR":
        return text
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise UsageError(f"The ids of {collection.name!r} are whole numbers of 64 bits, and {text!r} is not one.")
    return number


def _check_takes(collection: Collection, kind: Input) -> None:
    encoder = collection.lowering.encoder
    if encoder.info.input != kind:
        instead = {"text": "--text or --texts", "images": "--images", "vectors": "--vector or --vectors"}
        raise UsageError(
            f"The encoder {encoder.path.name} takes {encoder.info.input}, not {kind}; search with "
            f"{instead[encoder.info.input]}."
        )


def _parse(text: str) -> Any:
    try:
        if text == "-":
            text = sys.stdin.read() if sys.stdin else ""  # None when it is closed
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            return np.array(json.loads(text), np.float32)
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise UsageError("--vector is not a JSON list of numbers, e.g. '[0.1, 0.2, 0.3]'.") from None


def _plain(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "score": hit.score, "exact": hit.exact, "fields": dict(hit.fields)}


def _show(hits: Sequence[Hit], metric: str, fields: Sequence[str], title: str | None) -> None:
    if not hits:
        click.echo(f"{title or 'The search'}: no row matches.")
        return
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("id", overflow="fold")
    table.add_column(("squared L2" if metric == "L2" else metric) if hits[0].exact else "estimate", justify="right")
    for name in fields:
        table.add_column(Text(name), overflow="fold")
    for rank, hit in enumerate(hits, 1):
        values = [Text(value_text(hit.fields.get(name))) for name in fields]
        table.add_row(str(rank), Text(str(hit.id)), f"{hit.score:.4f}", *values)
    console().print(table)
