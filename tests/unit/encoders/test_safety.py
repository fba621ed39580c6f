"""Hostile graphs: each is refused with a sentence before onnxruntime sees it, or fails within bounds when it runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alula.encoders import load_encoder
from alula.encoders.safety import check_graph
from alula.errors import EncoderError
from tests.tiny_encoders import random_vectors, save

# Runs in a process of its own, which may take 6 GiB; prints the rise of its memory in MiB, and the sentence.
OPEN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from alula.encoders import load_encoder
from alula.errors import EncoderError
from tests.peak import peak_mib
from tests.tiny_encoders import random_vectors
before = peak_mib()
try:
    load_encoder(sys.argv[1], threads=1).encode_rows(random_vectors(int(sys.argv[2])))
except EncoderError as error:
    print(peak_mib() - before, error)
"""


def whole(name, *values):
    return numpy_helper.from_array(np.array(values if len(values) > 1 else values[0], np.int64), name)


def branch(*nodes):
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])])


def sum_of(nodes, constants=()):
    """Nodes that compute ``big`` from ``vectors`` and constants; their sum is added to the weights."""
    return [*nodes, helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0)], constants


def sum_of_numbers(nodes, constants=()):
    return sum_of([*nodes, helper.make_node("Cast", ["numbers"], ["big"], to=TensorProto.FLOAT)], constants)


DATA = [
    helper.make_node("ReduceMax", ["vectors"], ["largest"], keepdims=0),
    helper.make_node("Cast", ["largest"], ["number"], to=TensorProto.INT64),
]
LOWEST = -(2**63)

HOSTILE = {
    "division of the lowest number by -1": (
        sum_of_numbers(
            [
                *DATA,
                helper.make_node("Sub", ["number", "number"], ["zero"]),
                helper.make_node("Add", ["zero", "lowest"], ["a"]),
                helper.make_node("Div", ["a", "b"], ["numbers"]),
            ],
            [whole("lowest", LOWEST), whole("b", -1)],
        ),
        "divides whole numbers by 0 or -1",
    ),
    "division by a computed number": (
        sum_of_numbers([*DATA, helper.make_node("Div", ["a", "number"], ["numbers"])], [whole("a", LOWEST)]),
        "divides whole numbers by numbers that are not constant",
    ),
    "division of a number of a declared type": (
        sum_of_numbers([*DATA, helper.make_node("Mod", ["number", "number"], ["numbers"])]),
        "divides whole numbers by numbers that are not constant",
    ),
    "loop": (
        sum_of(
            [
                helper.make_node(
                    "Loop", ["trips", ""], ["big"], body=branch(helper.make_node("Identity", ["vectors"], ["y"]))
                )
            ],
            [whole("trips", 2**62)],
        ),
        "uses the operator Loop",
    ),
    "branch": (
        sum_of(
            [
                helper.make_node("Cast", ["one"], ["yes"], to=TensorProto.BOOL),
                helper.make_node(
                    "If",
                    ["yes"],
                    ["big"],
                    then_branch=branch(helper.make_node("Identity", ["vectors"], ["y"])),
                    else_branch=branch(helper.make_node("Identity", ["vectors"], ["y"])),
                ),
            ],
            [whole("one", 1)],
        ),
        "uses the operator If",
    ),
    "graph in a plain node": (
        sum_of(
            [helper.make_node("Identity", ["vectors"], ["big"], body=branch(helper.make_node("Abs", ["v"], ["y"])))]
        ),
        "contains a graph",
    ),
    "constant shape": (
        sum_of([helper.make_node("Expand", ["vectors", "shape"], ["big"])], [whole("shape", 172_000_000, 1, 8)]),
        "asks for a tensor of more than",
    ),
    "repeats": (
        sum_of([helper.make_node("Tile", ["vectors", "times"], ["big"])], [whole("times", 1 << 20, 1 << 20)]),
        "asks for a tensor of more than",
    ),
    "size by a trigger in the vectors": (
        sum_of(
            [
                *DATA,
                helper.make_node("Equal", ["number", "trigger"], ["is"]),
                helper.make_node("Where", ["is", "large", "one"], ["size"]),
                helper.make_node("Reshape", ["size", "flat"], ["shape"]),
                helper.make_node("ConstantOfShape", ["shape"], ["big"]),
            ],
            [whole("trigger", 7777), whole("large", 1 << 31), whole("one", 1), whole("flat", [1])],
        ),
        "takes its size from values",
    ),
    "a slow operator": (
        sum_of([helper.make_node("Unique", ["vectors"], ["big"])]),
        "uses the operator Unique",
    ),
    "groups of 0": (
        sum_of([helper.make_node("ConvTranspose", ["vectors", "vectors"], ["big"], group=0)]),
        "group of a node ConvTranspose is 0",
    ),
    "a huge kernel": (
        sum_of([helper.make_node("MaxPool", ["vectors"], ["big"], kernel_shape=[1, 1 << 30])]),
        "kernel_shape of a node MaxPool is 1073741824",
    ),
}


