"""The contract of an encoder file: its metadata, its graph's inputs and outputs.

One ``.onnx`` file, standard operators only, no external data, a dynamic first axis. ``metadata_props["alula"]`` is
the JSON of `EncoderInfo`. An encoder file is data: nothing in it is executed but the ONNX graph, nothing is unpickled.

An encoder of vectors takes ``vectors``, float32 (n, d). An encoder of images takes ``images``, uint8 (n, h, w, c), and
one of text ``input_ids`` and ``attention_mask``, int64 (n, t), with the tokenizer under ``alula.tokenizer`` in
``metadata_props`` (JSON of the package ``tokenizers``). Both also give ``vectors``, their backbone's embedding, as an
output, and compute everything else from it, so rows and queries are encoded alike for every kind of input.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import onnx

from alula.encoders.graph import trace
from alula.encoders.metric import METRICS, Metric
from alula.encoders.safety import check_graph
from alula.encoders.tokenizer_safety import check_tokenizer
from alula.encoders.wire_size import check_fields
from alula.errors import EncoderError

METADATA_KEY = "alula"
TOKENIZER_KEY = "alula.tokenizer"
FORMAT_VERSION = 2  # since 2, the sign bits of a ``drq`` encoder rank rows
QUERY_VECTORS_VERSION = 3  # queries may have an output of their own; other files stay readable to older versions
READ_VERSIONS = (1, FORMAT_VERSION, QUERY_VECTORS_VERSION)
VECTORS = "vectors"
QUERY_VECTORS = "query_vectors"
MAX_FILE_BYTES = 2 << 30  # protobuf's own limit; a larger file cannot be one message
MAX_DIM = 32768  # Milvus's longest FLOAT_VECTOR
MAX_EMBEDDING_DIM = 1_000_000  # an embedding is not kept in Milvus; one weight per word of a vocabulary is long
MAX_IMAGE_BYTES = 64 << 20

Kind = Literal["flops", "drq"]
Input = Literal["vectors", "images", "text"]
Precision = Literal["fp32", "int8"]

GRAPH_INPUTS: Mapping[str, tuple[str, ...]] = {
    "vectors": (VECTORS,),
    "images": ("images",),
    "text": ("input_ids", "attention_mask"),
}

SPARSE_OUTPUTS = ("rows", "dims", "weights")  # of a ``flops`` encoder, for rows and for queries


@dataclass(frozen=True)
class EncoderInfo:
    """The metadata of an encoder file: the JSON under ``alula`` in ``metadata_props``.

    Args:
        kind: ``flops`` (sparse rows) or ``drq`` (codes).
        metric: The metric it was trained for; a collection that uses it has this metric.
        input_dim: Length d of ``vectors`` (float32): of an input vector, or of the embedding of an image or text.
        normalized: True if the graph scales ``vectors`` to unit length itself.
        scale: The divisor of ``vectors`` in a graph that does not normalise (the root mean square norm of the
            training rows), so that norms and look-up tables are near 1 for any data. 1.0 when normalised.
        dim: ``flops``: number of sparse dimensions; ``drq``: 0.
        max_nnz: ``flops``: the most non-zeros in a row; ``drq``: 0.
        levels: ``drq``: number of levels M, one byte each; ``flops``: 0.
        sign_bits: ``drq``: number of sign bits S, a multiple of 8; ``flops``: 0.
        input: The kind of input: vectors, images or text.
        image_shape: ``images``: height, width and channels; otherwise empty.
        max_tokens: ``text``: the most tokens of a text, special ones included; longer texts are cut. Otherwise 0.
        row_prompt: ``text``: prefix of the texts of rows.
        query_prompt: ``text``: prefix of the texts of queries.
        query_max_tokens: ``text``: the most tokens of a query, without special ones, if queries have an output of their
            own, ``query_vectors`` float32 (n, d), for instance a table of token weights (since format 3). 0 if they are
            embedded as rows are.
        precision: The number format of its weights.
        training: Training summary: rows, data fingerprint, recipe, seed, loss, achieved FLOPs / nnz / distortion.
        versions: Versions of the packages that wrote the file.
        parity: Agreement of the ONNX graph with the trained module, measured at export.
    """

    kind: Kind
    metric: Metric
    input_dim: int
    normalized: bool
    scale: float = 1.0
    dim: int = 0
    max_nnz: int = 0
    levels: int = 0
    sign_bits: int = 0
    input: Input = "vectors"
    image_shape: Sequence[int] = ()
    max_tokens: int = 0
    row_prompt: str = ""
    query_prompt: str = ""
    query_max_tokens: int = 0
    precision: Precision = "fp32"
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def max_bits(self) -> int:
        """The longest code length in bits (``drq``)."""
        return 8 * self.levels

    @property
    def row_outputs(self) -> tuple[str, ...]:
        """The outputs of the graph for rows."""
        if self.kind == "flops":
            return SPARSE_OUTPUTS
        return ("codes", "norms", *self.sign_row_outputs)

    @property
    def sign_row_outputs(self) -> tuple[str, ...]:
        """The outputs of a ``drq`` graph for rows of sign bits alone."""
        return ("signs", *(("sign_lengths",) if self.signs_rank and self.metric == "L2" else ()))

    @property
    def query_outputs(self) -> tuple[str, ...]:
        """The outputs of the graph for queries."""
        if self.kind == "flops":
            return SPARSE_OUTPUTS
        return ("lut", *self.sign_query_outputs)

    @property
    def sign_query_outputs(self) -> tuple[str, ...]:
        """The outputs of a ``drq`` graph for queries that are compared with sign bits."""
        return ("query_signs", *(("sign_weights", "sign_bias") if self.signs_rank else ()))

    @property
    def signs_rank(self) -> bool:
        """True if sign bits estimate scores (``drq``, since format 2)."""
        return self.kind == "drq" and self.format_version > 1

    def to_json(self) -> str:
        """The JSON text that goes into ``metadata_props``."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EncoderInfo:
        """Parse and check the JSON text.

        Raises:
            EncoderError: If a field is missing, of the wrong type or out of range; the message names it.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise EncoderError(f"its '{METADATA_KEY}' metadata is not JSON ({error})") from None
        if not isinstance(data, dict):
            raise EncoderError(f"its '{METADATA_KEY}' metadata is not a JSON object")
        version = data.get("format_version")
        if type(version) is not int or version not in READ_VERSIONS:
            raise EncoderError(
                f"it has encoder format {version!r} and this Alula reads up to format {READ_VERSIONS[-1]}; "
                "export it again or update Alula"
            )
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        missing = {"kind", "metric", "input_dim", "normalized"} - known.keys()
        if missing:
            raise EncoderError(f"its metadata lacks {', '.join(sorted(missing))}")
        if isinstance(known.get("image_shape"), list):  # JSON has no tuples
            known["image_shape"] = tuple(known["image_shape"])
        info = cls(**known)
        info._check()
        info._check_input()
        return info

    def _check(self) -> None:
        _require(self.kind in get_args(Kind), f"kind is {self.kind!r}, not one of {', '.join(get_args(Kind))}")
        _require(self.metric in METRICS, f"metric is {self.metric!r}, not one of {', '.join(METRICS)}")
        for name in ("input_dim", "dim", "max_nnz", "levels", "sign_bits", "max_tokens", "query_max_tokens"):
            value = getattr(self, name)
            _require(type(value) is int and 0 <= value < 2**31, f"{name} is {value!r}, not a count")
        _require(
            self.precision in get_args(Precision),
            f"precision is {self.precision!r}, not one of {', '.join(get_args(Precision))}",
        )
        _require(isinstance(self.normalized, bool), "normalized is not true or false")
        _require(isinstance(self.scale, int | float) and 0 < self.scale < float("inf"), "scale is not positive")
        for name in ("training", "versions", "parity"):
            _require(isinstance(getattr(self, name), dict), f"{name} is not an object")
        if self.kind == "flops":
            _require(self.dim > 0 and 0 < self.max_nnz <= self.dim, "dim and max_nnz do not fit a sparse encoder")
        else:
            _require(0 < self.levels <= 256, "levels is not between 1 and 256")
            _require(self.sign_bits > 0 and self.sign_bits % 8 == 0, "sign_bits is not a positive multiple of 8")

    def _check_input(self) -> None:
        _require(self.input in get_args(Input), f"input is {self.input!r}, not one of {', '.join(get_args(Input))}")
        longest = MAX_DIM if self.input == "vectors" else MAX_EMBEDDING_DIM
        _require(0 < self.input_dim <= longest, f"input_dim is {self.input_dim}, not between 1 and {longest}")
        shape: Any = self.image_shape
        if self.input == "images":
            _require(
                isinstance(shape, tuple) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape),
                f"image_shape is {shape!r}, not height, width and channels",
            )
            _require(math.prod(shape) <= MAX_IMAGE_BYTES, f"image_shape is {shape!r}, more than 64 MiB an image")
        else:
            _require(shape == (), f"image_shape is {shape!r}, and the encoder takes {self.input}")
        if self.input == "text":
            _require(0 < self.max_tokens <= 2**20, f"max_tokens is {self.max_tokens}, not between 1 and {2**20}")
        else:
            _require(self.max_tokens == 0, f"max_tokens is {self.max_tokens}, and the encoder takes {self.input}")
        own = self.query_max_tokens
        _require(own <= 2**20, f"query_max_tokens is {own}, more than {2**20}")
        _require(
            own == 0 or (self.input == "text" and self.format_version >= QUERY_VECTORS_VERSION),
            f"query_max_tokens is {own}, and the encoder takes {self.input} in format {self.format_version}",
        )
        for name in ("row_prompt", "query_prompt"):
            prompt = getattr(self, name)
            _require(isinstance(prompt, str), f"{name} is {prompt!r}, not a text")
            _require(prompt == "" or self.input == "text", f"{name} is {prompt!r}, and the encoder takes {self.input}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise EncoderError(f"its metadata is wrong: {message}")


def read_model(path: Path) -> tuple[onnx.ModelProto, EncoderInfo]:
    """The parsed model of an encoder file and its metadata; see `read_file`."""
    model, info, _ = read_file(path)
    return model, info


def read_file(path: Path) -> tuple[onnx.ModelProto, EncoderInfo, str]:
    """Read an encoder file once and check it against the contract without running it.

    Args:
        path: The ``.onnx`` file.

    Returns:
        The parsed model, its metadata, and the sha256 of the file.

    Raises:
        EncoderError: If it breaks the contract; the message names the file, the fault and a remedy.
    """
    try:
        if not path.is_file():
            raise EncoderError("there is no such file")
        size = path.stat().st_size
        if size == 0:
            raise EncoderError("the file is empty")
        if size > MAX_FILE_BYTES:
            raise EncoderError("the file is larger than 2 GiB, which no encoder in one file can be")
        data = path.read_bytes()
        check_fields(data, onnx.ModelProto.DESCRIPTOR)
        model = onnx.load_model_from_string(data)
        return model, check_model(model), hashlib.sha256(data).hexdigest()
    except EncoderError as error:
        raise EncoderError(f"Cannot use the encoder {path}: {error}.") from None
    except MemoryError:
        raise EncoderError(f"Cannot use the encoder {path}: there is too little memory to read it.") from None
    except Exception as error:  # protobuf's decode errors have no common base that is public
        raise EncoderError(
            f"Cannot use the encoder {path}: it is not an ONNX file, or it is truncated ({type(error).__name__})."
        ) from None


def check_model(model: onnx.ModelProto) -> EncoderInfo:
    """Check a parsed model against the contract.

    Raises:
        EncoderError: If it breaks the contract; the message does not name the file.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in metadata:
        raise EncoderError(f"it has no '{METADATA_KEY}' metadata; train one with 'alula train'")
    info = EncoderInfo.from_json(metadata[METADATA_KEY])
    _check_ends(model, info)
    check_graph(model)
    if info.input == "text":
        if TOKENIZER_KEY not in metadata:
            raise EncoderError(f"it takes text and has no '{TOKENIZER_KEY}' metadata")
        check_tokenizer(metadata[TOKENIZER_KEY])
    return info


