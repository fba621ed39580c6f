"""``alula describe``."""

from __future__ import annotations

from dataclasses import asdict

import click

from alula.catalog.description import describe
from alula.catalog.schema import fields_text
from alula.cli.options import connection_options, format_option, show_json, show_pairs
from alula.cli.row_cost import compared_words, disk_words, key_words, memory_words
from alula.milvus import Server

_VECTORS = {
    "field": "kept in a vector field, for exact re-ranking",
    "column": "kept in an ARRAY column, for exact re-ranking (this server has one vector field per collection)",
    "dropped": "dropped; scores are estimates",
}


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
    settings = description.settings
    pairs = {
        "collection": description.name,
        "server": description.server,
        "rows": "not counted" if description.rows is None else f"{description.rows:,}",
        "index type": settings["type"] + (f", layout {settings['layout']}" if "layout" in settings else ""),
        "vector field": f"{settings['field']}, {settings['dim']} dimensions, {settings['metric']}",
        "vectors": _VECTORS[settings["vectors"]],
        "encoder (sha256)": settings["encoder"],
        "memory per row": f"{memory_words(description.cost)}, beside {key_words(description.primary_key)} of the key",
        "disk per row": disk_words(description.cost),
        "other index types": f"{compared_words(int(settings['dim']))} of memory per row",
        "primary key": str(description.primary_key),
        "scalar fields": fields_text(description.fields, description.partition_key, dynamic=description.dynamic)
        or "none",
        "added by Alula": ", ".join(f"{field} ({data_type})" for field, data_type in description.companions.items()),
    }
    if description.unindexed:
        pairs["lost indexes"] = f"{', '.join(description.unindexed)}; 'alula repair {name}' creates them again"
    if description.defaults:
        chosen = ", ".join(f"{option} {value}" for option, value in description.defaults.items())
        pairs["search options"] = f"{chosen} (defaults of this collection; 'alula tune {name} --reset' removes them)"
    if description.text:
        pairs["description"] = description.text
    show_pairs(pairs)
