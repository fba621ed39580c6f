"""Create the native indexes that a collection has lost, as a backup may do."""

from __future__ import annotations

from pathlib import Path

from alula.catalog.collection_spec import described
from alula.catalog.create import native_indexes
from alula.encoders import Encoder
from alula.milvus import Server, ensure_loaded, milvus_errors
from alula.milvus.schema_fields import index_params


def repair(server: Server | str, name: str, *, encoder: Encoder | str | Path) -> tuple[str, ...]:
    """Create the native indexes that a collection has lost, and load it.

    The settings come from an index that is left, or from the description.

    Args:
        server: A connected server or its address.
        name: The collection.
        encoder: The encoder that it was created with, or its file.

    Returns:
        The fields that had lost their index.

    Raises:
        UsageError: If there is no such collection, or its settings are lost too.
        EncoderError: If it was created with another encoder; both fingerprints are named.
        ServerError: If Milvus fails.
    """
    server, description, lowering = described(server, name, encoder)
    lost = [native for native in native_indexes(lowering) if native.field in description.unindexed]
    if lost:
        with milvus_errors(f"create the indexes of {name!r}"):
            server.client.create_index(name, index_params(server.client, lost))
    ensure_loaded(server, name)
    return tuple(native.field for native in lost)
