"""Adapter: an Alula index type as a Milvus Lite 3 index."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from alula.catalog.binding import check_fit
from alula.encoders import Encoder, load_encoder
from alula.errors import EncoderError, UsageError
from alula.index_types import IndexType, Option, check_options, index_types
from alula.index_types.local import F32
from alula.lite.segment_index import EncodedBy, SegmentIndex

BUILD_OPTIONS = (
    Option("encoder", str, "The encoder file."),
    Option("encoder_sha256", str, "Its fingerprint; stored when the index is created."),
)
# Parameters that Milvus and pymilvus add to any search.
MILVUS_SEARCH_PARAMS = frozenset({"metric_type", "radius", "range_filter", "hints", "ignore_growing", "round_decimal"})


class LiteIndexType:
    """One index type of Alula as Milvus Lite calls it.

    Args:
        kind: The index type.
    """

    def __init__(self, kind: IndexType) -> None:
        self.kind = kind

    def check_build(
        self, field: str, dim: int, metric: str | None, params: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Check the user's parameters of a new index.

        Args:
            field: Name of the vector field.
            dim: Its dimension.
            metric: The metric; the encoder's by default.
            params: ``{"encoder": path}``.

        Returns:
            The metric, and the parameters to store: the encoder's absolute path and fingerprint.

        Raises:
            UsageError, EncoderError: If an option, the encoder or its fit to the field is wrong.
        """
        name = self.kind.name
        options = check_options(BUILD_OPTIONS, params, name)
        if options["encoder"] is None:
            raise UsageError(f"{name} needs an encoder: params={{'encoder': '/path/to/encoder.onnx'}}.")
        encoder = open_encoder(options["encoder"], options["encoder_sha256"])
        check_fit(
            self.kind,
            encoder,
            subject=f"The field {field!r}",
            fingerprint=options["encoder_sha256"],
            dim=dim,
            metric=metric,
        )
        return encoder.info.metric, {"encoder": str(encoder.path), "encoder_sha256": encoder.sha256}

    def check_search(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Read the search options of the index type, each present.

        Raises:
            UsageError: If one is unknown or its value wrong.
        """
        options = self.kind.local_options
        numbers = {option.name for option in options if option.value_type is int}
        given = {name: value for name, value in params.items() if name not in MILVUS_SEARCH_PARAMS}
        read = {name: _number(value) if name in numbers else value for name, value in given.items()}
        return check_options(options, read, self.kind.name)

    def build(self, params: Mapping[str, Any], vectors: F32) -> SegmentIndex:
        """Build the index of a segment's vectors (n, d), with `check_build`'s parameters."""
        return SegmentIndex.build(self._recipe(params), vectors)

    def load(self, params: Mapping[str, Any], path: str) -> SegmentIndex:
        """Load the index of a segment from its sidecar file, with the same parameters."""
        return SegmentIndex.load(self._recipe(params), path)

    def _recipe(self, params: Mapping[str, Any]) -> EncodedBy:
        if "encoder_sha256" not in params:
            raise UsageError(
                f"This {self.kind.name} index was created before alula.lite.register() was called in that process, and "
                "does not know its encoder; drop the index and create it again."
            )
        fingerprint = params["encoder_sha256"]
        encoder = open_encoder(params["encoder"], fingerprint)
        check_fit(self.kind, encoder, subject=f"The {self.kind.name} index", fingerprint=fingerprint)
        return EncodedBy(self.kind, encoder)


def local_index_types() -> dict[str, LiteIndexType]:
    """The index types that work in this process, by names in capitals."""
    return {
        name.upper(): LiteIndexType(kind)
        for name, kind in index_types().items()
        if type(kind).local is not IndexType.local
    }


def open_encoder(path: str, sha256: str | None) -> Encoder:
    """Open an encoder file, or return the one that segments share already.

    Args:
        path: The file.
        sha256: The fingerprint of the encoder that the index was created with, for the error.

    Raises:
        EncoderError: If the file is missing or cannot be used.
    """
    file = Path(path).expanduser().absolute()
    try:
        about = file.stat()
    except OSError:
        was = f" The index was created with the encoder {sha256[:16]}; put that file back." if sha256 else ""
        raise EncoderError(f"There is no encoder {file}.{was}") from None
    return _opened(file, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=8)
def _opened(file: Path, changed: int, size: int) -> Encoder:
    del changed, size  # part of the cache key: a replaced file is another encoder
    return load_encoder(file)


def _number(value: Any) -> Any:
    """Convert a whole number that a client sent as text."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value
