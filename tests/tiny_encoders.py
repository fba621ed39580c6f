"""Small encoders made by hand, without torch: files that keep the contract, and what they compute written in numpy.

>>> drq = write_drq(tmp_path / "drq.onnx", metric="L2", levels=5)
>>> load_encoder(drq.path).encode_rows(vectors).codes == drq.codes(vectors)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from alula.encoders import EncoderInfo, write_info

FLOOR = 1e-3  # the least weight of the heaviest term, so that no row is empty
TINY = 1e-12  # the least length that a vector is divided by
OPSET = 21


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


@dataclass(frozen=True)
class TinyFlops:
    """A file written by `write_flops`: the top k of ``W x``, ReLU, unit length."""

    path: Path
    info: EncoderInfo
    weight: np.ndarray  # (dim, d)

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


def write_flops(path, *, input_dim=8, dim=32, max_nnz=4, metric="COSINE", scale=1.7, seed=0):
    """Write a sparse encoder; what it computes is `TinyFlops`."""
    weight = np.random.default_rng(seed).standard_normal((dim, input_dim)).astype(np.float32)
    normalized = metric == "COSINE"
    info = EncoderInfo(
        "flops", metric, input_dim, normalized, scale=1.0 if normalized else scale, dim=dim, max_nnz=max_nnz
    )
    graph = _Graph(info)
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
    return TinyFlops(Path(path), info, weight)


def write_drq(path, *, input_dim=8, levels=4, sign_bits=32, metric="COSINE", scale=1.7, seed=0):
    """Write a quantiser; what it computes is `TinyDrq`."""
    rng = np.random.default_rng(seed)
    spread = 0.5 * 0.75 ** np.arange(levels)[:, None, None]
    codewords = (spread * rng.standard_normal((levels, 256, input_dim))).astype(np.float32)
    projection = rng.standard_normal((sign_bits, input_dim)).astype(np.float32)
    normalized = metric == "COSINE"
    info = EncoderInfo(
        "drq", metric, input_dim, normalized, scale=1.0 if normalized else scale, levels=levels, sign_bits=sign_bits
    )
    graph = _Graph(info)
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
    save(graph.model(), path)
    return TinyDrq(Path(path), info, codewords, projection)


def save(model, path):
    """Write a model as it is, right or wrong."""
    Path(path).write_bytes(model.SerializeToString())


class _Graph:
    """A graph under construction; its methods take and return names of tensors."""

    def __init__(self, info):
        self._info = info
        self._nodes, self._constants, self._outputs = [], [], []
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
        vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", self._info.input_dim])
        graph = helper.make_graph(self._nodes, self._info.kind, [vectors], self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
        write_info(model, self._info)
        onnx.checker.check_model(model)
        return model
