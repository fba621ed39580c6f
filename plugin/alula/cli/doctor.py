"""``alula doctor``."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from alula.cli.index_types import verdict
from alula.cli.options import connection_options, console, format_option, show_json
from alula.index_types import index_types, probes
from alula.milvus import Server, probe


@click.command("doctor")
@connection_options()
@format_option
def command(server: Server, output_format: str) -> None:
    """Show the capabilities of a server, by creating and dropping small collections."""
    capabilities = probe(server)
    verdicts = {name: verdict(kind, capabilities) for name, kind in index_types().items()}
    if output_format == "json":
        show_json(
            {
                "server": capabilities.server,
                "sparse_index": capabilities.sparse_index,
                "binary_indexes": sorted(capabilities.binary_indexes),
                "several_vector_fields": capabilities.several_vector_fields,
                "array_field": capabilities.array_field,
                "probes": {each.name: each.name in capabilities.supported for each in probes()},
                "reasons": capabilities.reasons,
                "index_types": verdicts,
            }
        )
        return
    click.echo(f"{capabilities.server} at {server.uri}\n")
    table = Table()
    table.add_column("capability", no_wrap=True)
    table.add_column("available", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for each in probes():
        works, reason = each.name in capabilities.supported, capabilities.reasons.get(each.name, "")
        meaning = each.yes if works else ": ".join(filter(None, (each.no, reason)))
        table.add_row(each.question, Text("yes", "green") if works else Text("no", "red"), Text(meaning))
    console().print(table)
    for name, text in verdicts.items():
        click.echo(f"{name}: {text}")
