"""``alula doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from alula.catalog.create import DEFAULT_KEY
from alula.catalog.schema import ScalarField
from alula.cli.index_types import verdict
from alula.cli.options import connection_options, console, encoder_options, format_option, show_json
from alula.cli.row_cost import compared_words, show_cost
from alula.encoders import Encoder, load_encoder
from alula.errors import UnsupportedError
from alula.index_types import Capabilities, RowCost, Storage, choose_storage, encoder_cost, index_types, probes
from alula.milvus import Server, probe
from alula.milvus.privileges import ROLES, Role

_DIMENSIONS = (384, 768, 1536)  # of widely used text encoders


@click.command("doctor")
@connection_options(must_exist=False)
@encoder_options(required=False)
@format_option
def command(server: Server, encoder: Path | None, output_format: str) -> None:
    """Show the capabilities of a server, by creating and dropping small collections.

    With --encoder, also the memory and disk that a row of its index takes there. A database file that does not exist
    is created for it, and removed again.
    """
    loaded = load_encoder(encoder) if encoder else None
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
                "privileges": {name: role.privileges for name, role in ROLES.items()},
                **({"row": _row(loaded, capabilities, server)} if loaded else {}),
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
    click.echo()
    _show_row(loaded, capabilities, server)
    if not server.embedded:
        click.echo("\nPrivileges, where logins need them:")
        for name, role in ROLES.items():
            click.echo(f"{name} ({role.commands}): {'; '.join(_privileges(role))}")


def _privileges(role: Role) -> Iterator[str]:
    for kind, names in role.privileges.items():
        yield f"{kind}: {', '.join(names)}"


def _row(encoder: Encoder, capabilities: Capabilities, server: Server) -> dict[str, object]:
    """The cost of a row of an encoder's index, or why the server cannot have it."""
    try:
        return asdict(_cost(encoder, capabilities, server)[0])
    except UnsupportedError as error:
        return {"reason": str(error)}


def _cost(encoder: Encoder, capabilities: Capabilities, server: Server) -> tuple[RowCost, Storage]:
    storage = choose_storage(True, capabilities)
    cost = encoder_cost(encoder, capabilities, keep_vectors=True, maps=server.dialect.maps)
    return cost, storage


def _show_row(encoder: Encoder | None, capabilities: Capabilities, server: Server) -> None:
    """Print the cost of a row of an encoder's index, or of Milvus's own."""
    if encoder is None:
        for dim in _DIMENSIONS:
            click.echo(f"Memory per row at {dim:,} dimensions: {compared_words(dim)}.")
        click.echo("Give --encoder FILE for the memory and disk that a row of its index takes here.")
        return
    try:
        cost, storage = _cost(encoder, capabilities, server)
    except UnsupportedError as error:
        click.echo(f"{encoder.path.name}: {error}")
        return
    click.echo(f"Rows of {encoder.path.name}:")
    show_cost(cost, encoder.info.input_dim, storage, ScalarField(DEFAULT_KEY, "INT64"))