def _check_ends(model: onnx.ModelProto, info: EncoderInfo) -> None:
    """Check the graph's ends, and that ``vectors`` alone determine the outputs."""
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    expected = GRAPH_INPUTS[info.input]
    if inputs != set(expected):
        raise EncoderError(f"its inputs are {sorted(inputs)}, not {sorted(expected)}")
    outputs = {value.name for value in model.graph.output}
    wanted = {*info.row_outputs, *info.query_outputs}
    if not wanted <= outputs:
        raise EncoderError(f"it lacks the output {', '.join(sorted(wanted - outputs))} of a '{info.kind}' encoder")
    if info.input == "vectors":
        return
    for name in (VECTORS, *([QUERY_VECTORS] if info.query_max_tokens else [])):
        if name not in outputs:
            raise EncoderError(f"it takes {info.input} and lacks the output '{name}', the embedding")
    for output in sorted(wanted):
        _, read = trace(model, {VECTORS}, {output})
        if not read.isdisjoint(expected):
            beside = ", ".join(sorted(read.intersection(expected)))
            raise EncoderError(
                f"its output {output} is computed from {beside} past '{VECTORS}'; rows and queries may be computed "
                "from the embedding only"
            )


def write_info(model: onnx.ModelProto, info: EncoderInfo, *, tokenizer: str | None = None) -> None:
    """Write ``info``, and a tokenizer's JSON, into the model's ``metadata_props``."""
    new = {METADATA_KEY: info.to_json()} | ({TOKENIZER_KEY: tokenizer} if tokenizer is not None else {})
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key not in new}
    del model.metadata_props[:]
    for key, value in {**kept, **new}.items():
        model.metadata_props.add(key=key, value=value)
