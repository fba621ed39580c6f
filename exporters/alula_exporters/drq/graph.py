"""The ONNX graph of a quantiser, which stores the parameters as they are shared.

onnxruntime computes in every run what follows from constants, so a query's graph never puts the codewords together: its
look-up tables take the turns to the query instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alula_exporters.backbones.onnx import Front
from alula_exporters.drq.model import CODEWORDS, Quantizer, RecurrentQuantizer
from alula_exporters.drq.signs import SignBits
from alula_exporters.drq.variants import SharedQuantizer
from alula_exporters.inputs import add_unit_rows
from alula_exporters.onnx_export import GraphBuilder


@dataclass(frozen=True)
class _Names:
    """Names of tensors that outputs follow from.

    Args:
        rows: float32 (n, r): rows as codes are searched for them.
        levels: float32 (256, r) each: codewords of the levels.
        tables: float32 (n, M, 256): look-up tables.
        mean: float32 (r,): what was subtracted from the rows, along their axes; empty where nothing was.
        rest: float32 (): the squared length of what was subtracted beside these axes.
    """

    rows: str
    levels: list[str]
    tables: str
    mean: str = ""
    rest: str = ""


@torch.no_grad()
def build_graph(model: Quantizer, beam: int, front: Front | None = None) -> GraphBuilder:
    """Build the graph of a quantiser.

    Its outputs are codes, prefix norms, sign bits and their lengths of rows, and look-up tables, sign bits, weights of
    signs and their bias of queries.

    Args:
        model: The quantiser.
        beam: Prefixes kept while encoding a row.
        front: The backbone that the vectors come from, if any.
    """
    bits, dim = model.signs.projection.shape
    graph = GraphBuilder("drq", dim, front)
    if model.metric == "COSINE":
        prepared = add_unit_rows(graph, graph.vectors)[0]
    else:
        prepared = graph.node("Div", graph.vectors, graph.constant(np.float32(model.scale)))
    if isinstance(model, RecurrentQuantizer):
        names = _add_recurrent(graph, model, prepared)
    else:
        names = _add_plain(graph, model, prepared)
    codes = _add_beam_search(graph, names.rows, names.levels, model.inner_codewords().shape[2], beam)
    _add_norms(graph, names, codes)
    packed_codes = graph.node("Cast", graph.node("Concat", *codes, axis=1), to=_UINT8)
    graph.output("codes", packed_codes, np.uint8, ["n", model.levels])
    sign_bits = _add_signs(graph, prepared, model.signs)
    graph.output("lut", names.tables, np.float32, ["n", model.levels, CODEWORDS])
    graph.output("query_signs", graph.node("Identity", sign_bits), np.uint8, ["n", bits // 8])
    return graph


def _add_recurrent(graph: GraphBuilder, model: RecurrentQuantizer, prepared: str) -> _Names:
    """Nodes of the codebooks, the turns and the axes."""
    rows, queries = graph.node("Sub", prepared, graph.constant(model.offset.numpy(), "mean")), prepared
    mean, rest = model.offset, model.offset.new_zeros(())
    if model.axes is not None:
        axes = graph.constant(model.axes.T.numpy(), "axes")
        rows, queries = graph.node("MatMul", rows, axes), graph.node("MatMul", queries, axes)
        mean = model.axes @ model.offset
        rest = (model.offset - mean @ model.axes).square().sum()
    _, blocks, block, _ = model.turns.shape
    by_block = graph.node("Transpose", graph.reshape(queries, -1, blocks, block), perm=[1, 2, 0])
    own, scales = len(model.codebooks), model.log_scales.exp()
    levels, tables, turned_levels, turned_tables = [], [], [], []
    for number, book in enumerate(model.codebooks):
        # the file has a codebook at the size of its own level, and turns that scale from that to theirs
        scaled = (book.view(CODEWORDS, blocks, block) * scales[number, :, None]).flatten(1)
        columns = graph.constant(scaled.T.numpy())
        levels.append(graph.node("Transpose", columns, perm=[1, 0]))
        tables.append(graph.reshape(graph.node("MatMul", queries, columns), -1, 1, CODEWORDS))
        later = [level for level in range(own, model.levels) if model.books[level] == number]
        if later:
            ratios = scales[later] / scales[number]
            turns = graph.constant((model.turns[[level - own for level in later]] * ratios[:, :, None, None]).numpy())
            parts = graph.node("Transpose", graph.reshape(columns, blocks, block, CODEWORDS), perm=[0, 2, 1])
            turned = graph.node("Transpose", graph.node("MatMul", parts, turns), perm=[0, 2, 1, 3])
            turned_levels += _split(graph, graph.reshape(turned, len(later), CODEWORDS, blocks * block), len(later))
            # <q, c R> = <q R^T, c>
            back = graph.node("Transpose", graph.node("MatMul", turns, by_block), perm=[3, 0, 1, 2])
            back = graph.reshape(back, -1, len(later), blocks * block)
            turned_tables.append(graph.node("MatMul", back, columns))
    # the first level's codewords hold the mean, so its tables hold the query's product with it
    product = graph.node("MatMul", prepared, graph.constant(model.offset[:, None].numpy(), "mean_column"))
    first = graph.constant(np.eye(model.levels, 1, dtype=np.float32))
    bias = graph.node("Mul", graph.reshape(product, -1, 1, 1), first)
    return _Names(
        rows,
        [*levels, *turned_levels],
        graph.node("Add", graph.node("Concat", *tables, *turned_tables, axis=1), bias),
        graph.constant(mean.numpy(), "inner_mean"),
        graph.constant(rest.numpy()),
    )


def _add_plain(graph: GraphBuilder, model: Quantizer, prepared: str) -> _Names:
    """Nodes of one codebook with a scale for each level, or of a codebook for each."""
    if isinstance(model, SharedQuantizer):
        codebook = graph.constant(model.codebook.T.numpy(), "codebook")
        scales = graph.constant(model.scales[:, None, None].numpy(), "scales")
        words = graph.node("Mul", scales, graph.node("Transpose", codebook, perm=[1, 0]))
        levels = _split(graph, words, model.levels)
        products = graph.reshape(graph.node("MatMul", prepared, codebook), -1, 1, CODEWORDS)
        return _Names(prepared, levels, graph.node("Mul", products, graph.reshape(scales, 1, -1, 1)))
    columns = graph.constant(model.codewords().flatten(0, 1).T.numpy(), "codewords")
    words = graph.reshape(graph.node("Transpose", columns, perm=[1, 0]), model.levels, CODEWORDS, -1)
    tables = graph.reshape(graph.node("MatMul", prepared, columns), -1, model.levels, CODEWORDS)
    return _Names(prepared, _split(graph, words, model.levels), tables)


def _split(graph: GraphBuilder, stacked: str, count: int) -> list[str]:
    """Names of the parts of a tensor along its first axis."""
    return [graph.gather(stacked, graph.constant(np.int64(number))) for number in range(count)]


def _add_norms(graph: GraphBuilder, names: _Names, codes: list[str]) -> None:
    """Add the output of the lengths of all prefixes' reconstructions."""
    axis, norms, x_hat = graph.constant(np.array([1], np.int64)), [], names.mean
    for level, code in zip(names.levels, codes, strict=True):
        part = graph.gather(level, graph.reshape(code, -1))
        x_hat = graph.node("Add", part, x_hat) if x_hat else part
        norms.append(graph.node("ReduceSumSquare", x_hat, axis, keepdims=1))
    squares = graph.node("Concat", *norms, axis=1)
    if names.rest:
        squares = graph.node("Add", squares, names.rest)
    graph.output("norms", graph.node("Sqrt", squares), np.float32, ["n", len(codes)])


