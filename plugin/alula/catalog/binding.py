"""Bind a collection to its encoder and index type, or say why they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alula.catalog.description import connected, describe
from alula.catalog.schema import ScalarField
from alula.catalog.search_defaults import read_defaults
from alula.encoders import Encoder, load_encoder
from alula.errors import EncoderError
from alula.index_types import IndexType, Lowering, VectorField, index_type
from alula.milvus import Server, milvus_errors


@dataclass(frozen=True)
class CollectionSpec:
    """A collection's fields and index type, bound to its encoder; in Milvus or yet to be created.

    Args:
        server: The connected server.
        name: The collection.
        primary_key: Its primary key field.
        fields: Its scalar fields.
        lowering: Its index type in this server's native terms.
        defaults: Search options for searches that do not give them, ``rerank`` included.
    """

    server: Server
    name: str
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    lowering: Lowering
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def index_type(self) -> IndexType:
        """Its index type."""
        return index_type(self.lowering.settings["type"])


def open_spec(server: Server | str, name: str, encoder: Encoder | str | Path) -> CollectionSpec:
    """Bind an existing collection to the encoder that it was created with, and have Milvus load it.

    Raises:
        UsageError: If there is no such collection, or it is not one of Alula's.
        EncoderError: If it was created with another encoder; both fingerprints are named.
        ServerError: If Milvus fails.
    """
    server = connected(server, must_exist=True)
    encoder = opened(encoder)
    description = describe(server, name, count=False)
    lowering = lowering_of(f"The collection {name!r}", description.settings, encoder)
    with milvus_errors(f"load the collection {name!r}"):
        server.client.load_collection(name)
    defaults = read_defaults(index_type(description.settings["type"]), description.defaults)
    return CollectionSpec(server, name, description.primary_key, description.fields, lowering, defaults)


def opened(encoder: Encoder | str | Path) -> Encoder:
    """An encoder, loaded if it is a file."""
    return load_encoder(encoder) if isinstance(encoder, str | Path) else encoder


def lowering_of(owner: str, settings: Mapping[str, str], encoder: Encoder) -> Lowering:
    """The lowering that was chosen when a collection was created.

    Args:
        owner: The subject of error messages, e.g. ``The collection 'words'``.
        settings: The settings stored with the collection.
        encoder: Its encoder.

    Raises:
        EncoderError: If it was created with another encoder; both fingerprints are named.
    """
    if settings["encoder"] != encoder.sha256:
        raise EncoderError(
            f"{owner} was created with the encoder {settings['encoder'][:16]}, and {encoder.path} is "
            f"{encoder.sha256[:16]}; another encoder cannot read its rows."
        )
    kind = index_type_for(settings["type"], encoder)
    lowering: Lowering = kind.lowering(field_of(settings), encoder, settings)
    return lowering


def field_of(settings: Mapping[str, str]) -> VectorField:
    """A collection's vector field out of its stored settings."""
    return VectorField(settings["field"], int(settings["dim"]), settings["metric"], settings["vectors"])  # type: ignore[arg-type]


def index_type_for(name: str, encoder: Encoder, called: str | None = None) -> Any:
    """The index type of a name; raise an `EncoderError` unless it takes such an encoder, which errors call `called`."""
    kind = index_type(name)
    if kind.encoder_kind != encoder.kind:
        raise EncoderError(
            f"{name} needs an encoder of the kind {kind.encoder_kind!r}, and {called or encoder.path} is of the kind "
            f"{encoder.kind!r}; train one with 'alula train {kind.encoder_kind}'."
        )
    return kind
