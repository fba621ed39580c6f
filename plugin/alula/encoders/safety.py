"""Refuse graphs that could end, stop or fill the process that runs them.

A file from a stranger is checked before onnxruntime sees it. Allowed are the operators of neural networks in one flat
graph: no branches, loops or functions, whose running time no check can bound, and nothing outside the file. Whole
numbers are divided by constants only, as the processor stops a program at a division by zero. The sizes of tensors
follow from constants and from the shapes of the inputs, never from the values in them, so no input makes a checked
file ask for more. `alula.encoders.session` bounds the memory and time of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from alula.errors import EncoderError

_OPERATORS: Mapping[str, str] = {
    "element by element": """
        Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike
        Ceil Celu Clip Cos Cosh Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish
        Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal
        Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where
        Xor
    """,
    "along an axis": """
        ArgMax ArgMin CumSum Hardmax LogSoftmax LpNormalization ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax TopK
    """,
    "layers": """
        Attention AveragePool BatchNormalization Conv ConvInteger ConvTranspose Einsum Gemm GlobalAveragePool
        GlobalLpPool GlobalMaxPool GroupNormalization GRU InstanceNormalization LayerNormalization LpPool LRN LSTM
        MatMul MatMulInteger MaxPool MeanVarianceNormalization QLinearConv QLinearMatMul RMSNormalization RNN
        RotaryEmbedding
    """,
    "number formats": """
        DequantizeLinear DynamicQuantizeLinear QuantizeLinear
    """,
    "shapes and places": """
        Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND
        NonZero OneHot Pad Range Reshape Resize ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth
        Split Squeeze Tile Transpose Trilu Unsqueeze
    """,
}
OPERATORS = frozenset(" ".join(_OPERATORS.values()).split())
STANDARD = ("", "ai.onnx")

# The inputs of operators that say how large their output is.
SIZES: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "Tile": (1,),
}
MAX_NODES = 20_000  # a transformer of 24 layers has some 3,000
MAX_ELEMENTS = 1 << 27  # of a tensor whose shape is a constant: half a GiB of float32
# Attributes that onnxruntime divides by: ConvTranspose in groups of 0 ends the process.
POSITIVE = frozenset(
    ("block_size", "blocksize", "dilations", "group", "kernel_shape", "num_groups", "num_outputs", "strides")
)
MAX_KERNEL = 256  # per axis; the time of a convolution grows with it, and its memory does not
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_SMALL = 1024  # elements of a constant that can be a shape


def check_graph(model: onnx.ModelProto) -> None:
    """Check that a model can be run with little risk.

    Raises:
        EncoderError: If not; the message does not name the file.
    """
    graph = model.graph
    for domain in {opset.domain for opset in model.opset_import} | {function.domain for function in model.functions}:
        if domain not in STANDARD:
            raise EncoderError(f"it uses operators of the domain '{domain}'; only standard ONNX operators are allowed")
    if model.functions:
        raise EncoderError(f"it defines the function {model.functions[0].name!r}; export it with its functions inlined")
    if len(graph.node) > MAX_NODES:
        raise EncoderError(f"it has {len(graph.node):,} nodes, more than {MAX_NODES:,}, and could take hours to open")
    for node in graph.node:
        _check_node(node)
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise EncoderError(f"its tensor '{tensor.name}' lies outside the file; an encoder is one file")
    constants = _constants(graph)
    _check_sizes(graph, constants)
    _check_divisions(model, constants)


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in STANDARD:
        raise EncoderError(
            f"it uses the operator {node.domain}::{node.op_type}; only standard ONNX operators are allowed"
        )
    if node.op_type not in OPERATORS:
        raise EncoderError(
            f"it uses the operator {node.op_type}; loops, branches and operators that are rare in encoders are not "
            "allowed"
        )
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise EncoderError(f"a node {node.op_type} contains a graph, which only loops and branches do")
        numbers = attribute.ints or (attribute.i,)
        if attribute.name in POSITIVE and min(numbers) < 1:
            raise EncoderError(f"{attribute.name} of a node {node.op_type} is {min(numbers)}, not positive")
        if attribute.name == "kernel_shape" and max(numbers) > MAX_KERNEL:
            raise EncoderError(f"{attribute.name} of a node {node.op_type} is {max(numbers)}, more than {MAX_KERNEL}")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    sparse_tensors = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            sparse_tensors.extend(attribute.sparse_tensors)
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                sparse_tensors.append(attribute.sparse_tensor)
    for sparse in sparse_tensors:
        yield sparse.values
        yield sparse.indices


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constant tensors of a graph by name; sparse ones are left out.

    Raises:
        EncoderError: If two tensors have one name, so that nothing can be said of either.
    """
    given = [tensor.name for tensor in graph.initializer]
    given += [value.name for value in graph.input if value.name not in set(given)]
    names = [name for node in graph.node for name in node.output if name]
    if len({*given, *names}) < len(given) + len(names):
        raise EncoderError("two of its tensors have the same name")
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.attribute:
            attribute = node.attribute[0]
            if attribute.name == "value":
                found[node.output[0]] = attribute.t
            elif attribute.name in ("value_int", "value_ints"):
                values = attribute.ints if attribute.name == "value_ints" else [attribute.i]
                found[node.output[0]] = numpy_helper.from_array(np.array(values, np.int64))
    return found