_UINT8 = 2  # onnx.TensorProto.UINT8
_FLOAT = 1


def _add_beam_search(graph: GraphBuilder, prepared: str, levels: list[str], dim: int, beam: int) -> list[str]:
    """Nodes of `Quantizer.encode`: codeword numbers, int64 (n, 1) for each level."""
    minus_two = graph.constant(np.float32(-2))
    count = graph.constant(np.int64(CODEWORDS))
    axis = graph.constant(np.array([1], np.int64))
    last_axis = graph.constant(np.array([2], np.int64))
    residuals, errors, width = graph.reshape(prepared, -1, 1, dim), "", 1
    parents, words = [], []
    for level in levels:
        products = graph.node("MatMul", residuals, graph.node("Transpose", level, perm=[1, 0]))
        squares = graph.node("ReduceSumSquare", level, axis, keepdims=0)
        if errors:
            squares = graph.node("Add", graph.node("Unsqueeze", errors, last_axis), squares)
        costs = graph.reshape(graph.node("Add", squares, graph.node("Mul", products, minus_two)), -1, width * CODEWORDS)
        width = min(beam, width * CODEWORDS)
        errors, picked = graph.nodes(
            "TopK", costs, graph.constant(np.array([width], np.int64)), count=2, axis=1, largest=0
        )
        parents.append(graph.node("Div", picked, count))
        words.append(graph.node("Mod", picked, count))
        kept = graph.node("GatherND", residuals, graph.node("Unsqueeze", parents[-1], last_axis), batch_dims=1)
        residuals = graph.node("Sub", kept, graph.gather(level, words[-1]))
    # from the best end back to the first level, instead of carrying every prefix's codes forward
    position = graph.node("Slice", graph.node("Mul", parents[-1], graph.constant(np.int64(0))), *_first_column(graph))
    codes = []
    for parent, word in zip(reversed(parents), reversed(words), strict=True):
        codes.append(graph.node("GatherElements", word, position, axis=1))
        position = graph.node("GatherElements", parent, position, axis=1)
    return codes[::-1]


