"""Add fields to a schema of pymilvus."""

from __future__ import annotations

from typing import Any

from pymilvus import DataType

from alula.index_types import FieldSpec


def add_field(schema: Any, spec: FieldSpec, **extra: Any) -> None:
    """Add a field to a schema, with further arguments of pymilvus's ``add_field``."""
    params = dict(spec.params)
    if "element_type" in params:
        params["element_type"] = DataType[params["element_type"]]
    schema.add_field(spec.name, DataType[spec.data_type], **params, **extra)
