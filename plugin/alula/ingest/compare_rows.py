"""Compare a row as Milvus returns it with a row as it was written, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from alula.index_types import FieldSpec
from alula.milvus import Columns


def same_rows(stored: Mapping[str, Any], columns: Columns, position: int, fields: Sequence[FieldSpec]) -> str | None:
    """The first field in which a stored row differs from the row at a position of columns; None if none does.

    Args:
        stored: The row as pymilvus's query returns it.
        columns: Rows as `RpcSink.write` takes them.
        position: Which of these rows.
        fields: The fields to compare.
    """
    for field in fields:
        if not _same(stored.get(field.name), columns[field.name], position, field):
            return field.name
    return None


def _same(stored: Any, column: Any, position: int, field: FieldSpec) -> bool:
    if stored is None:
        return False
    if field.data_type == "BINARY_VECTOR":
        return bytes(stored[0] if isinstance(stored, list) else stored) == bytes(column[position].tobytes())
    if sp.issparse(column):
        a, b = column.indptr[position], column.indptr[position + 1]
        want = dict(zip(column.indices[a:b].tolist(), column.data[a:b].tolist(), strict=True))
        return {int(dim): float(np.float32(weight)) for dim, weight in dict(stored).items()} == want
    if field.data_type in ("FLOAT_VECTOR", "ARRAY"):
        return np.asarray(stored, np.float32).tobytes() == np.asarray(column[position], np.float32).tobytes()
    if field.data_type == "FLOAT":
        return bool(np.float32(stored) == np.float32(column[position]))
    return bool(stored == column[position])
