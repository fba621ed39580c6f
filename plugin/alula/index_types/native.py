"""Fields and indexes in Milvus's own terms, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldSpec:
    """A field to create: a Milvus type's name, its parameters, and what it costs.

    Args:
        name: The field's name.
        data_type: Name of a Milvus data type, e.g. ``SPARSE_FLOAT_VECTOR``.
        bytes_per_row: Bytes that Milvus holds for one row of it.
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
