"""``alula repair``."""

from __future__ import annotations

from pathlib import Path

import click

from alula.catalog.repair import repair
from alula.cli.options import connection_options, encoder_option
from alula.milvus import Server


@click.command("repair")
@click.argument("name")
@encoder_option
@connection_options()
def command(name: str, encoder: Path, server: Server) -> None:
    """Create the indexes that the collection NAME has lost, and load it.

    Its rows stay as they are. A backup that is restored without its indexes loses them, as does 'drop index' in a
    console.
    """
    lost = repair(server, name, encoder=encoder)
    if lost:
        click.echo(f"Created the index of {', '.join(lost)} again; {name} is loaded.")
    else:
        click.echo(f"{name} has all its indexes, and is loaded.")
