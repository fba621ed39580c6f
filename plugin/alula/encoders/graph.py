"""Cut a part out of an encoder's graph, for some of its outputs."""

from __future__ import annotations

from collections.abc import Collection

import onnx


def trace(
    model: onnx.ModelProto, inputs: Collection[str], outputs: Collection[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """Find the nodes that compute some outputs, and every tensor that they read.

    Args:
        model: The model.
        inputs: Given tensors; the nodes that compute them are not needed.
        outputs: The wanted tensors.
    """
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):  # ONNX graphs are in topological order
        if any(name in needed and name not in inputs for name in node.output):
            needed.update(node.input)
            needed.discard("")  # stands for an optional input or output that is left out
            nodes.append(node)
    return nodes[::-1], needed


def cut(model: onnx.ModelProto, inputs: Collection[str], outputs: Collection[str]) -> onnx.ModelProto:
    """Cut out the part of a model that computes some outputs from given tensors."""
    nodes, needed = trace(model, inputs, outputs)
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = part.graph
    graph.name = model.graph.name or "encoder"
    graph.node.extend(nodes)
    graph.input.extend(value for value in (*model.graph.input, *model.graph.output) if value.name in inputs)
    graph.output.extend(value for value in model.graph.output if value.name in outputs)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    graph.sparse_initializer.extend(sparse for sparse in model.graph.sparse_initializer if sparse.values.name in needed)
    return part
