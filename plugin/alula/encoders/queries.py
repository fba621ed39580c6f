"""Queries as users give them, as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders.encoder import Encoder


def query_vectors(encoder: Encoder, queries: npt.ArrayLike | Sequence[str]) -> npt.NDArray[np.float32]:
    """Queries as `alula.Collection.search` takes them, as vectors: float32 (n, d).

    Raises:
        DataError: If the encoder does not take them, or they have another dimension, NaN or infinite values.
    """
    if _are_vectors(queries):
        return encoder.check_vectors(queries, what="queries")
    return encoder.embed(queries, queries=True)


def _are_vectors(queries: Any) -> bool:
    """True for floating-point numbers, which images and texts never are."""
    while isinstance(queries, list | tuple) and queries:
        queries = queries[0]
    return not isinstance(queries, str | list | tuple) and np.asarray(queries).dtype.kind == "f"
