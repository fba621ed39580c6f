"""Small encoders made by hand, without torch: files that keep the contract, and what they compute written in numpy.

>>> drq = write_drq(tmp_path / "drq.onnx", metric="L2", levels=5)
>>> load_encoder(drq.path).encode_rows(vectors).codes == drq.codes(vectors)
>>> text = write_drq(tmp_path / "text.onnx", backbone=TinyText())
>>> load_encoder(text.path).embed(["two words"]) == text.backbone.embed(["two words"])
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from alula.encoders import EncoderInfo, write_info

FLOOR = 1e-3  # the least weight of the heaviest term, so that no row is empty
TINY = 1e-12  # the least length that a vector is divided by
OPSET = 21
GAIN, SHIFT = np.float32(0.02), 0.1  # of the estimates by sign bits: the weight of a sign, and what all rows share


def random_vectors(rows, dim=8, seed=0):
    """Rows of lengths that differ, off the origin: float32 (rows, dim)."""
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal((rows, dim)) + 0.3) * rng.uniform(0.5, 2.0, (rows, 1))).astype(np.float32)


def prepare(info, vectors):
    """What an encoder makes of its input first: unit vectors or scaled ones, float64 (n, d)."""
    x = np.asarray(vectors, np.float64)
    if info.normalized:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), TINY)
    return x / info.scale


VOCABULARY = ["[UNK]", "[CLS]", "[PAD]", "query", "row", ":", "the", "cat", "dog", "bird", "sees", "red", "blue"]


@dataclass(frozen=True)
class TinyText:
    """A backbone of texts: [CLS] and the words, cut at ``max_tokens``; the mean of their rows of a table."""

    dim: int = 8
    max_tokens: int = 6
    row_prompt: str = "row: "
    query_prompt: str = "query: "
    table: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(4)
        object.__setattr__(self, "table", rng.standard_normal((len(VOCABULARY), self.dim)).astype(np.float32))

    @property
    def fields(self):
        """What `EncoderInfo` says of it."""
        prompts = {"row_prompt": self.row_prompt, "query_prompt": self.query_prompt}
        return {"input": "text", "max_tokens": self.max_tokens, **prompts}

    def ids(self, text):
        """The tokens of a text, the prompt in it."""
        words = re.findall(r"\w+|[^\w\s]+", text.lower())
        return [VOCABULARY.index(word if word in VOCABULARY else "[UNK]") for word in ["[CLS]", *words]][
            : self.max_tokens
        ]

    def embed(self, texts, *, queries=False):
        """The embeddings: float64 (n, d)."""
        prompt = self.query_prompt if queries else self.row_prompt
        return np.array([self.table[self.ids(prompt + text)].astype(np.float64).mean(0) for text in texts])

    def tokenizer(self):
        """JSON of the tokenizer; its own settings of padding and truncation are wrong on purpose."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        numbers = {word: number for number, word in enumerate(VOCABULARY)}
        made = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
        made.enable_truncation(2)
        made.enable_padding(length=50, pad_id=2, pad_token="[PAD]")
        return made.to_str()

    def inputs(self):
        """The inputs of the graph."""
        names = ("input_ids", "attention_mask")
        return [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in names]

    def nodes(self, graph):
        """Add the nodes from the inputs to the embedding."""
        rows = graph.node("Gather", graph.constant(self.table), "input_ids")
        mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        masked = graph.node("Mul", rows, graph.node("Unsqueeze", mask, graph.constant(np.array([2], np.int64))))
        axis = graph.constant(np.array([1], np.int64))
        count = graph.node("ReduceSum", mask, axis, keepdims=1)
        return graph.node("Div", graph.node("ReduceSum", masked, axis, keepdims=0), count)