def _check_sizes(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Check that the sizes of tensors follow from constants and shapes."""
    safe = {"", *constants}
    for node in graph.node:  # in topological order; of any other order, less is safe
        if node.op_type in ("Shape", "Size") or all(name in safe for name in node.input):
            safe.update(node.output)
    for node in graph.node:
        for place in SIZES.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            if name not in safe:
                raise EncoderError(
                    f"a node {node.op_type} takes its size from values that are computed from the input; sizes may "
                    "depend on shapes and constants only"
                )
            values = _whole_numbers(constants[name]) if name in constants else None
            if values is not None and math.prod(abs(int(value)) for value in values) > MAX_ELEMENTS:
                raise EncoderError(f"a node {node.op_type} asks for a tensor of more than {MAX_ELEMENTS:,} elements")


def _check_divisions(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Check that whole numbers are divided by constants other than 0 and -1."""
    doubtful = []
    for node in model.graph.node:
        if node.op_type not in ("Div", "Mod") or len(node.input) != 2:
            continue
        tensors = [constants[name] for name in node.input if name in constants]
        if any(tensor.data_type in _FLOATS for tensor in tensors):
            continue
        values = _whole_numbers(constants[node.input[1]]) if node.input[1] in constants else None
        if values is None:
            doubtful.append(node)
        elif not np.isin(values, (0, -1)).any():
            continue
        else:
            raise EncoderError(f"a node {node.op_type} divides whole numbers by 0 or -1")
    types = _types(model) if doubtful else {}
    for node in doubtful:
        if not any(types.get(name) in _FLOATS for name in node.input):
            raise EncoderError(f"a node {node.op_type} divides whole numbers by numbers that are not constant")


def _whole_numbers(tensor: onnx.TensorProto) -> np.ndarray | None:
    """The values of a small constant of whole numbers; None of another."""
    if tensor.data_type in _FLOATS or math.prod(tensor.dims) > _SMALL:
        return None
    try:
        values = numpy_helper.to_array(tensor)
    except Exception:  # onnx raises anything for a tensor that is damaged
        return None
    return np.ravel(values) if values.dtype.kind in "iu" else None


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of tensors, as far as the inputs and operators give them.

    Only the types of constants count, so large ones are left out; declared types are not believed.
    """
    graph = model.graph
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "types"
    light.graph.node.extend(graph.node)
    names = {tensor.name for tensor in graph.initializer}
    light.graph.input.extend(value for value in graph.input if value.name not in names)
    for tensor in graph.initializer:
        light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        inferred = shape_inference.infer_shapes(light)
    except Exception:  # of damaged graphs
        return {}
    values = (*inferred.graph.input, *inferred.graph.value_info)
    return {value.name: value.type.tensor_type.elem_type for value in values}