def _first_column(graph: GraphBuilder) -> tuple[str, str, str]:
    start, end = np.array([0], np.int64), np.array([1], np.int64)
    return graph.constant(start), graph.constant(end), graph.constant(end)


def _add_signs(graph: GraphBuilder, prepared: str, signs: SignBits) -> str:
    """Add nodes and outputs of `SignBits`; name the packed bits, uint8 (n, S / 8)."""
    bits, axis = len(signs.offset), graph.constant(np.array([1], np.int64))
    mean = graph.constant(signs.mean.numpy())
    seen = add_unit_rows(graph, prepared)[0] if signs.directions else prepared
    centred = graph.node("Sub", seen, mean)
    projected = graph.node("MatMul", centred, graph.constant(signs.projection.T.numpy()))
    positive = graph.node("Greater", projected, graph.constant(-signs.offset.numpy()))
    places = graph.constant(2.0 ** np.arange(7, -1, -1, dtype=np.float32)[:, None])
    # one product of two matrices: onnxruntime takes a product with a vector row by row, which is slow
    bytes_ = graph.node("MatMul", graph.reshape(graph.node("Cast", positive, to=_FLOAT), -1, 8), places)
    packed = graph.node("Cast", graph.reshape(bytes_, -1, bits // 8), to=_UINT8)
    graph.output("signs", packed, np.uint8, ["n", bits // 8])
    if signs.directions:
        bias = graph.reshape(graph.node("MatMul", seen, graph.constant(signs.mean.numpy()[:, None])), -1)
    else:
        bias = graph.node("ReduceSumSquare", centred, axis, keepdims=0)
        graph.output("sign_lengths", graph.node("Sqrt", bias), np.float32, ["n"])
    shifted = graph.node("Add", projected, graph.constant(signs.offset.numpy()))
    graph.output(
        "sign_weights", graph.node("Mul", shifted, graph.constant(signs.gain.numpy())), np.float32, ["n", bits]
    )
    graph.output("sign_bias", bias, np.float32, ["n"])
    return packed
