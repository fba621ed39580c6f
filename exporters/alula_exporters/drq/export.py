"""Export a quantiser to one ONNX file, and compare it with the torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alula.encoders import DrqEncoder, DrqQueries, DrqRows, EncoderInfo, FlopsEncoder
from alula.errors import EncoderError
from alula_exporters.backbones.onnx import Front
from alula_exporters.data import F32
from alula_exporters.drq.model import CODEWORDS, Quantizer
from alula_exporters.drq.signs import SignBits
from alula_exporters.drq.variants import PaperQuantizer
from alula_exporters.inputs import add_unit_rows
from alula_exporters.onnx_export import GraphBuilder, export_encoder, versions
from alula_exporters.training import Trained

MAX_WORSE = 0.01  # of the mean quantisation error: a tie at one level can lead the two searches to different codes
ROUNDING = 1e-6  # of float32 sums, for rows and directions of length 1
MIN_SAME_SIGNS = 0.999
MAX_ERROR = 1e-4  # of norms, tables and estimates by signs, in units of the encoder's scale


def export_drq(
    trained: Trained[Quantizer], path: Path, *, force: bool = False, opset: int | None = None
) -> EncoderInfo:
    """Write a trained quantiser, atomically, as an ``.onnx`` file with parity figures.

    Args:
        trained: From `train_drq`.
        path: The file to write.
        force: Replace an existing file.
        opset: Version of the ONNX operator set, for an older onnxruntime; None for the newest.

    Returns:
        The metadata of the file.

    Raises:
        UsageError: If the file exists and ``force`` is not set, its folder is missing, or the backbone cannot be
            exported.
        EncoderError: If the file and the torch module disagree.
    """
    model = trained.model
    beam = int(trained.training["recipe"]["beam"])
    bits, dim = model.signs.projection.shape
    info = EncoderInfo(
        kind="drq",
        metric=model.metric,
        input_dim=dim,
        normalized=model.metric == "COSINE",
        scale=model.scale,
        levels=model.levels,
        sign_bits=bits,
        training=trained.training,
        versions=versions(),
    )
    vectors, features = trained.parity_rows()

    def check(encoder: FlopsEncoder | DrqEncoder) -> dict[str, Any]:
        assert isinstance(encoder, DrqEncoder)  # noqa: S101 (for the type checker)
        return _parity(model, encoder, vectors, features, beam)

    front = trained.front()
    return export_encoder(build_graph(model, beam, front), info, path, check=check, force=force, opset=opset)


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
    # stored once; what is derived from it below is constant, so onnxruntime computes it once at load
    if isinstance(model, PaperQuantizer):
        scales = graph.constant(model.scales.numpy()[:, None, None], "scales")
        codewords = graph.node("Mul", scales, graph.constant(model.codebook.numpy(), "codebook"))
    else:
        codewords = graph.constant(model.codewords().numpy(), "codewords")
    levels = [graph.gather(codewords, graph.constant(np.int64(level))) for level in range(model.levels)]

    search, searched = prepared, levels
    if model.offset is not None:
        # without the mean, whose squares would drown the differences of rows far from the origin in float32
        offset = graph.constant(model.offset.numpy())
        search, searched = graph.node("Sub", prepared, offset), [graph.node("Sub", levels[0], offset), *levels[1:]]
    codes = _add_beam_search(graph, search, searched, dim, beam)
    norms, x_hat = [], ""
    for level, code in zip(levels, codes, strict=True):
        part = graph.gather(level, graph.reshape(code, -1))
        x_hat = graph.node("Add", x_hat, part) if x_hat else part
        norms.append(graph.node("ReduceL2", x_hat, graph.constant(np.array([1], np.int64)), keepdims=1))
    packed_codes = graph.node("Cast", graph.node("Concat", *codes, axis=1), to=_UINT8)
    graph.output("codes", packed_codes, np.uint8, ["n", model.levels])
    graph.output("norms", graph.node("Concat", *norms, axis=1), np.float32, ["n", model.levels])
    sign_bits = _add_signs(graph, prepared, model.signs)

    flat = graph.node("Transpose", graph.reshape(codewords, model.levels * CODEWORDS, dim), perm=[1, 0])
    tables = graph.reshape(graph.node("MatMul", prepared, flat), 0, model.levels, CODEWORDS)
    graph.output("lut", tables, np.float32, ["n", model.levels, CODEWORDS])
    graph.output("query_signs", graph.node("Identity", sign_bits), np.uint8, ["n", bits // 8])
    return graph


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
    places = graph.constant(2.0 ** np.arange(7, -1, -1, dtype=np.float32))
    bytes_ = graph.node("MatMul", graph.reshape(graph.node("Cast", positive, to=_FLOAT), 0, bits // 8, 8), places)
    packed = graph.node("Cast", bytes_, to=_UINT8)
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


@torch.no_grad()
def _parity(model: Quantizer, encoder: DrqEncoder, vectors: F32, features: F32, beam: int) -> dict[str, Any]:
    """Compare file and module: equal quantisation error, not equal codes, is required.

    Once nothing is left to code, any codeword near 0 serves, so later levels may differ between the two.
    """
    prepared = model.prepare(torch.from_numpy(features))
    codes = model.encode(prepared, beam)
    rows, queries = encoder.encode_rows(vectors), encoder.encode_queries(vectors)
    file_codes = torch.from_numpy(rows.codes.astype(np.int64))
    reconstructions = model(file_codes)
    found, expected = (_squared_error(prepared, x_hat[:, -1]) for x_hat in (reconstructions, model(codes)))
    norm_error = float(np.abs(rows.norms - reconstructions.norm(dim=2).numpy()).max())
    table_error = float(np.abs(queries.lut - model.tables(prepared).numpy()).max())
    sign_error = _sign_error(model.signs, prepared, rows, queries)
    signs, query_signs = (_same_signs(model.signs, prepared, packed) for packed in (rows.signs, queries.signs))
    rounding = ROUNDING * max(1.0, float(prepared.double().square().sum(1).mean()))
    if (
        not found <= (1 + MAX_WORSE) * expected + rounding
        or min(signs, query_signs) < MIN_SAME_SIGNS
        or not max(norm_error, table_error, sign_error) < MAX_ERROR
    ):
        raise EncoderError(
            f"The ONNX graph does not compute what the trained module does: its quantisation error is "
            f"{found:.4g} instead of {expected:.4g}, {min(signs, query_signs):.2%} of sign bits agree, norms differ by "
            f"up to {norm_error:.2g}, look-up tables by up to {table_error:.2g} and estimates by signs by up to "
            f"{sign_error:.2g}. Nothing was written; please report this."
        )
    return {
        "rows": len(vectors),
        "same_codes": float((file_codes == codes).all(1).float().mean()),
        "error_difference": found - expected,
        "max_norm_error": norm_error,
        "max_lut_error": table_error,
        "max_sign_error": sign_error,
        "same_sign_bits": signs,
        "same_query_sign_bits": query_signs,
    }


def _squared_error(prepared: Tensor, x_hat: Tensor) -> float:
    """Mean squared distance of rows from their reconstructions, float32 (n, d) each."""
    return float((prepared - x_hat).double().square().sum(1).mean())


def _sign_error(signs: SignBits, prepared: Tensor, rows: DrqRows, queries: DrqQueries) -> float:
    """The largest error of the weights, biases and lengths of estimates by signs."""
    pairs = [
        (signs.weights(prepared), queries.sign_weights),
        (signs.bias(prepared), queries.sign_bias),
        (signs.lengths(prepared), rows.sign_lengths),
    ]
    return max(float(np.abs(expected.numpy() - found).max()) for expected, found in pairs)


def _same_signs(signs: SignBits, prepared: Tensor, packed: npt.NDArray[np.uint8]) -> float:
    """Share of equal sign bits; a projection of 0 up to rounding may have either."""
    projections = signs(prepared)
    found = torch.from_numpy(np.unpackbits(packed, axis=1)).bool()
    unsure = projections.abs() <= ROUNDING * projections.square().mean().sqrt()
    return float(((found == (projections > 0)) | unsure).float().mean())
