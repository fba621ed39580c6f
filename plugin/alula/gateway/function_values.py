"""Values of functions: output columns of rows, and native queries of searches.

`alula.gateway.functions` says which functions a collection has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2

from alula.encoders import Encoder
from alula.encoders.queries import query_vectors
from alula.errors import DataError, UsageError
from alula.gateway.functions import EncoderOf, Function
from alula.gateway.ops import metrics
from alula.index_types import Column, FieldSpec
from alula.milvus.wire import placeholders
from alula.milvus.wire.field_data import column, write_column

MAX_TEXT = 1 << 20  # characters; a field of Milvus contains 65,535 bytes
PIECE_ROWS = 4096  # to encode at once
PIECE_NUMBERS = 1 << 24  # of their vectors
Check: TypeAlias = Callable[[], None]


def nothing() -> None:
    """Check nothing."""


def fill(
    request: milvus_pb2.InsertRequest | milvus_pb2.UpsertRequest,
    functions: Sequence[Function],
    encoder_of: EncoderOf,
    check: Check = nothing,
) -> None:
    """Add the output columns to the rows of an insert or upsert, in place.

    A partial upsert (``partial_update``) without an input leaves its output unchanged.

    Args:
        request: The insert or upsert.
        functions: The collection's functions.
        encoder_of: Loads an encoder by sha256.
        check: Called between pieces of work; it raises an error to end it.

    Raises:
        UsageError: If an input column is missing, or an output column is given.
        DataError: If the inputs do not fit the encoder.
        EncoderError: If the encoder is missing or fails.
    """
    given = {data.field_name: data for data in request.fields_data}
    partial = getattr(request, "partial_update", False)  # inserts and upserts of older pymilvus lack it
    for function in functions:
        if function.output in given:
            raise UsageError(
                f"The rows contain {function.output!r}, which the function {function.name!r} computes from "
                f"{function.input!r}; leave it out."
            )
        if function.input in given:
            encoder, values = encoder_of(function.encoder), _values(given[function.input])
            with metrics.encoding("rows"):
                encoded = _encode_rows(encoder, values, check)
            data_type = DataType.SPARSE_FLOAT_VECTOR if sp.issparse(encoded) else DataType.BINARY_VECTOR
            data = request.fields_data.add(field_name=function.output, type=data_type)
            write_column(data, encoded, FieldSpec(function.output, data_type.name, 0))
        elif not partial:
            raise UsageError(
                f"The rows lack {function.input!r}, from which the function {function.name!r} computes "
                f"{function.output!r}."
            )


def translate(
    request: milvus_pb2.SearchRequest,
    searched: str,
    functions: Sequence[Function],
    encoder_of: EncoderOf,
    check: Check = nothing,
) -> None:
    """Encode the queries of a search on a function's output, in place.

    Args:
        request: The search.
        searched: Name of the searched field.
        functions: The collection's functions.
        encoder_of: Loads an encoder by sha256.
        check: As in `fill`.

    Raises:
        UsageError, DataError, EncoderError: As `native_queries`.
    """
    for function in functions:
        if function.output == searched and request.placeholder_group:  # a search may be by ids instead
            request.placeholder_group = native_queries(request.placeholder_group, function, encoder_of, check)


def native_queries(group: bytes, function: Function, encoder_of: EncoderOf, check: Check = nothing) -> bytes:
    """Encode the queries of a search on a function's output field.

    Args:
        group: A serialised `PlaceholderGroup` of texts, of vectors, or of native queries, which stay unchanged. A
            text for an encoder of vectors is parsed as numbers: the Node SDK sends all queries of functions as texts.
        function: The function.
        encoder_of: Loads an encoder by sha256.
        check: As in `fill`.

    Raises:
        UsageError, DataError: If the queries do not fit the encoder.
        EncoderError: If the encoder is missing or fails.
    """
    if placeholders.are_native(group):
        return group
    encoder = encoder_of(function.encoder)
    queries = check_lengths(placeholders.read(group))
    if isinstance(queries, list) and encoder.info.input == "vectors":
        queries = _numbers(queries)
    with metrics.encoding("queries"):
        pieces = _pieces(encoder, queries, check)
        return placeholders.write(
            [one for piece in pieces for one in encoder.native_queries(query_vectors(encoder, piece))]
        )


def check_lengths(values: Any) -> Any:
    """The values; raise a `DataError` for a text that is too long to tokenize."""
    texts = values if isinstance(values, list) else ()
    longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
    if longest > MAX_TEXT:
        raise DataError(f"A text has {longest:,} characters; the gateway encodes texts of up to {MAX_TEXT:,}.")
    return values


def _values(data: Any) -> Any:
    """The inputs in a column: a list of texts, or vectors float32 (n, d)."""
    values = check_lengths(column(data))
    if isinstance(values, list) or (isinstance(values, np.ndarray) and values.dtype == np.float32 and values.ndim == 2):
        return values
    raise UsageError(f"The values of {data.field_name!r} are neither texts nor vectors of floats.")


def _encode_rows(encoder: Encoder, values: Any, check: Check) -> Column:
    """The output column of texts or vectors: CSR (n, dim) or uint8 (n, bytes)."""
    if not isinstance(values, list):
        return cast(Column, encoder.native_rows(encoder.check_vectors(values)))
    texts = encoder.check_inputs(values)
    parts: list[Any] = []
    for piece in _pieces(encoder, texts, check):
        parts.append(encoder.native_rows(encoder.embed(piece, checked=True, progress=lambda _: check())))
    joined: Column = sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)
    return joined


def _pieces(encoder: Encoder, values: Any, check: Check) -> Iterator[Any]:
    """Cut values into pieces of bounded memory; `check` is called before each."""
    step = max(1, min(PIECE_ROWS, PIECE_NUMBERS // encoder.info.input_dim))
    for start in range(0, max(1, len(values)), step):
        check()
        yield values[start : start + step]


def _numbers(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    try:
        rows = [json.loads(f"[{text.strip().removeprefix('[').removesuffix(']')}]") for text in texts]
        return np.array(rows, np.float32)
    except (ValueError, TypeError, RecursionError):
        raise DataError(
            "The queries are texts, and the function's encoder takes vectors of numbers of one dimension."
        ) from None
