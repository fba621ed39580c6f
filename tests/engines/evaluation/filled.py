"""A collection as users have it: with Milvus's own consistency level, under which a search does not wait."""

from __future__ import annotations

import alula
from tests.small_collections import Rows


def filled(server: alula.Server, name: str, encoder, index_type: str, **arguments) -> alula.Collection:
    """A collection that holds `Rows`, all of which a search sees."""
    rows = Rows()
    made = alula.Collection.create(
        server,
        name,
        encoder=encoder.path,
        index_type=index_type,
        primary_key="id:VARCHAR(100)",
        columns=["year:INT64", "word:VARCHAR(16)"],
        **arguments,
    )
    made.insert(rows.vectors, rows.columns)
    made.count()
    return made
