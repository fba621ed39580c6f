"""Functions that a schema declares and the gateway computes: from a text or a vector field to sparse or binary vectors.

A function of Milvus's schema with the parameters ``provider: alula`` and ``encoder: NAME`` fills its output field from
its input field on every insert and upsert, and turns the texts or vectors of a search on the output field into native
queries. What Milvus then holds and ranks is an ordinary field: an encoder of the kind ``flops`` fills a
SPARSE_FLOAT_VECTOR, one of the kind ``drq`` a BINARY_VECTOR with its sign bits.

No function type of Milvus says that, so every one is taken, and the provider decides. Clients check some types
themselves: ``BM25`` lets a text become a SPARSE_FLOAT_VECTOR in every SDK since 2.5. ``MINHASH``, and in SDKs that do
not know it yet ``RERANK``, are checked by none and let a text or a vector become either. ``TEXTEMBEDDING`` may give
neither, and ``UNKNOWN`` is none.

Milvus knows nothing of these functions: each is remembered in the description of its output field, which every version
keeps, and is shown again when the collection is described, so that clients leave the output out of their rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from alula.catalog.settings import read_settings, with_settings
from alula.encoders import Encoder
from alula.encoders.queries import query_vectors
from alula.errors import DataError, EncoderError, UnsupportedError, UsageError
from alula.gateway.ops import metrics
from alula.gateway.upstream import pairs
from alula.index_types import Capabilities, Column, FieldSpec
from alula.milvus.wire import placeholders
from alula.milvus.wire.field_data import column, write_column

EncoderOf: TypeAlias = Callable[[str], Encoder]

PROVIDER = "alula"
_INPUTS = {DataType.VARCHAR: "text", DataType.FLOAT_VECTOR: "vectors"}
_PARAMS = {"provider", "encoder"}


@dataclass(frozen=True)
class Function:
    """A function that the gateway computes.

    Args:
        name: Its name in the schema.
        kind: The number of its function type, as the client declared it.
        input: The field it reads: VARCHAR or FLOAT_VECTOR.
        output: The field it fills: SPARSE_FLOAT_VECTOR or BINARY_VECTOR.
        encoder: The sha256 of its encoder.
        description: A text for people.
    """

    name: str
    kind: int
    input: str
    output: str
    encoder: str
    description: str = ""

    def settings(self) -> dict[str, str]:
        """As flat texts, to be stored with the output field."""
        return {
            "function": self.name,
            "kind": str(self.kind),
            "input": self.input,
            "encoder": self.encoder,
            "description": self.description,
        }

    @classmethod
    def of_settings(cls, output: str, settings: Mapping[str, str]) -> Function:
        """The function of an output field, from what `settings` made of it."""
        return cls(
            settings["function"],
            int(settings["kind"]),
            settings["input"],
            output,
            settings["encoder"],
            settings["description"],
        )

    def schema(self) -> schema_pb2.FunctionSchema:
        """As clients see it: with the encoder's fingerprint, since its name may come to stand for another one."""
        params = {"provider": PROVIDER, "encoder": self.encoder}
        return schema_pb2.FunctionSchema(
            name=self.name,
            type=self.kind,
            description=self.description,
            input_field_names=[self.input],
            output_field_names=[self.output],
            params=pairs(params.items()),
        )


def are_declared(schema: schema_pb2.CollectionSchema) -> bool:
    """Whether a client's schema declares a function of Alula's."""
    return any(map(_is_ours, schema.functions))


def declare(schema: schema_pb2.CollectionSchema, encoder_of: EncoderOf) -> None:
    """Make a client's schema one for Milvus: without Alula's functions, which their output fields remember.

    Args:
        schema: The schema, changed in place. Functions of other providers stay.
        encoder_of: Finds an encoder by name or sha256.

    Raises:
        UsageError: If a function cannot be computed: its fields, their types or dimensions, or its parameters.
        EncoderError: If its encoder is not there, or gives something else than the output field holds.
    """
    fields = {entry.name: entry for entry in schema.fields}
    found = [_checked(declared, fields, encoder_of) for declared in schema.functions if _is_ours(declared)]
    outputs = [function.output for function in found]
    for function in found:
        if outputs.count(function.output) > 1:
            raise UsageError(f"The field {function.output!r} is the output of two functions; each needs its own.")
        if function.input in outputs:
            raise UsageError(
                f"The function {function.name!r} reads {function.input!r}, the output of another function."
            )
        _remember(fields[function.output], function)
    others = [declared for declared in schema.functions if not _is_ours(declared)]
    del schema.functions[:]
    schema.functions.extend(others)