@dataclass(frozen=True)
class TinyImages:
    """A backbone of images: all pixels, from -1 to 1, times a matrix."""

    shape: tuple = (4, 5, 3)
    dim: int = 8
    weight: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(5)
        weight = rng.standard_normal((int(np.prod(self.shape)), self.dim)).astype(np.float32)
        object.__setattr__(self, "weight", weight)

    @property
    def fields(self):
        """What `EncoderInfo` says of it."""
        return {"input": "images", "image_shape": self.shape}

    def random(self, rows, seed=0):
        """Images: uint8 (rows, h, w, c)."""
        return np.random.default_rng(seed).integers(0, 256, (rows, *self.shape), np.uint8)

    def embed(self, images):
        """The embeddings: float64 (n, d)."""
        return (images.reshape(len(images), -1) / 127.5 - 1) @ self.weight.astype(np.float64)

    def tokenizer(self):
        """JSON of the tokenizer, which images have none of."""

    def inputs(self):
        """The input of the graph."""
        return [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *self.shape])]

    def nodes(self, graph):
        """Add the nodes from the input to the embedding."""
        flat = graph.node("Flatten", graph.node("Cast", "images", to=TensorProto.FLOAT), axis=1)
        scaled = graph.node("Div", flat, graph.constant(np.float32(127.5)))
        return graph.node(
            "MatMul", graph.node("Sub", scaled, graph.constant(np.float32(1))), graph.constant(self.weight)
        )


@dataclass(frozen=True)
class TinyFlops:
    """A file written by `write_flops`: the top k of ``W x``, ReLU, unit length."""

    path: Path
    info: EncoderInfo
    weight: np.ndarray  # (dim, d)
    backbone: TinyText | TinyImages | None = None

    def dense(self, vectors):
        """The rows, dense: float64 (n, dim)."""
        head = prepare(self.info, vectors) @ self.weight.T.astype(np.float64)
        kept = np.argsort(-head, axis=1, kind="stable")[:, : self.info.max_nnz]
        weights = np.maximum(np.take_along_axis(head, kept, 1), 0)
        weights[:, 0] = np.maximum(weights[:, 0], FLOOR)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        rows = np.zeros((len(head), self.info.dim))
        np.put_along_axis(rows, kept, weights, 1)
        return rows


@dataclass(frozen=True)
class TinyDrq:
    """A file written by `write_drq`: at each level the codeword nearest to what the levels before it left."""

    path: Path
    info: EncoderInfo
    codewords: np.ndarray  # (M, 256, d)
    projection: np.ndarray  # (S, d)
    backbone: TinyText | TinyImages | None = None

    def codes(self, vectors):
        """The codes: uint8 (n, M)."""
        residual = prepare(self.info, vectors)
        codes = []
        for words in self.codewords.astype(np.float64):
            distances = np.square(residual[:, None, :] - words).sum(2)
            codes.append(distances.argmin(1))
            residual = residual - words[codes[-1]]
        return np.stack(codes, axis=1).astype(np.uint8)

    def reconstructions(self, codes):
        """What each prefix of the codes stands for, in units of the scale: float64 (M, n, d)."""
        parts = [words[codes[:, level]] for level, words in enumerate(self.codewords.astype(np.float64))]
        return np.cumsum(parts, axis=0)

    def norms(self, codes):
        """The norm of each prefix's reconstruction: float64 (n, M)."""
        return np.linalg.norm(self.reconstructions(codes), axis=2).T

    def lut(self, queries):
        """The inner product of each query with each codeword: float64 (n, M, 256)."""
        return np.einsum("nd,mkd->nmk", prepare(self.info, queries), self.codewords)

    def signs(self, prepared):
        """The packed sign bits of prepared vectors or reconstructions: uint8 (n, S / 8)."""
        return np.packbits(np.asarray(prepared) @ self.projection.T > 0, axis=1)

    def row_signs(self, vectors):
        """The packed sign bits of the rows' longest reconstructions."""
        return self.signs(self.reconstructions(self.codes(vectors))[-1])

    def query_signs(self, queries):
        """The packed sign bits of the queries."""
        return self.signs(prepare(self.info, queries))

    def sign_lengths(self, vectors):
        """The lengths of the rows: float64 (n,), 1 but for L2."""
        lengths = np.linalg.norm(prepare(self.info, vectors), axis=1)
        return lengths if self.info.metric == "L2" else np.ones(len(lengths))

    def sign_estimates(self, queries, vectors):
        """The scores in the user's metric by the sign bits of rows: float64 (queries, rows)."""
        signs = np.unpackbits(self.row_signs(vectors), axis=1) * 2.0 - 1
        asked = prepare(self.info, queries)
        products = GAIN * asked @ self.projection.T @ signs.T
        if self.info.metric != "L2":
            return products + SHIFT
        distances = np.square(asked).sum(1)[:, None] - 2 * products + np.square(self.sign_lengths(vectors))
        return self.info.scale**2 * distances


