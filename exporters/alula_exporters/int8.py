"""Quantise an encoder file to 8-bit weights, and measure the loss of recall.

Dynamic quantisation (`onnxruntime.quantization.quantize_dynamic`): weights are stored as 8-bit numbers with a scale for
each output; activations are scaled at run time by the largest number of the batch, so a row's weights depend slightly
on the other rows of its batch. Codes are never computed from 8-bit tables: of a ``drq`` encoder only the backbone is
quantised, because codes are decided by exact sums over codewords.
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
from alula_exporters.quality import QUERIES, ROWS, exact_neighbours
from alula_exporters.reports import report_of

F32 = npt.NDArray[np.float32]

MIN_ROWS = 1000  # recall in the best 100 or 500 is meaningless for fewer
_FLOATS = 1 << 27  # numbers in the vectors that recall is measured with: SPLADE's are as long as a vocabulary
_WEIGHTED = ("MatMul", "Gemm", "Conv", "Gather")  # operators with weights that have an integer version in standard ONNX
_VECTORS = "vectors"


def export_int8(
    path: Path, data: Path, out: Path, *, column: str | None = None, force: bool = False
) -> tuple[EncoderInfo, dict[str, tuple[float, float]]]:
    """Write a copy of an encoder file with 8-bit weights, and measure its recall.

    Args:
        path: An encoder file of ``precision`` fp32.
        data: A file of the encoder's input type with at least `MIN_ROWS` rows outside its training data; a tenth of
            them, at most 200, become queries.
        out: The file to write.
        column: The column of ``data``, for files with columns.
        force: Replace an existing file.

    Returns:
        The metadata of the new file, with ``int8_recall_difference`` in ``parity``; and the recall of both files by
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
    report = report_of(info.kind)
    if not report.int8_head and info.input == "vectors":
        raise UsageError(
            f"The encoder {path} is a quantiser of vectors without a backbone. Its codes are decided by exact sums "
            "over codewords, so only a backbone can have 8-bit weights."
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
        small = _quantize(model, temporary, head=report.int8_head)
        changed = replace(info, precision="int8")
        write_info(small, changed)
        temporary.write_bytes(small.SerializeToString(deterministic=True))
        after = load_encoder(temporary)
        fp32 = report.recall(before, *vectors, truth)
        int8 = report.recall(after, *_embed(after, queries, rows), truth)
        difference = {name: int8[name] - fp32[name] for name in fp32}
        changed = replace(changed, parity={**info.parity, "int8_recall_difference": difference})
        write_info(small, changed)
        temporary.write_bytes(small.SerializeToString(deterministic=True))
        load_encoder(temporary)
    return changed, {name: (fp32[name], int8[name]) for name in fp32}


def _quantize(model: onnx.ModelProto, path: Path, *, head: bool) -> onnx.ModelProto:
    """Quantise the weights, the head's too if ``head`` is set; overwrites ``path``."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"  # the quantiser identifies them by name
    kept = [] if head else _behind_vectors(model)
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
    """Names of the nodes after ``vectors``, including those that prepare constants."""
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice to run a tool that fuses nodes into non-standard operators."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