def check_server(schema: schema_pb2.CollectionSchema, capabilities: Capabilities) -> None:
    """Raise an `UnsupportedError` if the server cannot search what the functions of a declared schema fill."""
    for entry, _, function in _remembered(schema):
        sparse = entry.data_type == DataType.SPARSE_FLOAT_VECTOR
        if not (capabilities.sparse_index if sparse else capabilities.binary_indexes):
            raise UnsupportedError(
                f"The function {function.name!r} fills {entry.name!r}, which is {_type_name(entry)}, and "
                f"{capabilities.server} cannot index those; "
                + ("use an encoder of the kind 'drq' and a BINARY_VECTOR." if sparse else "use Milvus 2.3 or later.")
            )


def functions_of(schema: schema_pb2.CollectionSchema) -> list[Function]:
    """The functions that the output fields of a collection in Milvus remember."""
    return [function for _, _, function in _remembered(schema)]


def show(schema: schema_pb2.CollectionSchema) -> None:
    """Make the schema of a collection in Milvus what the client declared, in place."""
    for entry, text, function in list(_remembered(schema)):
        entry.description, entry.is_function_output = text, True
        schema.functions.append(function.schema())


def fill(
    request: milvus_pb2.InsertRequest | milvus_pb2.UpsertRequest, functions: Sequence[Function], encoder_of: EncoderOf
) -> None:
    """Add the output columns to the rows of an insert or upsert, in place.

    An upsert of some fields alone (``partial_update``) that leaves an input out leaves its output as it is.

    Raises:
        UsageError: If an input column is not there, or an output column is.
        DataError: If the inputs are not what the encoder takes.
        EncoderError: If the encoder is not there, or fails.
    """
    given = {data.field_name: data for data in request.fields_data}
    partial = getattr(request, "partial_update", False)  # inserts have none, nor have older pymilvus's upserts
    for function in functions:
        if function.output in given:
            raise UsageError(
                f"The rows hold {function.output!r}, which the function {function.name!r} computes from "
                f"{function.input!r}; leave it out."
            )
        if function.input in given:
            encoder, values = encoder_of(function.encoder), _values(given[function.input])
            with metrics.encoding("rows"):
                encoded = _encode_rows(encoder, values)
            kind = DataType.SPARSE_FLOAT_VECTOR if sp.issparse(encoded) else DataType.BINARY_VECTOR
            data = request.fields_data.add(field_name=function.output, type=kind)
            write_column(data, encoded, FieldSpec(function.output, kind.name, 0))
        elif not partial:
            raise UsageError(
                f"The rows lack {function.input!r}, from which the function {function.name!r} computes "
                f"{function.output!r}."
            )


def translate(
    request: milvus_pb2.SearchRequest, searched: str, functions: Sequence[Function], encoder_of: EncoderOf
) -> None:
    """Give a search on a function's output native queries, in place; errors as `native_queries`.

    Args:
        request: The search.
        searched: The field that it is about.
        functions: The collection's functions.
        encoder_of: Finds their encoders.
    """
    for function in functions:
        if function.output == searched and request.placeholder_group:  # a search may be by ids instead
            request.placeholder_group = native_queries(request.placeholder_group, function, encoder_of)


def native_queries(group: bytes, function: Function, encoder_of: EncoderOf) -> bytes:
    """The queries of a search on a function's output field, as Milvus takes them.

    Args:
        group: A serialised `PlaceholderGroup` of texts, of vectors, or of native queries, which stay as they are. A
            text for an encoder of vectors is read as its numbers: the Node SDK writes every query of a function so.
        function: The function.
        encoder_of: Finds its encoder.

    Raises:
        UsageError, DataError: If they are not what the encoder takes.
        EncoderError: If the encoder is not there, or fails.
    """
    if placeholders.are_native(group):
        return group
    encoder = encoder_of(function.encoder)
    queries = placeholders.read(group)
    if isinstance(queries, list) and encoder.info.input == "vectors":
        queries = _numbers(queries)
    with metrics.encoding("queries"):
        return placeholders.write(encoder.native_queries(query_vectors(encoder, queries)))


def _is_ours(declared: schema_pb2.FunctionSchema) -> bool:
    return any(pair.key.lower() == "provider" and pair.value.lower() == PROVIDER for pair in declared.params)


