"""Open files of the inputs that an encoder takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from alula.encoders import Encoder
from alula.errors import UsageError
from alula.sources.files import FileSource
from alula.sources.opening import open_source


def open_rows(
    encoder: Encoder,
    paths: str | Path | Sequence[str | Path],
    *,
    vector_column: str | None = None,
    text_column: str | None = None,
    mapping: Mapping[str, str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    metadata: str | Path | None = None,
) -> FileSource:
    """Open files of an encoder's inputs; arguments as `alula.sources.open_source`.

    Raises:
        UsageError, DataError: If they cannot be opened, or the encoder takes other inputs.
    """
    info = encoder.info
    return open_source(
        paths,
        column_of(encoder, vector_column, text_column),
        info.input,
        mapping=mapping,
        types=types,
        metadata=metadata,
        dim=info.input_dim if info.input == "vectors" else None,
        image_shape=info.image_shape if info.input == "images" else None,
    )


def column_of(encoder: Encoder, vector_column: str | None, text_column: str | None) -> str | None:
    """The column of a file to encode, None if the user named none.

    Raises:
        UsageError: If the user named a column of inputs that the encoder does not take.
    """
    takes = encoder.info.input
    for given, needs, option in ((vector_column, "vectors", "vector"), (text_column, "text", "text")):
        if given is not None and takes != needs:
            raise UsageError(
                f"The encoder {encoder.path.name} takes {takes}, so there is no {option} column to name; leave "
                f"out {option}_column=...."
            )
    return vector_column or text_column