def write_flops(path, *, input_dim=8, dim=32, max_nnz=4, metric="COSINE", scale=1.7, seed=0, backbone=None):
    """Write a sparse encoder; what it computes is `TinyFlops`."""
    weight = np.random.default_rng(seed).standard_normal((dim, input_dim)).astype(np.float32)
    normalized = metric == "COSINE"
    scale = 1.0 if normalized else scale
    raw = backbone.fields if backbone else {}
    info = EncoderInfo("flops", metric, input_dim, normalized, scale=scale, dim=dim, max_nnz=max_nnz, **raw)
    graph = _Graph(info, backbone)
    head = graph.node("MatMul", graph.prepared, graph.constant(np.ascontiguousarray(weight.T)))
    values, dims = graph.nodes("TopK", head, graph.constant(np.array([max_nnz], np.int64)), count=2, axis=1)
    floor = np.zeros(max_nnz, np.float32)
    floor[0] = FLOOR
    weights = graph.unit(graph.node("Max", values, graph.constant(floor)))
    used = graph.node("Greater", weights, graph.constant(np.float32(0)))
    flat, axis = graph.constant(np.array([-1], np.int64)), graph.constant(np.int64(0))
    mask = graph.node("Reshape", used, flat)
    graph.output("rows", graph.node("Gather", graph.node("NonZero", used), axis), TensorProto.INT64, "nnz")
    graph.output(
        "dims", graph.node("Compress", graph.node("Reshape", dims, flat), mask, axis=0), TensorProto.INT64, "nnz"
    )
    weights = graph.node("Compress", graph.node("Reshape", weights, flat), mask, axis=0)
    graph.output("weights", weights, TensorProto.FLOAT, "nnz")
    save(graph.model(), path)
    return TinyFlops(Path(path), info, weight, backbone)


