"""An encoder file with 8-bit weights: a quarter of the size, and what it costs in recall, measured and written into it.

Dynamic quantisation (`onnxruntime.quantization.quantize_dynamic`): weights are stored as 8-bit numbers with a scale for
each output; activations are scaled when the graph runs, by the largest number of the batch, so that a row's weights
depend a little on the rows it is encoded with. Codes are never computed from 8-bit tables: of a ``drq`` encoder only
the backbone is quantised, as the precision of the sums over its codewords is what a code is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from alula.encoders import DrqEncoder, EncoderInfo, FlopsEncoder, load_encoder, read_model, write_info
from alula.errors import DataError, UsageError
from alula.sources import read_inputs
from alula_exporters.output_file import atomic_file, check_out_path
from alula_exporters.quality import QUERIES, ROWS, exact_neighbours, share_found

F32 = npt.NDArray[np.float32]

MIN_ROWS = 1000  # a share of 10 among the best 100 or 500 says nothing for fewer
_FLOATS = 1 << 27  # of the vectors that recall is measured with: those of a vocabulary are long
_CANDIDATES = (100, 500)
_WEIGHTED = ("MatMul", "Gemm", "Conv", "Gather")  # what has weights, and an integer operator in standard ONNX
_VECTORS = "vectors"


def export_int8(
    path: Path, data: Path, out: Path, *, column: str | None = None, force: bool = False
) -> tuple[EncoderInfo, dict[str, tuple[float, float]]]:
    """Write an encoder file with 8-bit weights beside the one it is made from, and measure what that costs.

    Args:
        path: An encoder file of ``precision`` fp32.
        data: A file of what the encoder takes, at least `MIN_ROWS` rows that it was not trained on: a tenth of them, at
            most 200, become queries.
        out: The file to write.
        column: The column of ``data``, for files with columns.
        force: Replace an existing file.

    Returns:
        What the file says of itself, with ``int8_recall_difference`` in ``parity``; and the recall of both files by
        name, at fp32 and at int8. Recall is the share of the exact 10 neighbours (of the fp32 vectors): ``flops``,
        among the best 100 and 500 sparse rows; ``drq``, among the best 10 by full code.

    Raises:
        UsageError: If the file cannot be quantised, or ``out`` exists and ``force`` is not set.
        DataError: If there are too few rows, or they cannot be used.
        EncoderError: If the file is no encoder, or does not work afterwards.
    """
    check_out_path(out, force=force)
    model, info = read_model(path)
    if info.precision != "fp32":
        raise UsageError(f"The encoder {path} has {info.precision} weights already.")
    if info.kind == "drq" and info.input == "vectors":
        raise UsageError(
            f"The encoder {path} is a quantiser of vectors: all it does is compare them with codewords, in sums that "
            "have to be exact. Only a backbone before it could have 8-bit weights."
        )
    before = load_encoder(path)
    inputs = read_inputs(data, column, info.input)
    if len(inputs) < MIN_ROWS:
        raise DataError(f"{data} has {len(inputs):,} rows, and {MIN_ROWS:,} are needed to measure recall.")
    order = np.random.default_rng(0).permutation(len(inputs))
    count = min(QUERIES, len(inputs) // 10)
    last = count + min(ROWS, _FLOATS // info.input_dim)
    queries, rows = (_take(inputs, some) for some in (order[:count], order[count:last]))
    vectors = _embed(before, queries, rows)
    truth = exact_neighbours(torch.from_numpy(vectors[0]), torch.from_numpy(vectors[1]), info.metric)
    with atomic_file(out) as temporary:
        small = _quantize(model, info, temporary)
        changed = replace(info, precision="int8")
        write_info(small, changed)
        temporary.write_bytes(small.SerializeToString(deterministic=True))
        after = load_encoder(temporary)
        fp32, int8 = _recall(before, *vectors, truth), _recall(after, *_embed(after, queries, rows), truth)
        difference = {name: int8[name] - fp32[name] for name in fp32}
        changed = replace(changed, parity={**info.parity, "int8_recall_difference": difference})
        write_info(small, changed)
        temporary.write_bytes(small.SerializeToString(deterministic=True))
        load_encoder(temporary)
    return changed, {name: (fp32[name], int8[name]) for name in fp32}


def _quantize(model: onnx.ModelProto, info: EncoderInfo, path: Path) -> onnx.ModelProto:
    """The model with 8-bit weights; ``path`` is written on the way."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"  # the quantiser tells them apart by name
    kept = _behind_vectors(model) if info.kind == "drq" else []
    with _quiet():
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(_WEIGHTED),
            nodes_to_exclude=kept,
            per_channel=True,
            weight_type=QuantType.QUInt8,  # a signed one saturates on processors without VNNI
            extra_options={"MatMulConstBOnly": True},
        )
    small = onnx.load(path, load_external_data=False)
    if not any(node.op_type in ("MatMulInteger", "ConvInteger", "DequantizeLinear") for node in small.graph.node):
        raise UsageError("The encoder has no weights that standard ONNX operators take as 8-bit numbers.")
    used = {node.domain for node in small.graph.node}
    opsets = [entry for entry in small.opset_import if entry.domain in used]
    del small.opset_import[:]
    small.opset_import.extend(opsets)
    return small


def _behind_vectors(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that lie between ``vectors`` and the outputs, those that only prepare constants included."""
    ahead, names = {_VECTORS}, []
    for node in reversed(model.graph.node):  # in topological order
        if not ahead.isdisjoint(node.output):
            ahead.update(node.input)
        else:
            names.append(node.name)
    return names


def _take(inputs: Any, places: Any) -> Any:
    return inputs[places] if isinstance(inputs, np.ndarray) else [inputs[place] for place in places]


def _embed(encoder: FlopsEncoder | DrqEncoder, queries: Any, rows: Any) -> tuple[F32, F32]:
    return encoder.embed(queries, queries=True), encoder.embed(rows)


def _recall(encoder: FlopsEncoder | DrqEncoder, queries: F32, rows: F32, truth: torch.Tensor) -> dict[str, float]:
    """Recall by what the file makes of vectors, by name; ``truth`` holds the exact neighbours, int64 (m, 10)."""
    if isinstance(encoder, FlopsEncoder):
        scores = torch.from_numpy((encoder.encode_queries(queries) @ encoder.encode_rows(rows).T).toarray())
        return {f"recall@10 in top {count}": share_found(truth, scores, count) for count in _CANDIDATES}
    tables, codes = encoder.encode_queries(queries).lut, encoder.encode_rows(rows)
    products = np.zeros((len(queries), len(rows)), np.float32)
    for level in range(encoder.info.levels):
        products += tables[:, level][:, codes.codes[:, level]]
    if encoder.info.metric != "IP":  # minus half the squared distance to the reconstruction, but for the query's part
        products -= 0.5 * codes.norms[:, -1] ** 2
    return {f"recall@10 by {encoder.info.max_bits}-bit codes": share_found(truth, torch.from_numpy(products), 10)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to run another of its tools first, which would fuse into operators of its own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
