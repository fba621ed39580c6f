"""Fields and indexes in the terms of pymilvus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymilvus import DataType, MilvusClient

from alula.index_types import FieldSpec, NativeIndex


def add_field(schema: Any, spec: FieldSpec, **extra: Any) -> None:
    """Add a field to a schema, with further arguments of pymilvus's ``add_field``."""
    params = dict(spec.params)
    if "element_type" in params:
        params["element_type"] = DataType[params["element_type"]]
    schema.add_field(spec.name, DataType[spec.data_type], **params, **extra)


def index_params(client: MilvusClient, natives: Iterable[NativeIndex]) -> Any:
    """The parameters of ``MilvusClient.create_index`` for some native indexes."""
    params = client.prepare_index_params()
    for native in natives:
        params.add_index(
            native.field, index_type=native.index_type, metric_type=native.metric, params=dict(native.params)
        )
    return params
