"""Functions in schemas that the gateway computes: texts or vectors to native ones.

A function of Milvus's schema with the parameters ``provider: alula`` and ``encoder: NAME`` fills its output field from
its input field on every insert and upsert, and encodes the texts or vectors of a search on the output field. Milvus
stores and ranks an ordinary field: a ``flops`` encoder fills a SPARSE_FLOAT_VECTOR, a ``drq`` encoder a BINARY_VECTOR
with its sign bits.

The provider decides, not the function type, since Milvus has no suitable one. Clients check some types themselves:
``BM25`` allows a text as input and a SPARSE_FLOAT_VECTOR as output in every SDK since 2.5. ``MINHASH``, and ``RERANK``
in SDKs that do not support it yet, are not checked and allow every combination. ``TEXTEMBEDDING`` allows neither
output, and ``UNKNOWN`` is rejected.

Milvus never sees these functions. Each is stored in the description of its output field, which every version keeps,
and is added to the schema again when the collection is described, so that clients omit the output from their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.catalog.settings import read_settings, with_settings
from alula.encoders import Encoder
from alula.errors import EncoderError, UnsupportedError, UsageError
from alula.gateway.upstream import newer_parts, pairs
from alula.index_types import Capabilities

EncoderOf: TypeAlias = Callable[[str], Encoder]

PROVIDER = "alula"
_INPUTS = {DataType.VARCHAR: "text", DataType.FLOAT_VECTOR: "vectors"}
_PARAMS = {"provider", "encoder"}


@dataclass(frozen=True)
class Function:
    """A function that the gateway computes.

    Args:
        name: Name in the schema.
        type: Number of its function type, as the client declared it.
        input: Name of the input field: VARCHAR or FLOAT_VECTOR.
        output: Name of the output field: SPARSE_FLOAT_VECTOR or BINARY_VECTOR.
        encoder: The sha256 of its encoder.
        description: A text for people.
    """

    name: str
    type: int
    input: str
    output: str
    encoder: str
    description: str = ""

    def settings(self) -> dict[str, str]:
        """The function as flat texts, to be stored with its output field."""
        return {
            "function": self.name,
            "kind": str(self.type),
            "input": self.input,
            "encoder": self.encoder,
            "description": self.description,
        }

    @classmethod
    def of_settings(cls, output: str, settings: Mapping[str, str]) -> Function:
        """Inverse of `settings`, for an output field."""
        return cls(
            settings["function"],
            int(settings["kind"]),
            settings["input"],
            output,
            settings["encoder"],
            settings["description"],
        )

    def schema(self) -> schema_pb2.FunctionSchema:
        """The function as clients see it, with its encoder's fingerprint."""
        params = {"provider": PROVIDER, "encoder": self.encoder}
        return schema_pb2.FunctionSchema(
            name=self.name,
            type=self.type,
            description=self.description,
            input_field_names=[self.input],
            output_field_names=[self.output],
            params=pairs(params.items()),
        )


def are_declared(schema: schema_pb2.CollectionSchema) -> bool:
    """True if a client's schema declares a function with the provider ``alula``."""
    return any(map(_is_ours, schema.functions))


def declare(schema: schema_pb2.CollectionSchema, encoder_of: EncoderOf) -> None:
    """Move the functions of Alula from a schema into the descriptions of its fields.

    Args:
        schema: A client's schema, changed in place. Functions of other providers stay.
        encoder_of: Loads an encoder by name or sha256.

    Raises:
        UsageError: If fields, their types or dimensions, or the parameters of a function are invalid.
        EncoderError: If an encoder is missing, or does not fit the fields.
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
        _store(fields[function.output], function)
    others = [declared for declared in schema.functions if not _is_ours(declared)]
    del schema.functions[:]
    schema.functions.extend(others)


def check_server(schema: schema_pb2.CollectionSchema, capabilities: Capabilities) -> None:
    """Raise `UnsupportedError` if the server cannot index the outputs of functions."""
    for entry, _, function in _stored_functions(schema):
        sparse = entry.data_type == DataType.SPARSE_FLOAT_VECTOR
        if not (capabilities.sparse_index if sparse else capabilities.binary_indexes):
            raise UnsupportedError(
                f"The function {function.name!r} fills {entry.name!r}, which is {_type_name(entry)}, and "
                f"{capabilities.server} cannot index this type; "
                + ("use an encoder of the kind 'drq' and a BINARY_VECTOR." if sparse else "use Milvus 2.3 or later.")
            )


def functions_of(schema: schema_pb2.CollectionSchema) -> list[Function]:
    """The functions in the field descriptions of a collection's schema."""
    return [function for _, _, function in _stored_functions(schema)]


def show(schema: schema_pb2.CollectionSchema) -> None:
    """Inverse of `declare`: restore the functions of a schema, in place."""
    for entry, text, function in list(_stored_functions(schema)):
        entry.description, entry.is_function_output = text, True
        schema.functions.append(function.schema())


def _is_ours(declared: schema_pb2.FunctionSchema) -> bool:
    return any(pair.key.lower() == "provider" and pair.value.lower() == PROVIDER for pair in declared.params)


def _checked(
    declared: schema_pb2.FunctionSchema, fields: Mapping[str, schema_pb2.FieldSchema], encoder_of: EncoderOf
) -> Function:
    name = declared.name
    params = {pair.key.lower(): pair.value for pair in declared.params}
    newer = newer_parts(declared)
    if newer:
        raise UsageError(f"The function {name!r} has {', '.join(newer)}; leave it out.")
    unknown = sorted(set(params) - _PARAMS)
    if unknown or not params.get("encoder"):
        raise UsageError(
            f"The function {name!r} {f'has no parameter {unknown[0]}' if unknown else 'names no encoder'}; give it "
            "params={'provider': 'alula', 'encoder': NAME}, with the name of an encoder in the database."
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


def _check_input(name: str, source: schema_pb2.FieldSchema, encoder: Encoder) -> None:
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


def _check_output(name: str, target: schema_pb2.FieldSchema, encoder: Encoder) -> None:
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


def _type_name(entry: schema_pb2.FieldSchema) -> str:
    """The name of a field's type; clients can send unknown numbers."""
    names: list[str] = [name for name, number in DataType.__members__.items() if number == entry.data_type]
    return names[0] if names else f"of an unknown type ({entry.data_type})"


def _dim(entry: schema_pb2.FieldSchema) -> int:
    text = next((pair.value for pair in entry.type_params if pair.key == "dim"), "")
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"The dimension of the field {entry.name!r} is {text!r}; it must be a whole number.") from None


def _store(target: schema_pb2.FieldSchema, function: Function) -> None:
    text, settings = target.description, function.settings()
    target.description = with_settings(text, settings)
    target.is_function_output = False
    if read_settings((), target.description) != (text.strip(), settings):
        raise UsageError(
            f"The name or description of the function {function.name!r} contains '[alula ', which is reserved for "
            "Alula's settings; change it."
        )


def _stored_functions(schema: schema_pb2.CollectionSchema) -> Iterator[tuple[schema_pb2.FieldSchema, str, Function]]:
    """Output fields with their descriptions for people and their functions."""
    for entry in schema.fields:
        text, settings = read_settings((), entry.description)
        try:
            function = Function.of_settings(entry.name, settings)
        except (KeyError, ValueError, TypeError, RecursionError):
            continue  # no function, or a description from another program
        yield entry, text, function