def write_drq(
    path, *, input_dim=8, levels=4, sign_bits=32, metric="COSINE", scale=1.7, seed=0, backbone=None, version=2
):
    """Write a quantiser; what it computes is `TinyDrq`. The signs of version 1 rank nothing."""
    rng = np.random.default_rng(seed)
    spread = 0.5 * 0.75 ** np.arange(levels)[:, None, None]
    codewords = (spread * rng.standard_normal((levels, 256, input_dim))).astype(np.float32)
    projection = rng.standard_normal((sign_bits, input_dim)).astype(np.float32)
    normalized = metric == "COSINE"
    scale = 1.0 if normalized else scale
    raw = backbone.fields if backbone else {}
    sizes = {"levels": levels, "sign_bits": sign_bits, "format_version": version}
    info = EncoderInfo("drq", metric, input_dim, normalized, scale=scale, **sizes, **raw)
    graph = _Graph(info, backbone)
    residual, x_hat, codes, norms = graph.prepared, "", [], []
    for words in codewords:
        table = graph.constant(words)
        products = graph.node("MatMul", residual, graph.constant(np.ascontiguousarray(-2 * words.T)))
        costs = graph.node("Add", products, graph.constant(np.square(words).sum(1)))
        codes.append(graph.node("ArgMin", costs, axis=1, keepdims=1))
        part = graph.node("Gather", table, graph.node("Squeeze", codes[-1], graph.constant(np.array([1], np.int64))))
        residual = graph.node("Sub", residual, part)
        x_hat = graph.node("Add", x_hat, part) if x_hat else part
        norms.append(graph.node("ReduceL2", x_hat, graph.constant(np.array([1], np.int64)), keepdims=1))
    packed = graph.node("Cast", graph.node("Concat", *codes, axis=1), to=TensorProto.UINT8)
    graph.output("codes", packed, TensorProto.UINT8, "n", levels)
    graph.output("norms", graph.node("Concat", *norms, axis=1), TensorProto.FLOAT, "n", levels)
    graph.output("signs", graph.signs(x_hat, projection), TensorProto.UINT8, "n", sign_bits // 8)
    flat = graph.constant(np.ascontiguousarray(codewords.reshape(-1, input_dim).T))
    tables = graph.node("MatMul", graph.prepared, flat)
    shape = graph.constant(np.array([-1, levels, 256], np.int64))
    graph.output("lut", graph.node("Reshape", tables, shape), TensorProto.FLOAT, "n", levels, 256)
    graph.output("query_signs", graph.signs(graph.prepared, projection), TensorProto.UINT8, "n", sign_bits // 8)
    if version > 1:
        weights = graph.node("MatMul", graph.prepared, graph.constant(np.ascontiguousarray(GAIN * projection.T)))
        graph.output("sign_weights", weights, TensorProto.FLOAT, "n", sign_bits)
        squares = graph.node("ReduceSumSquare", graph.prepared, graph.constant(np.array([1], np.int64)), keepdims=0)
        if metric == "L2":
            graph.output("sign_lengths", graph.node("Sqrt", squares), TensorProto.FLOAT, "n")
            graph.output("sign_bias", squares, TensorProto.FLOAT, "n")
        else:
            none = graph.node("Mul", squares, graph.constant(np.float32(0)))
            bias = graph.node("Add", none, graph.constant(np.float32(SHIFT)))
            graph.output("sign_bias", bias, TensorProto.FLOAT, "n")
    save(graph.model(), path)
    return TinyDrq(Path(path), info, codewords, projection, backbone)


def save(model, path):
    """Write a model as it is, right or wrong."""
    Path(path).write_bytes(model.SerializeToString())


class _Graph:
    """A graph under construction; its methods take and return names of tensors."""

    def __init__(self, info, backbone=None):
        self._info, self._backbone = info, backbone
        self._nodes, self._constants, self._outputs = [], [], []
        vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", info.input_dim])
        self._inputs = backbone.inputs() if backbone else [vectors]
        if backbone:
            self.output("vectors", backbone.nodes(self), TensorProto.FLOAT, "n", info.input_dim)
        if info.normalized:
            self.prepared = self.unit("vectors")
        else:
            self.prepared = self.node("Div", "vectors", self.constant(np.float32(info.scale)))

    def constant(self, array):
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def nodes(self, op, *inputs, count, **attributes):
        outputs = [f"{op}_{len(self._nodes)}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs

    def node(self, op, *inputs, **attributes):
        return self.nodes(op, *inputs, count=1, **attributes)[0]

    def unit(self, rows):
        length = self.node("ReduceL2", rows, self.constant(np.array([1], np.int64)), keepdims=1)
        return self.node("Div", rows, self.node("Max", length, self.constant(np.float32(TINY))))

    def signs(self, rows, projection):
        projected = self.node("MatMul", rows, self.constant(np.ascontiguousarray(projection.T)))
        positive = self.node("Greater", projected, self.constant(np.float32(0)))
        shape = self.constant(np.array([-1, len(projection) // 8, 8], np.int64))
        bits = self.node("Cast", self.node("Reshape", positive, shape), to=TensorProto.FLOAT)
        weights = self.constant(2.0 ** np.arange(7, -1, -1, dtype=np.float32))
        return self.node("Cast", self.node("MatMul", bits, weights), to=TensorProto.UINT8)

    def output(self, name, tensor, element, *shape):
        self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))

    def model(self):
        graph = helper.make_graph(self._nodes, self._info.kind, self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
        write_info(model, self._info, tokenizer=self._backbone.tokenizer() if self._backbone else None)
        onnx.checker.check_model(model)
        return model
