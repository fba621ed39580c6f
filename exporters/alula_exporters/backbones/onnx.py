"""Export a backbone as an ONNX graph from raw inputs to ``vectors``.

Unlike the heads, which are written node by node, a backbone is any torch module, so it is traced. Tracing takes seconds
and can fail: do it before training, not after.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import compose, helper, inliner
from torch import Tensor, nn

from alula.encoders import EncoderInfo
from alula.errors import UsageError

# What torch's exporter writes by itself; newer operators are converted. Those of the encoders have not changed since
# (TopK: a wider type list only), and any onnxruntime from 1.14 on takes them. Python 3.10 has onnxruntime 1.23 at most,
# which does not take the newest ones.
OPSET = 18
MAX_ERROR = 1e-4  # of the vectors, as a share of the largest number in them
MAX_BYTES = 2 << 30  # of a protobuf message, which the file is


@dataclass(frozen=True)
class Front:
    """A backbone that an encoder file begins with; see `export_backbone`.

    Args:
        model: The ONNX graph from the raw inputs to ``vectors``, float32 (n, d).
        about: The fields of `alula.encoders.EncoderInfo` that describe the input: ``input``, and ``image_shape``, or
            ``max_tokens`` and the prompts.
        tokenizer: ``text``: JSON of the tokenizer (package ``tokenizers``).
        parity: Agreement of the graph with the torch module.
    """

    model: onnx.ModelProto
    about: Mapping[str, Any]
    tokenizer: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Name of the head's input: ``vectors``, or ``features`` of given vectors."""
        return str(self.model.graph.output[0].name)

    @property
    def dim(self) -> int:
        """Length d of what the head reads."""
        return int(self.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)

    def describe(self, info: EncoderInfo) -> EncoderInfo:
        """The metadata of a file with this backbone before the head of ``info``."""
        return replace(info, **self.about, parity={**info.parity, **self.parity})


def export_backbone(
    module: nn.Module, example: Mapping[str, Tensor], *, about: Mapping[str, Any], tokenizer: str | None = None
) -> Front:
    """Turn a torch module into the first part of an encoder file, and compare the two.

    Args:
        module: Takes the tensors of ``example`` in their order, and gives float32 (n, d).
        example: Inputs by their names in the contract: ``vectors``, float32 (n, d); ``images``, uint8 (n, h, w, c); or
            ``input_ids`` and
            ``attention_mask``, int64 (n, t) with 2 t positions allowed. At least 2 rows. Axis 0 of images, and both
            axes of texts, may then have any length.
        about: See `Front`.
        tokenizer: See `Front`.

    Returns:
        The graph of standard operators, without names or traces of where it was made.

    Raises:
        UsageError: If the module cannot be exported, or the graph computes something else for other batches.
        ModuleNotFoundError: If the package onnxscript is missing.
    """
    axes = ("n", "t") if about["input"] == "text" else ("n",)
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            _check_size(module)
            _check_vectors(module(*example.values()))
            model = _clean(_trace(module, example, axes), example, axes)
            error = _compare(model, module, example, len(axes))
    finally:
        module.train(training)
    return Front(model, dict(about), tokenizer, {"max_backbone_error": error})


def _check_size(module: nn.Module) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size > MAX_BYTES:
        raise _cannot(f"its weights have {size / 2**30:.1f} GiB, and an ONNX file can contain 2")


def _check_vectors(vectors: Any) -> None:
    if not isinstance(vectors, Tensor):
        raise _cannot(f"it returns {type(vectors).__name__}, not a tensor (n, d)")
    if vectors.ndim != 2 or vectors.dtype != torch.float32:
        raise _cannot(f"it returns {vectors.dtype} {tuple(vectors.shape)}, not float32 (n, d)")


def _trace(module: nn.Module, example: Mapping[str, Tensor], axes: tuple[str, ...]) -> onnx.ModelProto:
    import onnxscript  # noqa: F401, PLC0415 (torch needs it, and says so only in a chain of errors)

    dynamic = dict.fromkeys(range(len(axes)), torch.export.Dim.DYNAMIC)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tuple(example.values()),
                dynamo=True,
                input_names=list(example),
                output_names=["features" if "vectors" in example else "vectors"],
                dynamic_shapes=(dynamic,) * len(example),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # torch.export fails with whatever the module's code runs into
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__
        reason = _first_line(error)
        raise _cannot(f"{reason} (its forward() may not branch on its data, or fix the number of rows)") from None
    model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    return model


def _clean(model: onnx.ModelProto, example: Mapping[str, Tensor], axes: tuple[str, ...]) -> onnx.ModelProto:
    """Flatten to standard operators with the contract's names, without source paths."""
    model = inliner.inline_local_functions(model)
    graph = model.graph
    domains = sorted({node.domain for node in graph.node} - {"", "ai.onnx"})
    if domains:
        raise _cannot(f"it needs operators of the domain {', '.join(domains)}, which are not standard ONNX")
    if [value.name for value in graph.input] != list(example):
        raise _cannot("it does not use all of its inputs")
    for part in (model, graph, *graph.node, *graph.initializer):
        part.ClearField("doc_string")  # torch writes the lines of source there, with their paths
        part.ClearField("metadata_props")
    for values in (graph.value_info, graph.input):
        del values[:]
    for name, tensor in example.items():
        element = helper.np_dtype_to_tensor_dtype(tensor.cpu().numpy().dtype)
        graph.input.append(helper.make_tensor_value_info(name, element, [*axes, *tensor.shape[len(axes) :]]))
    (output,) = graph.output
    dim = output.type.tensor_type.shape.dim[1].dim_value
    output.CopyFrom(helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["n", dim]))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    # prefixed, so that no name can be one of the head's
    return compose.add_prefix(model, "backbone/", rename_inputs=False, rename_outputs=False)


def _compare(model: onnx.ModelProto, module: nn.Module, example: Mapping[str, Tensor], axes: int) -> float:
    """The largest relative difference on batches of other sizes than the traced one."""
    smaller = {name: x[:1] if axes == 1 else x[:1, : max(1, x.shape[1] // 2)] for name, x in example.items()}
    larger = {name: x.repeat(*([2] * axes + [1] * (x.ndim - axes))) for name, x in example.items()}
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        worst = 0.0
        for batch in (smaller, larger):
            expected = module(*batch.values()).cpu().numpy()
            (found,) = session.run(None, {name: tensor.cpu().numpy() for name, tensor in batch.items()})
            if found.shape != expected.shape:
                raise _cannot(f"for {len(expected)} rows the graph gives an array of shape {found.shape}")
            worst = max(worst, float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max()))))
    except UsageError:
        raise
    except Exception as error:  # onnxruntime's errors have no public base class
        raise _cannot(f"onnxruntime cannot run its graph ({_first_line(error)})") from None
    if not worst <= MAX_ERROR:
        raise _cannot(f"the graph does not compute what the module does: vectors differ by up to {worst:.2g}")
    return worst


def _cannot(reason: str) -> UsageError:
    return UsageError(f"This backbone cannot be exported to ONNX: {reason}.")


def _first_line(error: Exception) -> str:
    """The first line with content, and the line after it if it is a heading."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("\n") if line.strip()]
    count = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:count]).rstrip(".:") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's log messages, warnings and prints; errors are still raised."""
    loggers = {name: logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript")}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
