"""``alula index-types``."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from alula.cli.options import connection_options, console, format_option, show_json
from alula.errors import UnsupportedError
from alula.index_types import Capabilities, IndexType, check_options, index_types
from alula.milvus import Server, probe


@click.command("index-types")
@connection_options(required=False)
@format_option
def command(server: Server | None, output_format: str) -> None:
    """List the index types; with --uri, also those that the server supports."""
    capabilities = probe(server) if server else None
    verdicts = {name: verdict(kind, capabilities) if capabilities else "" for name, kind in index_types().items()}
    if output_format == "json":
        for name, kind in index_types().items():
            show_json(
                {
                    "name": name,
                    "encoder": kind.encoder_kind,
                    "summary": kind.summary,
                    "create_options": {option.name: option.default for option in kind.create_options},
                    "search_options": {option.name: option.default for option in kind.search_options},
                    **({"server": verdicts[name]} if server else {}),
                }
            )
        return
    table = Table(show_lines=True)
    for heading in ("index type", "encoder", "summary", "options", *(["on this server"] if server else [])):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("index type", "encoder"))
    for name, kind in index_types().items():
        options = [f"create --{option.name.replace('_', '-')}" for option in kind.create_options]
        options += [f"search --{option.name.replace('_', '-')}" for option in kind.search_options]
        row = [name, kind.encoder_kind, kind.summary, "\n".join(options)]
        table.add_row(*map(Text, [*row, verdicts[name]] if server else row))
    console().print(table)


def verdict(kind: IndexType, capabilities: Capabilities) -> str:
    """The settings of an index type on a server, or the reason why it cannot have it."""
    try:
        chosen = kind.choose(capabilities, check_options(kind.create_options, {}, kind.name))
    except UnsupportedError as error:
        return f"no: {error}"
    return "yes" + (f", {', '.join(f'{key} {value}' for key, value in chosen.items())}" if chosen else "")
