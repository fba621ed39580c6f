"""Input normalisation of an encoder, in torch and as ONNX nodes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from alula_exporters.onnx_export import GraphBuilder

# Far under any real vector's length, far over float32's smallest normal number: a zero vector stays zero, without NaN.
TINY = 1e-30


def unit_rows(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Scale rows to unit length.

    The largest magnitude is divided out first, because the squares of very small or large numbers leave float32.

    Args:
        vectors: float32 (n, d).

    Returns:
        The directions, float32 (n, d) of unit length (zero rows stay zero), and the lengths, float32 (n, 1).
    """
    largest = vectors.abs().amax(dim=1, keepdim=True).clamp_min(TINY)
    scaled = vectors / largest
    norms = scaled.norm(dim=1, keepdim=True)
    return scaled / norms.clamp_min(TINY), norms * largest


def add_unit_rows(graph: GraphBuilder, vectors: str) -> tuple[str, str]:
    """`unit_rows` as ONNX nodes: names of directions (n, d) and lengths (n, 1)."""
    tiny = graph.constant(np.float32(TINY))
    axis = graph.constant(np.array([1], np.int64))
    largest = graph.node("Max", graph.node("ReduceMax", graph.node("Abs", vectors), axis, keepdims=1), tiny)
    scaled = graph.node("Div", vectors, largest)
    norms = graph.node("ReduceL2", scaled, axis, keepdims=1)
    return graph.node("Div", scaled, graph.node("Max", norms, tiny)), graph.node("Mul", norms, largest)
