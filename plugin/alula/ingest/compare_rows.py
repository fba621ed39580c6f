"""Compare a row as Milvus returns it with a row as it was written, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alula.index_types import FieldSpec
from alula.milvus import Columns
from alula.milvus.wire.query_results import same_value
from alula.sources.declared_types import DYNAMIC


def same_rows(stored: Mapping[str, Any], columns: Columns, position: int, fields: Sequence[FieldSpec]) -> str | None:
    """The first field in which a stored and a written row differ; None if equal.

    Args:
        stored: The row as pymilvus's query returns it.
        columns: Rows as `RpcSink.write` takes them.
        position: Which of these rows.
        fields: The fields to compare.
    """
    known = {field.name for field in fields}
    for field in fields:
        value = stored.get(field.name)
        if field.name == DYNAMIC:  # whose values pymilvus returns like fields
            value = {name: stored[name] for name in stored if name not in known}
        if not same_value(value, columns[field.name], position, field.data_type):
            return field.name
    return None
