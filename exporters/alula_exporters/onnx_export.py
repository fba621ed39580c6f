"""Build an encoder's ONNX graph node by node, verify it and write the file.

The graphs are built directly rather than traced: an encoder is some thirty kinds of nodes, the result has no
leftovers of tracing, needs no second or third compiler package, takes milliseconds instead of 20 s, and its parity with
the torch module is measured at every export anyway. Only a backbone, which may be any module, is traced: a graph may
start from one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from alula.encoders import DrqEncoder, EncoderInfo, FlopsEncoder, check_model, load_encoder, write_info
from alula.errors import UsageError
from alula_exporters.backbones.onnx import OPSET, Front
from alula_exporters.output_file import atomic_file, check_out_path


class GraphBuilder:
    """A graph under construction; methods take and return names of tensors.

    Args:
        name: The graph's name, seen in viewers.
        input_dim: Length d of ``vectors``, float32 (n, d), n dynamic.
        front: The backbone that ``vectors`` come from and whose inputs are the graph's; None where they are the input.

    Raises:
        UsageError: If the backbone's vectors have another length.
    """

    def __init__(self, name: str, input_dim: int, front: Front | None = None) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self.vectors = "vectors"
        self.front = front
        self._inputs = [helper.make_tensor_value_info(self.vectors, TensorProto.FLOAT, ["n", input_dim])]
        if front:
            if front.dim != input_dim:
                raise UsageError(
                    f"The backbone gives vectors of {front.dim} numbers, and the encoder behind it takes {input_dim}."
                )
            self._nodes.extend(front.model.graph.node)
            self._initializers.extend(front.model.graph.initializer)
            self._inputs, self.vectors = list(front.model.graph.input), front.output
            if front.output == "vectors":
                # an output too: what is behind them runs without the backbone
                self._outputs = list(front.model.graph.output)

    def constant(self, array: npt.ArrayLike, name: str = "") -> str:
        """Add an array to the file (once, however often it is asked for)."""
        value = np.asarray(array)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = name or f"c{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def nodes(self, op: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add an operator with ``count`` outputs."""
        outputs = [f"{op}_{len(self._nodes)}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{op}_{len(self._nodes)}", **attributes))
        return outputs

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        return self.nodes(op, *inputs, count=1, **attributes)[0]

    def reshape(self, tensor: str, *shape: int) -> str:
        """Reshape; 0 keeps an axis, -1 infers it."""
        return self.node("Reshape", tensor, self.constant(np.array(shape, np.int64)))

    def gather(self, table: str, indices: str, axis: int = 0) -> str:
        """Take entries of ``table`` along ``axis``."""
        return self.node("Gather", table, indices, axis=axis)

    def output(self, name: str, tensor: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> None:
        """Name a tensor as one of the file's outputs."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._outputs.append(helper.make_tensor_value_info(name, element, list(shape)))

    def build(self, info: EncoderInfo) -> onnx.ModelProto:
        """The finished model, checked by ONNX's own checker and by Alula's contract.

        Args:
            info: Metadata of the file.
        """
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=self._initializers, doc_string=_DOC
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph,
            producer_name="alula",
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
        )
        write_info(model, info, tokenizer=self.front.tokenizer if self.front else None)
        onnx.checker.check_model(model, full_check=True)
        check_model(model)
        return model


_DOC = "An Alula encoder. 'alula inspect FILE' prints what it is; its outputs are described in alula.encoders."

ParityCheck = Callable[[FlopsEncoder | DrqEncoder], Mapping[str, Any]]


def export_encoder(
    graph: GraphBuilder, info: EncoderInfo, path: Path, *, check: ParityCheck, force: bool
) -> EncoderInfo:
    """Compare an encoder file with the torch module, then write it, or nothing.

    Args:
        graph: The graph with all outputs of the encoder's kind.
        info: Metadata of the head, without parity.
        path: Where it goes; written beside it first and then renamed.
        check: Compares the loaded file with the torch module and returns the parity figures, or raises EncoderError.
        force: Replace an existing file.

    Returns:
        ``info`` with the parity figures and the backbone's input, as in the file.

    Raises:
        UsageError: If the file exists and ``force`` is not set, or its folder is missing.
        EncoderError: If the graph and the module disagree.
    """
    check_out_path(path, force=force)
    if graph.front:
        info = graph.front.describe(info)
    model = graph.build(info)
    with atomic_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        checked = replace(info, parity={**info.parity, **check(load_encoder(temporary))})
        write_info(model, checked)
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        load_encoder(temporary)
    return checked


def versions(*more: str) -> dict[str, str]:
    """Versions of the packages that take part in making an encoder file.

    Args:
        more: Packages beside those that every file is made with.
    """
    found = {}
    for package in ("alula", "numpy", "onnx", "onnxruntime", "torch", *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
