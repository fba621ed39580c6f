"""Fields and indexes in Milvus's own terms, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

POSTING_BYTES = 8  # of a sparse vector's non-zero: an id and a float32 weight


@dataclass(frozen=True)
class FieldSpec:
    """A field to create: the name of a Milvus type, its parameters, and its cost.

    Args:
        name: The field's name.
        data_type: Name of a Milvus data type, e.g. ``SPARSE_FLOAT_VECTOR``.
        bytes_per_row: Bytes that one row of it takes in Milvus.
        params: Parameters of the type, e.g. ``dim``.
    """

    name: str
    data_type: str
    bytes_per_row: int
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class NativeIndex:
    """A native index to create on a field."""

    field: str
    index_type: str
    metric: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
