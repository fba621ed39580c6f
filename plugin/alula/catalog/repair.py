"""Create the native indexes that a collection has lost, as a backup may do."""

from __future__ import annotations

from pathlib import Path

from alula.catalog.binding import lowering_of
from alula.catalog.create import native_indexes
from alula.catalog.description import connected, describe
from alula.encoders import Encoder, load_encoder
from alula.milvus import Server, ensure_loaded, milvus_errors


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
    server = connected(server, must_exist=True)
    encoder = load_encoder(encoder) if isinstance(encoder, str | Path) else encoder
    description = describe(server, name, count=False)
    lowering = lowering_of(f"The collection {name!r}", description.settings, encoder)
    lost = [native for native in native_indexes(lowering) if native.field in description.unindexed]
    for native in lost:
        params = server.client.prepare_index_params()
        params.add_index(
            native.field, index_type=native.index_type, metric_type=native.metric, params=dict(native.params)
        )
        with milvus_errors(f"create the index of {native.field!r}"):
            server.client.create_index(name, params)
    ensure_loaded(server, name)
    return tuple(native.field for native in lost)
