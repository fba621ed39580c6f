"""A graph whose outputs break the contract is refused when it is loaded, with a sentence that names the file."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alula.errors import EncoderError
from tests.tiny_encoders import random_vectors, save, write_drq, write_flops


def replace_output(model, name, *nodes, element=None, shape=("a",), constants=()):
    """Compute an output from what it was (``was``) by other nodes, the last of which gives ``now``."""
    graph = model.graph
    (giver,) = (node for node in graph.node if name in node.output)
    giver.output[0] = "was"
    for key, value in dict(constants).items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Identity", ["now"], [name]))
    (info,) = (value for value in graph.output if value.name == name)
    element = element or info.type.tensor_type.elem_type
    info.CopyFrom(helper.make_tensor_value_info(name, element, shape))
    return model


def node(op, *inputs, **attributes):
    return helper.make_node(op, list(inputs), ["now"], **attributes)


@pytest.mark.parametrize("name", ["rows", "dims", "weights"])
@pytest.mark.parametrize("element", [TensorProto.STRING, TensorProto.BOOL], ids=["string", "bool"])
def test_flops_outputs_of_a_wrong_type(flops_model, refused, name, element):
    assert refused(replace_output(flops_model, name, node("Cast", "was", to=element), element=element, shape=["nnz"]))


@pytest.mark.parametrize("name", ["rows", "dims"])
def test_flops_positions_that_are_no_integers(flops_model, refused, name):
    assert refused(
        replace_output(flops_model, name, node("Cast", "was", to=TensorProto.FLOAT), element=TensorProto.FLOAT)
    )


@pytest.mark.parametrize("name", ["rows", "dims", "weights"])
def test_flops_outputs_that_are_no_lists(flops_model, refused, name):
    model = replace_output(
        flops_model, name, node("Unsqueeze", "was", "axis"), constants={"axis": np.array([0])}, shape=[1, "nnz"]
    )
    assert "not three lists of one length" in refused(model)


def test_flops_lists_of_different_lengths(flops_model, refused):
    ends = {"start": np.array([1]), "end": np.array([2**31])}
    model = replace_output(flops_model, "weights", node("Slice", "was", "start", "end"), constants=ends)
    assert "not three lists of one length" in refused(model)


def test_flops_sequence_instead_of_a_tensor(flops_model, refused):
    model = replace_output(flops_model, "weights", node("SequenceConstruct", "was"))
    for value in model.graph.output:
        if value.name == "weights":
            value.CopyFrom(helper.make_tensor_sequence_value_info("weights", TensorProto.FLOAT, None))
    assert refused(model)


@pytest.mark.parametrize(
    ("factor", "words"),
    [(-1.0, "negative"), (float("nan"), "not finite"), (float("inf"), "not finite"), (0.0, "a row is empty")],
)
def test_flops_weights_that_milvus_does_not_take(flops_model, refused, factor, words):
    model = replace_output(flops_model, "weights", node("Mul", "was", "f"), constants={"f": np.float32(factor)})
    assert words in refused(model)


@pytest.mark.parametrize("name", ["rows", "dims"])
@pytest.mark.parametrize("shift", [-1000, 1000])
def test_flops_positions_outside_the_matrix(flops_model, refused, name, shift):
    model = replace_output(flops_model, name, node("Add", "was", "s"), constants={"s": np.int64(shift)})
    assert "lies outside the sparse matrix" in refused(model)


def test_flops_row_left_empty(flops_model, refused):
    # everything lands in row 0
    model = replace_output(flops_model, "rows", node("Mul", "was", "z"), constants={"z": np.int64(0)})
    assert "a row is empty, and Milvus would never find it" in refused(model)


def test_flops_more_non_zeros_than_declared(tmp_path, refused):
    model = onnx.load(write_flops(tmp_path / "e.onnx", max_nnz=5).path)
    entry = model.metadata_props[0]
    entry.value = entry.value.replace('"max_nnz": 5', '"max_nnz": 2')
    assert "more than 2 non-zeros" in refused(model)


@pytest.mark.parametrize("name", ["codes", "norms", "signs", "lut", "query_signs"])
def test_drq_outputs_of_a_wrong_type(drq_model, refused, name):
    (value,) = (value for value in drq_model.graph.output if value.name == name)
    shape = [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
    model = replace_output(
        drq_model, name, node("Cast", "was", to=TensorProto.INT32), element=TensorProto.INT32, shape=shape
    )
    assert f"{name} is int32" in refused(model)


@pytest.mark.parametrize("name", ["codes", "norms", "signs", "lut", "query_signs"])
def test_drq_outputs_of_a_wrong_shape(drq_model, refused, name):
    ends = {"start": np.array([1]), "end": np.array([2**31]), "axis": np.array([1])}
    model = replace_output(drq_model, name, node("Slice", "was", "start", "end", "axis"), constants=ends, shape=None)
    assert f"{name} is " in refused(model)


@pytest.mark.parametrize("name", ["norms", "lut"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_drq_outputs_that_are_not_finite(drq_model, refused, name, factor):
    shape = ["n", 4, 256] if name == "lut" else ["n", 4]
    model = replace_output(drq_model, name, node("Mul", "was", "f"), constants={"f": np.float32(factor)}, shape=shape)
    assert f"{name} holds values that are not finite" in refused(model)


@pytest.mark.parametrize("write", [write_flops, write_drq])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_refused(tmp_path, refused, write, batch):
    model = onnx.load(write(tmp_path / "e.onnx").path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    assert refused(model)


@pytest.mark.parametrize("element", [TensorProto.DOUBLE, TensorProto.INT64])
def test_an_input_that_is_not_float32(flops_model, refused, element):
    flops_model.graph.input[0].type.tensor_type.elem_type = element
    assert refused(flops_model)


@pytest.mark.parametrize("write", [write_flops, write_drq])
def test_metadata_that_promises_another_input_length(tmp_path, refused, write):
    model = onnx.load(write(tmp_path / "e.onnx", input_dim=8).path)
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"input_dim": 8', '"input_dim": 9')
    assert refused(model)


@pytest.mark.parametrize(("name", "value"), [("levels", 5), ("sign_bits", 40)])
def test_metadata_that_promises_another_code(drq_model, refused, name, value):
    was = {"levels": 4, "sign_bits": 32}[name]
    entry = drq_model.metadata_props[0]
    entry.value = entry.value.replace(f'"{name}": {was}', f'"{name}": {value}')
    assert "was expected" in refused(drq_model)


def test_an_operator_with_an_attribute_that_it_does_not_have(flops_model, refused):
    flops_model.graph.node[0].attribute.append(helper.make_attribute("no_such", 1))
    assert re.search(r"onnxruntime [0-9.]+ rejects it", refused(flops_model))


def test_a_graph_that_computes_only_what_it_is_asked_for(tmp_path):
    """Rows do not need what queries need: a query output that cannot be computed does not stop encode_rows."""
    model = onnx.load(write_drq(tmp_path / "e.onnx").path)
    replace_output(model, "lut", node("Reshape", "was", "shape"), constants={"shape": np.array([7, 7])}, shape=[7, 7])
    save(model, tmp_path / "e.onnx")
    from alula.encoders import DrqEncoder, read_model

    encoder = DrqEncoder(tmp_path / "e.onnx", *read_model(tmp_path / "e.onnx"))
    assert encoder.encode_rows(random_vectors(3)).codes.shape == (3, 4)
    with pytest.raises(EncoderError, match=r"e\.onnx"):
        encoder.encode_queries(random_vectors(3))
