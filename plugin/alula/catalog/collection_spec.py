"""A collection's fields and index type, bound to its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alula.catalog.binding import lowering_of
from alula.catalog.description import Description, connected, describe
from alula.catalog.schema import ScalarField
from alula.catalog.search_defaults import read_defaults
from alula.encoders import Encoder, load_encoder
from alula.errors import UsageError
from alula.index_types import IndexType, Lowering, RowCost, index_type, lowering_cost
from alula.milvus import Server, ensure_loaded


@dataclass(frozen=True)
class CollectionSpec:
    """A collection's fields and index type, bound to its encoder.

    The collection exists in Milvus, or is yet to be created.

    Args:
        server: The connected server.
        name: The collection.
        primary_key: Its primary key field.
        fields: Its scalar fields.
        lowering: Its index type in this server's native terms.
        partition_key: The scalar field by whose values Milvus spreads the rows over partitions.
        dynamic: True if it takes values that have no field, as Milvus's dynamic fields.
        defaults: Search options for searches that do not give them, ``rerank`` included.
    """

    server: Server
    name: str
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    lowering: Lowering
    partition_key: str | None = None
    dynamic: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def index_type(self) -> IndexType:
        """Its index type."""
        return index_type(self.lowering.settings["type"])

    @property
    def cost(self) -> RowCost:
        """The bytes of a row of its index and kept vectors on its server."""
        return lowering_cost(self.lowering, maps=self.server.dialect.maps)


def open_spec(server: Server | str, name: str, encoder: Encoder | str | Path) -> CollectionSpec:
    """Load an existing collection and bind it to the encoder it was created with.

    Raises:
        UsageError: If there is no such collection, or it is not one of Alula's.
        EncoderError: If it was created with another encoder; both fingerprints are named.
        ServerError: If Milvus fails.
    """
    server, description, lowering = described(server, name, encoder)
    if description.unindexed:
        raise UsageError(
            f"The collection {name!r} has lost the index of {', '.join(description.unindexed)}; 'alula repair {name}' "
            "creates it again."
        )
    ensure_loaded(server, name)
    defaults = read_defaults(index_type(description.settings["type"]), description.defaults)
    return CollectionSpec(
        server,
        name,
        description.primary_key,
        description.fields,
        lowering,
        description.partition_key,
        description.dynamic,
        defaults,
    )


def described(server: Server | str, name: str, encoder: Encoder | str | Path) -> tuple[Server, Description, Lowering]:
    """The server, description and lowering of an existing collection, not loaded.

    Errors are those of `open_spec`.
    """
    server = connected(server, must_exist=True)
    encoder = load_encoder(encoder) if isinstance(encoder, str | Path) else encoder
    description = describe(server, name, count=False)
    return server, description, lowering_of(f"The collection {name!r}", description.settings, encoder)
