"""Check that an encoder fits an index type, a vector field and a collection.

Nothing here knows Milvus: Python, the command line, the gateway, the migration and Milvus Lite 3 share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from alula.encoders import Encoder, Metric
from alula.errors import EncoderError, UsageError
from alula.index_types import IndexType, Lowering, VectorField, index_type


def check_fit(
    kind: IndexType,
    encoder: Encoder,
    *,
    subject: str,
    fingerprint: str | None = None,
    dim: int | None = None,
    metric: str | None = None,
    called: str | None = None,
) -> None:
    """Raise an error unless an encoder fits an index type and a vector field.

    Args:
        kind: The index type.
        encoder: The encoder.
        subject: The use of the encoder, as the subject of the sentence, e.g. ``The collection 'words'``.
        fingerprint: The sha256 of the encoder that the subject was created with, if it exists.
        dim: The dimension of the subject's vectors, if that is given.
        metric: The subject's metric, if that is given; in capitals or not.
        called: The encoder's name in messages; its path by default.

    Raises:
        EncoderError: If the encoder is of another kind, or not the one that the subject was created with.
        UsageError: If the encoder takes another dimension, or was trained for another metric.
    """
    info, name = encoder.info, called or encoder.path
    if fingerprint not in (None, encoder.sha256):
        raise EncoderError(
            f"{subject} was created with the encoder {str(fingerprint)[:16]}, and {name} is {encoder.sha256[:16]}; "
            "give the encoder that it was created with, or create it again with the other one."
        )
    if encoder.kind != kind.encoder_kind:
        raise EncoderError(
            f"{kind.name} needs an encoder of the kind {kind.encoder_kind!r}, and {name} is of the kind "
            f"{encoder.kind!r}; train one with 'alula train {kind.encoder_kind}'."
        )
    if dim not in (None, info.input_dim):
        raise UsageError(
            f"{subject} has vectors of dimension {dim}, and the encoder {name} takes {info.input_dim}; give an "
            "encoder that was trained on such vectors."
        )
    if metric and metric.upper() != info.metric:
        train = f", or train an encoder with 'alula train {kind.encoder_kind} --metric {metric.upper()}'"
        raise UsageError(
            f"{subject} has the metric {metric}, and the encoder {name} was trained for {info.metric}; choose "
            f"{info.metric}{train if metric.upper() in get_args(Metric) else ''}."
        )


def check_index_type(subject: str, stored: str, asked: str) -> None:
    """Raise a `UsageError` unless an existing index type is the one asked for."""
    if stored.upper() != asked.upper():
        raise UsageError(
            f"{subject} has the index type {stored}, and cannot have {asked} as well; create another collection for it."
        )


def lowering_of(owner: str, settings: Mapping[str, str], encoder: Encoder) -> Lowering:
    """The lowering that was chosen when a collection was created.

    Args:
        owner: The collection, as the subject of error messages, e.g. ``The collection 'words'``.
        settings: The settings stored with the collection.
        encoder: Its encoder.

    Raises:
        EncoderError: If it was created with another encoder; both fingerprints are named.
    """
    kind, field = index_type(settings["type"]), field_of(settings)
    check_fit(kind, encoder, subject=owner, fingerprint=settings["encoder"], dim=field.dim, metric=field.metric)
    return kind.lowering(field, encoder, settings)


def field_of(settings: Mapping[str, str]) -> VectorField:
    """A collection's vector field out of its stored settings."""
    name, dim, metric, storage = (settings[key] for key in ("field", "dim", "metric", "vectors"))
    vector_type = settings.get("vector_type", "FLOAT_VECTOR")
    return VectorField(name, int(dim), metric, storage, vector_type)  # type: ignore[arg-type]