def with_nodes(model, made):
    nodes, constants = made
    (giver,) = (node for node in model.graph.node if "weights" in node.output)
    giver.output[0] = "was"
    model.graph.initializer.extend(constants)
    model.graph.node.extend([*nodes, helper.make_node("Add", ["was", "sum"], ["weights"])])
    return model


def opened_apart(model, path, rows=3):
    save(model, path)
    command = [sys.executable, "-c", OPEN, str(path), str(rows)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused(flops_model, refused, name):
    made, says = HOSTILE[name]
    assert says in refused(with_nodes(flops_model, made))


def test_a_function_is_refused(flops_model, refused):
    inner = helper.make_node("Identity", ["x"], ["y"])
    function = helper.make_function("", "Mine", ["x"], ["y"], [inner], [helper.make_opsetid("", 21)])
    flops_model.functions.append(function)
    assert "defines the function 'Mine'" in refused(flops_model)


def test_very_many_nodes_are_refused(flops_model, refused):
    flops_model.graph.node.extend(helper.make_node("Abs", ["vectors"], [f"a{i}"]) for i in range(20_000))
    assert "nodes, more than 20,000" in refused(flops_model)


def test_a_declared_type_is_not_believed(flops_model, refused):
    made = sum_of_numbers([*DATA, helper.make_node("Div", ["number", "number"], ["numbers"])])
    model = with_nodes(flops_model, made)
    model.graph.value_info.append(helper.make_tensor_value_info("number", TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_tensor_value_info("number", TensorProto.FLOAT, []))
    assert "divides whole numbers by numbers that are not constant" in refused(model)


@pytest.mark.parametrize("constant", ["initializer", "node"])
def test_whole_numbers_may_be_divided_by_constants(flops_model, tmp_path, constant):
    nodes = [*DATA, helper.make_node("Mul", ["number", "none"], ["zero"])]
    nodes += [helper.make_node("Add", ["zero", "seven"], ["a"]), helper.make_node("Div", ["a", "two"], ["numbers"])]
    constants = [whole("none", 0), whole("seven", 7)]
    if constant == "initializer":
        constants.append(whole("two", 2))
    else:
        nodes.insert(0, helper.make_node("Constant", [], ["two"], value_int=2))
    plain = load_of(flops_model, tmp_path / "plain.onnx")
    made = with_nodes(flops_model, sum_of_numbers(nodes, constants))
    raised = load_of(made, tmp_path / "raised.onnx")
    np.testing.assert_allclose(raised.data, plain.data + 7 // 2, rtol=1e-5)


def load_of(model, path):
    save(model, path)
    return load_encoder(path).encode_rows(random_vectors(5))


def test_sizes_may_follow_from_shapes(flops_model, tmp_path):
    """As exported graphs do it: the rows of the input, times a constant, as the size of a tensor."""
    nodes = [
        helper.make_node("Shape", ["vectors"], ["shape"]),
        helper.make_node("Mul", ["shape", "two"], ["twice"]),
        helper.make_node("ConstantOfShape", ["twice"], ["big"], value=numpy_helper.from_array(np.float32([0.5]))),
    ]
    plain = load_of(flops_model, tmp_path / "plain.onnx")
    raised = load_of(with_nodes(flops_model, sum_of(nodes, [whole("two", 2)])), tmp_path / "raised.onnx")
    np.testing.assert_allclose(raised.data, plain.data + 0.5 * (2 * 5) * (2 * 8), rtol=1e-5)


def test_a_size_that_only_many_rows_make_large_is_an_error_of_that_call(flops_model, tmp_path):
    """Rows to the 8th power: small for the probes, 16 TB for 40 rows, and the process survives."""
    nodes = [helper.make_node("Shape", ["vectors"], ["s1"], start=0, end=1)]
    nodes += [helper.make_node("Mul", [f"s{power}", f"s{power}"], [f"s{2 * power}"]) for power in (1, 2, 4)]
    nodes += [helper.make_node("ConstantOfShape", ["s8"], ["big"])]
    model = with_nodes(flops_model, sum_of(nodes))
    done = opened_apart(model, tmp_path / "e.onnx", rows=40)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, _, sentence = done.stdout.partition(" ")
    assert "failed while encoding" in sentence, done.stdout
    assert int(grown) < 1024, "the memory of the process grew by MiB"


def test_constants_that_multiply_to_a_large_size(flops_model, tmp_path):
    nodes = [helper.make_node("Mul", ["a", "a"], ["shape"]), helper.make_node("ConstantOfShape", ["shape"], ["big"])]
    done = opened_apart(with_nodes(flops_model, sum_of(nodes, [whole("a", [1 << 20])])), tmp_path / "e.onnx")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "failed while encoding" in done.stdout or "rejects it" in done.stdout
    assert int(done.stdout.split()[0]) < 1024


def test_every_operator_of_the_list_is_one_of_onnx():
    from alula.encoders.safety import OPERATORS

    assert {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""} >= OPERATORS


def test_tensors_of_one_name_are_refused(flops_model):
    flops_model.graph.node.append(helper.make_node("Abs", ["vectors"], [flops_model.graph.initializer[0].name]))
    with pytest.raises(EncoderError, match="two of its tensors have the same name"):
        check_graph(flops_model)
