"""The codec of ``PlaceholderGroup``, Milvus's message for the queries of a search.

Every SDK sends one placeholder ``$0`` with one value of bytes per query: little-endian numbers of a dense vector, pairs
of dimension and weight of a sparse one, or the UTF-8 of a text. Placeholders have the numbers of Milvus's field types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
from google.protobuf.message import DecodeError
from pymilvus import DataType
from pymilvus.grpc_gen import common_pb2

from alula.errors import DataError, UsageError
from alula.index_types import MAX_RESULTS
from alula.milvus.wire.types import TYPES, FieldType, type_of
from alula.milvus.wire.vectors import F32, sparse_row

Queries: TypeAlias = "F32 | list[str]"
NativeQueries: TypeAlias = "F32 | Sequence[bytes] | Sequence[Mapping[int, float]] | Sequence[bytes | dict[int, float]]"

MAX_QUERIES = MAX_RESULTS  # Milvus: "nq (number of search vector per search request) should be in range [1, 16384]"
_TAG = "$0"
_NATIVE = (DataType.BINARY_VECTOR, DataType.SPARSE_FLOAT_VECTOR)


def read(group: bytes) -> Queries:
    """Read the queries of a search on a float vector field, or on a text.

    Args:
        group: A serialised `PlaceholderGroup`.

    Returns:
        float32 (n, d) from vectors of float32, float16 or bfloat16, whose dimension and finiteness the encoder checks;
        or n texts.

    Raises:
        UsageError: If it has no queries, too many, or other values than vectors of floats or texts.
        DataError: If its bytes are no placeholder group, or the queries no vectors of one length, or no UTF-8.
    """
    placeholder = _placeholder(group)
    values, field_type = placeholder.values, type_of(placeholder.type)
    if field_type is not None and field_type.name == "VARCHAR":
        return _texts(values)
    if field_type is None or not field_type.is_float:
        raise UsageError(
            f"The queries are {_type_name(placeholder.type)}, and this field takes vectors of floats "
            "(FloatVector, Float16Vector, BFloat16Vector) or texts (VarChar)."
        )
    return _vectors(values, field_type)


def are_native(group: bytes) -> bool:
    """True for binary or sparse vectors, which need no encoder; errors as `read`."""
    return _placeholder(group).type in _NATIVE


def write(queries: NativeQueries, query_type: str = "FLOAT_VECTOR") -> bytes:
    """Serialise queries.

    Args:
        queries: float32 (n, d); packed bits of binary vectors; or sparse vectors, weights by dimension.
        query_type: The type of queries (n, d).

    Returns:
        A serialised `PlaceholderGroup`.
    """
    values: list[bytes]
    if isinstance(queries, np.ndarray):
        field_type = TYPES[query_type]
        type_, values = field_type.number, [field_type.encode(row) for row in queries]
    elif isinstance(queries[0], Mapping):
        sparse = cast("Sequence[Mapping[int, float]]", queries)
        type_, values = DataType.SPARSE_FLOAT_VECTOR, [sparse_row(dict(sorted(query.items()))) for query in sparse]
    else:
        type_, values = DataType.BINARY_VECTOR, list(cast("Sequence[bytes]", queries))
    value = common_pb2.PlaceholderValue(tag=_TAG, type=type_, values=values)
    return cast(bytes, common_pb2.PlaceholderGroup(placeholders=[value]).SerializeToString())


def _placeholder(group: bytes) -> common_pb2.PlaceholderValue:
    try:
        placeholders = common_pb2.PlaceholderGroup.FromString(group).placeholders
    except DecodeError:
        raise DataError("The queries are not a placeholder group of Milvus's protocol, or are cut off.") from None
    if len(placeholders) != 1:
        raise UsageError(f"The search has {len(placeholders)} placeholders, and exactly one with all queries is taken.")
    count = len(placeholders[0].values)
    if not 1 <= count <= MAX_QUERIES:
        raise UsageError(f"The search has {count:,} queries, and Milvus takes 1 to {MAX_QUERIES:,} in one request.")
    return placeholders[0]


def _type_name(number: int) -> str:
    names: list[str] = [name for name, value in common_pb2.PlaceholderType.items() if value == number]
    return names[0] if names else f"of an unknown type ({number})"


def _texts(values: Sequence[bytes]) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:
            raise DataError(f"Query {row} is a text that is not UTF-8.") from None
    return texts


def _vectors(values: Sequence[bytes], field_type: FieldType) -> F32:
    size, width = len(values[0]), field_type.bytes_per_row()
    if size == 0 or size % width:
        raise DataError(f"Query 0 has {size} bytes, which are no vector of numbers of {width} bytes.")
    odd = next((row for row, value in enumerate(values) if len(value) != size), None)
    if odd is not None:
        raise DataError(
            f"Query {odd} has {len(values[odd])} bytes and query 0 has {size}; they must have one dimension."
        )
    return field_type.decode(b"".join(values)).reshape(len(values), size // width)
