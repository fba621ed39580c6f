"""Export a sparse encoder to one ONNX file, and compare it with the torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from alula.encoders import DrqEncoder, EncoderInfo, FlopsEncoder
from alula.errors import EncoderError
from alula_exporters.backbones.onnx import Front
from alula_exporters.data import F32
from alula_exporters.flops.model import FLOOR, LONGEST, SparseEncoder
from alula_exporters.inputs import TINY, add_unit_rows
from alula_exporters.onnx_export import GraphBuilder, export_encoder, versions
from alula_exporters.training import Trained

MIN_SAME_DIMS = 0.99  # of rows; dimensions of nearly the same weight may stand for each other
MAX_WEIGHT_ERROR = 1e-4


def export_flops(trained: Trained[SparseEncoder], path: Path, *, force: bool = False) -> EncoderInfo:
    """Write a trained sparse encoder, atomically, as an ``.onnx`` file.

    The file includes its parity figures.

    Args:
        trained: From `train_flops`.
        path: The file to write.
        force: Replace an existing file.

    Returns:
        The metadata of the file.

    Raises:
        UsageError: If the file exists and ``force`` is not set, its folder is missing, or the backbone cannot be
            exported.
        EncoderError: If the file and the torch module disagree.
    """
    model = trained.model
    info = EncoderInfo(
        kind="flops",
        metric=model.metric,
        input_dim=model.weight.shape[1],
        normalized=model.metric == "COSINE",
        scale=model.scale,
        dim=model.dim,
        max_nnz=model.nnz,
        training=trained.training,
        versions=versions(),
    )
    vectors, features = trained.parity_rows()

    def check(encoder: FlopsEncoder | DrqEncoder) -> dict[str, Any]:
        assert isinstance(encoder, FlopsEncoder)  # noqa: S101 (for the type checker)
        return _parity(model, encoder, vectors, features)

    front = trained.front()
    return export_encoder(build_graph(model, front), info, path, check=check, force=force)


def build_graph(model: SparseEncoder, front: Front | None = None) -> GraphBuilder:
    """Build the graph of `SparseEncoder.forward`.

    Non-zeros are in COO order, row by row, heaviest first.
    """
    graph = GraphBuilder("flops", model.weight.shape[1], front)
    prepared, lengths = add_unit_rows(graph, graph.vectors)
    if model.sees_lengths:
        prepared = graph.node("Div", graph.vectors, graph.constant(np.float32(model.scale)))
    weight, bias = (tensor.detach().numpy() for tensor in (model.weight, model.bias))
    # stored transposed: onnxruntime then packs it once, at load
    head_weight = graph.constant(np.ascontiguousarray(weight.T), "weight")
    if model.activation == "soft-threshold":
        outputs = graph.node("MatMul", prepared, head_weight)
        both = graph.node("Concat", outputs, graph.node("Neg", outputs), axis=1)
        head = graph.node("Sub", both, graph.constant(np.tile(np.abs(bias), 2)))
    else:
        head = graph.node("Gemm", prepared, head_weight, graph.constant(bias))
    values, dims = graph.nodes("TopK", head, graph.constant(np.array([model.nnz], np.int64)), count=2, axis=1)
    floor = np.zeros(model.nnz, np.float32)
    floor[0] = FLOOR  # ReLU and the floor of the largest activation in one operator
    kept = graph.node("Max", values, graph.constant(floor))
    weights = graph.node("Div", kept, graph.node("ReduceL2", kept, graph.constant(np.array([1], np.int64)), keepdims=1))
    if model.metric != "COSINE":
        shortest, longest, tiny = (graph.constant(np.float32(x)) for x in (model.shortest, LONGEST, TINY))
        scaled = graph.node("Div", lengths, graph.constant(np.float32(model.scale)))
        scaled = graph.node("Clip", scaled, shortest, longest)
        powers = graph.node("Pow", scaled, graph.constant(np.float32(model.length_power.item())))
        weights = graph.node("Mul", weights, graph.node("Max", powers, tiny))
    add_sparse_rows(graph, weights, dims)
    return graph


def add_sparse_rows(graph: GraphBuilder, weights: str, dims: str) -> None:
    """The outputs of a sparse encoder: the non-zeros in COO order.

    Args:
        graph: The graph.
        weights: float32 (n, k), none negative.
        dims: int64 (n, k): their dimensions.
    """
    used = graph.node("Greater", weights, graph.constant(np.float32(0)))
    rows = graph.gather(graph.node("NonZero", used), graph.constant(np.int64(0)))
    flat = graph.reshape(used, -1)
    graph.output("rows", rows, np.int64, ["nnz"])
    graph.output("dims", graph.node("Compress", graph.reshape(dims, -1), flat, axis=0), np.int64, ["nnz"])
    graph.output("weights", graph.node("Compress", graph.reshape(weights, -1), flat, axis=0), np.float32, ["nnz"])


@torch.no_grad()
def _parity(model: SparseEncoder, encoder: FlopsEncoder, vectors: F32, features: F32) -> dict[str, Any]:
    weights, dims = (tensor.numpy() for tensor in model(torch.from_numpy(features)))
    rows = np.repeat(np.arange(len(vectors)), model.nnz)
    expected = sp.csr_array((weights.ravel(), (rows, dims.ravel())), shape=(len(vectors), model.dim))
    expected.eliminate_zeros()
    expected.sort_indices()
    found = encoder.encode_rows(vectors)
    same = np.array([np.array_equal(*pair) for pair in zip(_dims(expected), _dims(found), strict=True)])
    right = np.array([same[i] or _is_tie(expected[[i]], found[[i]]) for i in range(len(vectors))])
    error = float("inf")
    if same.any():
        differences, largest = (rows[same].max(axis=1).toarray().ravel() for rows in (abs(found - expected), expected))
        error = float((differences / np.maximum(1, largest)).max())  # long rows have large weights for IP
    share = float(same.mean())
    if right.mean() < MIN_SAME_DIMS or not error <= MAX_WEIGHT_ERROR:
        raise EncoderError(
            f"The ONNX graph does not compute what the trained module does: {right.mean():.2%} of rows have the same "
            f"dimensions, and their weights differ by up to {error:.2g}. Nothing was written; please report this."
        )
    return {"rows": len(vectors), "same_dims": share, "max_weight_error": error}


def _is_tie(expected: sp.csr_array, found: sp.csr_array) -> bool:
    """True if two rows, float32 (1, D), differ only in equally heavy dimensions."""
    alone = abs(expected - found)
    alone.data[alone.data <= MAX_WEIGHT_ERROR] = 0
    alone.eliminate_zeros()
    return bool(alone.nnz == 0 or alone.data.max() - alone.data.min() <= MAX_WEIGHT_ERROR) and bool(
        abs(expected.sum() - found.sum()) <= MAX_WEIGHT_ERROR * max(1, alone.nnz)
    )


def _dims(rows: sp.csr_array) -> list[npt.NDArray[np.integer[Any]]]:
    return np.split(rows.indices, rows.indptr[1:-1])
