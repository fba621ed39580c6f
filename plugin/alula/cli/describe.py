"""``alula describe``."""

from __future__ import annotations

from dataclasses import asdict

import click

from alula.catalog.description import describe
from alula.cli.options import connection_options, format_option, show_json, show_pairs
from alula.cli.row_cost import compared_words, disk_words, key_words, memory_words
from alula.milvus import Server


@click.command("describe")
@click.argument("name")
@connection_options()
@format_option
def command(name: str, server: Server, output_format: str) -> None:
    """Show the index type, encoder, fields and rows of the collection NAME."""
    description = describe(server, name)
    if output_format == "json":
        show_json(asdict(description))
        return
    pairs = {
        **description.facts,
        "memory per row": f"{memory_words(description.cost)}, beside {key_words(description.primary_key)} of the key",
        "disk per row": disk_words(description.cost),
        "other index types": f"{compared_words(int(description.settings['dim']))} of memory per row",
    }
    if description.unindexed:
        pairs["lost indexes"] = f"{', '.join(description.unindexed)}; 'alula repair {name}' creates them again"
    if description.defaults:
        chosen = ", ".join(f"{option} {value}" for option, value in description.defaults.items())
        pairs["search options"] = f"{chosen} (defaults of this collection; 'alula tune {name} --reset' removes them)"
    if description.text:
        pairs["description"] = description.text
    show_pairs(pairs)
