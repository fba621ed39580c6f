"""``alula describe``."""

from __future__ import annotations

from dataclasses import asdict

import click

from alula.catalog.description import describe
from alula.cli.options import connection_options, format_option, show_json, show_pairs
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
    """Show what the collection NAME is: index type, encoder, fields, rows."""
    about = describe(server, name)
    if output_format == "json":
        show_json(asdict(about))
        return
    settings = about.settings
    pairs = {
        "collection": about.name,
        "server": about.server,
        "rows": f"{about.rows:,}",
        "index type": settings["type"] + (f", layout {settings['layout']}" if "layout" in settings else ""),
        "vector field": f"{settings['field']}, {settings['dim']} dimensions, {settings['metric']}",
        "vectors": _VECTORS[settings["vectors"]],
        "encoder (sha256)": settings["encoder"],
        "index per row": f"at most {settings['bytes_per_row']} bytes",
        "primary key": str(about.primary_key),
        "scalar fields": ", ".join(map(str, about.fields)) or "none",
        "kept by Alula": ", ".join(f"{field} ({data_type})" for field, data_type in about.companions.items()),
    }
    if about.defaults:
        chosen = ", ".join(f"{option} {value}" for option, value in about.defaults.items())
        pairs["search options"] = f"{chosen} (defaults of this collection; 'alula tune {name} --reset' removes them)"
    if about.text:
        pairs["description"] = about.text
    show_pairs(pairs)
