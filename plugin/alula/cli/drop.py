"""``alula drop``."""

from __future__ import annotations

import click

from alula.catalog.description import describe
from alula.cli.options import confirmed, connection_options
from alula.collection import drop
from alula.errors import AlulaError
from alula.milvus import Server


@click.command("drop")
@click.argument("name")
@connection_options()
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(name: str, server: Server, yes: bool) -> None:
    """Drop the collection NAME with all its rows; only collections that Alula created."""
    description = describe(server, name)
    rows = "its" if description.rows is None else f"{description.rows:,}"
    if not yes and not confirmed(f"Drop {name} at {server.uri} with {rows} rows? This cannot be undone.", "drop it"):
        raise AlulaError(f"{name} was not dropped.")
    drop(server, name)
    click.echo(f"Dropped {name}.")