def _checked(declared: schema_pb2.FunctionSchema, fields: Mapping[str, Any], encoder_of: EncoderOf) -> Function:
    name = declared.name
    params = {pair.key.lower(): pair.value for pair in declared.params}
    unknown = sorted(set(params) - _PARAMS)
    if unknown or not params.get("encoder"):
        raise UsageError(
            f"The function {name!r} {f'has no parameter {unknown[0]}' if unknown else 'names no encoder'}; give it "
            "params={'provider': 'alula', 'encoder': NAME}, where NAME is that of an encoder that was pushed."
        )
    if len(declared.input_field_names) != 1 or len(declared.output_field_names) != 1:
        raise UsageError(f"The function {name!r} needs exactly one input field and one output field.")
    (source,), (target,) = declared.input_field_names, declared.output_field_names
    for missing in {source, target} - fields.keys():
        raise UsageError(f"The function {name!r} names the field {missing!r}, which the schema does not have.")
    encoder = encoder_of(params["encoder"])
    _check_input(name, fields[source], encoder)
    _check_output(name, fields[target], encoder)
    return Function(name, declared.type, source, target, encoder.sha256, declared.description)


def _check_input(name: str, source: Any, encoder: Encoder) -> None:
    info = encoder.info
    if source.data_type not in _INPUTS:
        raise UsageError(
            f"The function {name!r} reads {source.name!r}, which is {_type_name(source)}; it can read "
            "VARCHAR and FLOAT_VECTOR."
        )
    if source.nullable:
        raise UsageError(
            f"The function {name!r} reads {source.name!r}, which may be null; it needs a value in each row."
        )
    if source.data_type == DataType.VARCHAR and info.input != "text":
        raise EncoderError(
            f"The function {name!r} reads texts from {source.name!r}, and the encoder {encoder.path.name} takes "
            f"{info.input}; name an encoder of text."
        )
    if source.data_type == DataType.FLOAT_VECTOR and _dim(source) != info.input_dim:
        raise EncoderError(
            f"The function {name!r} reads vectors of dimension {_dim(source)} from {source.name!r}, and the encoder "
            f"{encoder.path.name} takes {info.input_dim}."
        )


def _check_output(name: str, target: Any, encoder: Encoder) -> None:
    wanted = DataType[encoder.native_type]
    if target.data_type != wanted:
        raise EncoderError(
            f"The function {name!r} fills {target.name!r}, which is {_type_name(target)}, and the encoder "
            f"{encoder.path.name} of the kind {encoder.kind!r} gives {wanted.name}."
        )
    if encoder.native_dim is not None and _dim(target) != encoder.native_dim:
        raise EncoderError(
            f"The function {name!r} fills {target.name!r} of {_dim(target)} bits, and the encoder {encoder.path.name} "
            f"gives {encoder.native_dim}."
        )
    if target.nullable:
        raise UsageError(f"The function {name!r} fills {target.name!r} in each row; it cannot be nullable.")


def _type_name(entry: Any) -> str:
    """The type of a field as pymilvus names it; clients can send numbers that name none."""
    names: list[str] = [name for name, number in DataType.__members__.items() if number == entry.data_type]
    return names[0] if names else f"of an unknown type ({entry.data_type})"


def _dim(entry: Any) -> int:
    text = next((pair.value for pair in entry.type_params if pair.key == "dim"), "")
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"The field {entry.name!r} has the dimension {text!r}, and a whole number is needed."
        ) from None


def _remember(target: Any, function: Function) -> None:
    text, settings = target.description, function.settings()
    target.description = with_settings(text, settings)
    target.is_function_output = False
    if read_settings((), target.description) != (text.strip(), settings):
        raise UsageError(
            f"The name or description of the function {function.name!r} holds '[alula ', which marks what "
            "Alula stores; call it otherwise."
        )


def _remembered(schema: schema_pb2.CollectionSchema) -> Iterator[tuple[Any, str, Function]]:
    """The output fields, their descriptions for people, and their functions."""
    for entry in schema.fields:
        text, settings = read_settings((), entry.description)
        try:
            function = Function.of_settings(entry.name, settings)
        except (KeyError, ValueError, TypeError, RecursionError):
            continue  # no function, or a description that somebody else wrote
        yield entry, text, function


def _values(data: Any) -> Any:
    """What a column holds for an encoder: a list of texts, or vectors float32 (n, d)."""
    values = column(data)
    if isinstance(values, list) or (isinstance(values, np.ndarray) and values.dtype == np.float32 and values.ndim == 2):
        return values
    raise UsageError(f"The values of {data.field_name!r} are neither texts nor vectors of floats.")


def _encode_rows(encoder: Encoder, values: Any) -> Column:
    """The output column of texts or vectors: CSR (n, dim) or uint8 (n, bytes)."""
    vectors = encoder.embed(values) if isinstance(values, list) else encoder.check_vectors(values)
    return cast(Column, encoder.native_rows(vectors))


def _numbers(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    try:
        rows = [json.loads(f"[{text.strip().removeprefix('[').removesuffix(']')}]") for text in texts]
        return np.array(rows, np.float32)
    except (ValueError, TypeError, RecursionError):
        raise DataError(
            "The queries are texts, and the function's encoder takes vectors of numbers of one dimension."
        ) from None
