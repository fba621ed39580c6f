"""Read the weights of linear sparse encoders, to encode without onnxruntime.

A call of onnxruntime costs more than a search in this process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from alula.encoders.contract import SPARSE_OUTPUTS, VECTORS
from alula.encoders.flops_encoder import FlopsEncoder
from alula.encoders.graph import trace

F32 = npt.NDArray[np.float32]

PROBES = 64
TOLERANCE = 1e-4  # of weights and of activations, relative to the largest
TINY = 1e-30  # the shortest length that a vector is divided by
# What such an encoder computes with; an operator that is not among them may do anything.
_CALCULATION = ["Abs", "Clip", "Div", "Gemm", "Max", "Mul", "Pow", "ReduceL2", "ReduceMax", "TopK"]
_OUTPUT = ["Compress", "Gather", "Greater", "Identity", "NonZero", "Reshape"]
OPERATORS = frozenset(_CALCULATION + _OUTPUT)


@dataclass(frozen=True)
class LinearHead:
    """A sparse encoder before it scales its rows: f(x) = max(top-k(W x' + b), 0).

    x' is x / |x|, or x / scale. Where no activation reaches the floor, the largest counts as the floor.

    Args:
        weight: float32 (D, d): W.
        bias: float32 (D,): b.
        nnz: k.
        floor: The least weight of the heaviest term.
        scale: The divisor of vectors; None for their own length.
    """

    weight: F32
    bias: F32
    nnz: int
    floor: float
    scale: float | None

    def activations(self, vectors: F32) -> F32:
        """W x' + b, float32 (n, D), of vectors (n, d)."""
        if self.scale is None:
            largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.float32(TINY))
            scaled = vectors / largest
            prepared = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), np.float32(TINY))
        else:
            prepared = vectors / np.float32(self.scale)
        outputs: F32 = prepared @ self.weight.T + self.bias
        return outputs


def read_linear_head(encoder: FlopsEncoder) -> LinearHead | None:
    """Read the linear head of a sparse encoder; None if its graph is not one.

    The head is compared with onnxruntime on vectors of several lengths.

    Args:
        encoder: The encoder; of text and images, what it does to their vectors counts.
    """
    try:
        head = _Graph(encoder.model).head()
    except _OtherGraphError:
        return None
    return head if _agrees(head, encoder) else None


class _OtherGraphError(Exception):
    """The graph is not that of a linear head."""


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes, _ = trace(model, (VECTORS,), SPARSE_OUTPUTS)
        self._made_by = {output: node for node in self._nodes for output in node.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        if any(node.op_type not in OPERATORS or node.domain for node in self._nodes):
            raise _OtherGraphError

    def head(self) -> LinearHead:
        linear, top = self._only("Gemm"), self._only("TopK")
        if linear.attribute or len(linear.input) != 3 or top.input[0] != linear.output[0]:
            raise _OtherGraphError
        prepared, weight, bias = linear.input
        (clipped,) = (node for node in self._nodes if top.output[0] in node.input)
        _, floor = self._inputs(clipped.output[0], "Max")
        floors = self._constant(floor)
        if floors.ndim != 1 or floors[1:].any():
            raise _OtherGraphError
        return LinearHead(
            np.ascontiguousarray(self._constant(weight).T, np.float32),
            np.ravel(self._constant(bias)).astype(np.float32),
            int(self._constant(top.input[1]).item()),
            float(floors[0]),
            self._scale(prepared),
        )

    def _scale(self, prepared: str) -> float | None:
        divided, divisor = self._inputs(prepared, "Div")
        if divided == VECTORS:
            return float(self._constant(divisor).item())
        vectors, largest = self._inputs(divided, "Div")
        (absolute, *_) = self._inputs(self._inputs(largest, "Max")[0], "ReduceMax")
        (measured, *_) = self._inputs(self._inputs(divisor, "Max")[0], "ReduceL2")
        if not vectors == self._inputs(absolute, "Abs")[0] == VECTORS or measured != divided:
            raise _OtherGraphError
        return None

    def _only(self, operator: str) -> onnx.NodeProto:
        found = [node for node in self._nodes if node.op_type == operator]
        if len(found) != 1:
            raise _OtherGraphError
        return found[0]

    def _inputs(self, output: str, operator: str) -> list[str]:
        node = self._made_by.get(output)
        if node is None or node.op_type != operator:
            raise _OtherGraphError
        return list(node.input)

    def _constant(self, name: str) -> npt.NDArray[Any]:
        if name not in self._constants:
            raise _OtherGraphError
        return numpy_helper.to_array(self._constants[name])


def _agrees(head: LinearHead, encoder: FlopsEncoder) -> bool:
    """True if the head agrees with onnxruntime, except among nearly equal activations."""
    rng = np.random.default_rng(0)
    dim, info = head.weight.shape[1], encoder.info
    if head.weight.shape[0] != info.dim or dim != info.input_dim or not 0 < head.nnz <= info.dim:
        return False
    lengths = np.geomspace(0.01, 100, PROBES)[:, None] * info.scale
    directions = rng.standard_normal((PROBES, dim))
    vectors = (directions / np.linalg.norm(directions, axis=1, keepdims=True) * lengths).astype(np.float32)
    vectors[-1] = 0
    rows, activations = encoder.encode_rows(vectors), head.activations(vectors)
    for i, activation in enumerate(activations):
        dims, weights = (part[rows.indptr[i] : rows.indptr[i + 1]] for part in (rows.indices, rows.data))
        expected = np.maximum(activation[dims], np.float32(0 if activation.max() >= head.floor else head.floor))
        smallest = max(float(np.sort(activation)[-head.nnz]), 0.0)
        error = TOLERANCE * max(1.0, float(np.abs(activation).max()))
        kept_enough = (activation > smallest + error).sum() <= len(dims) <= head.nnz
        if not kept_enough or (expected < smallest - error).any():
            return False
        if np.abs(expected / expected.max() - weights / weights.max()).max() > TOLERANCE:
            return False
    return True
