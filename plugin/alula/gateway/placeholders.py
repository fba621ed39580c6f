"""The queries of a search as they travel: Milvus's `PlaceholderGroup`, read into arrays or texts, and written.

Every SDK sends one placeholder ``$0`` with one value of bytes per query: little-endian numbers of a dense vector, pairs
of dimension and weight of a sparse one, or the UTF-8 of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from pymilvus.grpc_gen import common_pb2

from alula.errors import DataError, UsageError
from alula.index_types import MAX_RESULTS

F32 = npt.NDArray[np.float32]
Queries: TypeAlias = "F32 | list[str]"
NativeQueries: TypeAlias = "F32 | Sequence[bytes] | Sequence[Mapping[int, float]] | Sequence[bytes | dict[int, float]]"

MAX_QUERIES = MAX_RESULTS  # Milvus: "nq (number of search vector per search request) should be in range [1, 16384]"
_TAG = "$0"
_FLOATS: Mapping[int, np.dtype[Any]] = {
    common_pb2.PlaceholderType.FloatVector: np.dtype("<f4"),
    common_pb2.PlaceholderType.Float16Vector: np.dtype("<f2"),
    common_pb2.PlaceholderType.BFloat16Vector: np.dtype("<u2"),  # the upper half of a float32
}
_NATIVE = (common_pb2.PlaceholderType.BinaryVector, common_pb2.PlaceholderType.SparseFloatVector)
_PAIR = np.dtype([("dim", "<u4"), ("weight", "<f4")])


def read(group: bytes) -> Queries:
    """The queries of a search on a float vector field or a text.

    Args:
        group: A serialised `PlaceholderGroup`.

    Returns:
        float32 (n, d) from vectors of float32, float16 or bfloat16, whose dimension and finiteness the encoder checks;
        or n texts.

    Raises:
        UsageError: If it holds no queries, too many, or something else than vectors of floats or texts.
        DataError: If its bytes are no placeholder group, or the queries no vectors of one length, or no UTF-8.
    """
    placeholder = _placeholder(group)
    values = placeholder.values
    if placeholder.type == common_pb2.PlaceholderType.VarChar:
        return _texts(values)
    if placeholder.type not in _FLOATS:
        raise UsageError(
            f"The queries are {_type_name(placeholder.type)}, and this field takes vectors of floats "
            "(FloatVector, Float16Vector, BFloat16Vector) or texts (VarChar)."
        )
    return _vectors(values, _FLOATS[placeholder.type])


def are_native(group: bytes) -> bool:
    """Whether the queries are binary or sparse vectors, which Milvus takes as they are; errors as `read`."""
    return _placeholder(group).type in _NATIVE


def write(queries: NativeQueries) -> bytes:
    """Queries as Milvus takes them.

    Args:
        queries: float32 (n, d); packed bits of binary vectors; or sparse vectors, weights by dimension.

    Returns:
        A serialised `PlaceholderGroup`.
    """
    values: list[bytes]
    if isinstance(queries, np.ndarray):
        type_, values = common_pb2.PlaceholderType.FloatVector, [row.tobytes() for row in queries.astype("<f4")]
    elif isinstance(queries[0], Mapping):
        sparse = cast("Sequence[Mapping[int, float]]", queries)
        type_, values = common_pb2.PlaceholderType.SparseFloatVector, [_pairs(query) for query in sparse]
    else:
        type_, values = common_pb2.PlaceholderType.BinaryVector, list(cast("Sequence[bytes]", queries))
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


def _vectors(values: Sequence[bytes], dtype: np.dtype[Any]) -> F32:
    size = len(values[0])
    if size == 0 or size % dtype.itemsize:
        raise DataError(f"Query 0 has {size} bytes, which are no vector of numbers of {dtype.itemsize} bytes.")
    odd = next((row for row, value in enumerate(values) if len(value) != size), None)
    if odd is not None:
        raise DataError(
            f"Query {odd} has {len(values[odd])} bytes and query 0 has {size}; they must have one dimension."
        )
    numbers = np.frombuffer(b"".join(values), dtype).reshape(len(values), size // dtype.itemsize)
    if dtype.kind == "u":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def _pairs(query: Mapping[int, float]) -> bytes:
    """A sparse vector as Milvus stores it: pairs of uint32 and float32, by dimension."""
    pairs = np.empty(len(query), _PAIR)
    pairs["dim"] = np.fromiter(query.keys(), np.uint32, len(query))
    pairs["weight"] = np.fromiter(query.values(), np.float32, len(query))
    return pairs[np.argsort(pairs["dim"], kind="stable")].tobytes()
