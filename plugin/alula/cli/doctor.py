"""``alula doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from alula.cli.index_types import verdict
from alula.cli.options import connection_options, console, format_option, show_json
from alula.index_types import index_types
from alula.milvus import Server, probe


@click.command("doctor")
@connection_options()
@format_option
def command(server: Server, output_format: str) -> None:
    """Show what works on a server and why not, by trying it: small collections are created and dropped again."""
    capabilities = probe(server)
    verdicts = {name: verdict(kind, capabilities) for name, kind in index_types().items()}
    if output_format == "json":
        found = asdict(capabilities) | {"binary_indexes": sorted(capabilities.binary_indexes)}
        show_json({**found, "index_types": verdicts})
        return
    click.echo(f"{capabilities.server} at {server.uri}\n")
    table = Table()
    table.add_column("asked", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("what it means", overflow="fold")
    why = capabilities.reasons
    for asked, works, good, bad in (
        (
            "sparse inverted index",
            capabilities.sparse_index,
            "FLOPS_SPARSE and DRQ's layout adc work",
            f"no FLOPS_SPARSE, no layout adc: {why.get('sparse_index')}",
        ),
        (
            "binary index BIN_FLAT",
            "BIN_FLAT" in capabilities.binary_indexes,
            "DRQ's layout hamming works",
            f"no layout hamming: {why.get('BIN_FLAT')}",
        ),
        (
            "binary index BIN_IVF_FLAT",
            "BIN_IVF_FLAT" in capabilities.binary_indexes,
            "layout hamming can visit a part of the rows only",
            f"layout hamming visits all rows: {why.get('BIN_IVF_FLAT')}",
        ),
        (
            "several vector fields",
            capabilities.several_vector_fields,
            "vectors are kept in a field of their own",
            f"vectors are kept in an ARRAY column, or dropped: {why.get('several_vector_fields')}",
        ),
        ("ARRAY fields", capabilities.array_field, "", f"{why.get('array_field')}"),
    ):
        table.add_row(asked, Text("yes", "green") if works else Text("no", "red"), Text(good if works else bad))
    console().print(table)
    for name, text in verdicts.items():
        click.echo(f"{name}: {text}")
