"""Damaged and hostile files: a sentence or a clean load, and never another exception or a dead interpreter."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from alula.encoders import load_encoder
from alula.errors import EncoderError
from tests.tiny_encoders import save, write_drq, write_flops

# Runs in a process of its own, in case a damaged graph takes the interpreter down; each attempt is announced before.
FUZZ = """
import sys
from pathlib import Path
import numpy as np
from alula.encoders import load_encoder
from alula.errors import EncoderError

whole, damaged, flips, seed = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(seed)
refused = 0
# the bytes of the largest tensors are numbers, where a flip says little: half of the flips go elsewhere
structure = [i for i in range(len(whole)) if whole[i] in b"\\x08\\x10\\x12\\x1a\\x22\\x2a" or 32 < whole[i] < 127]
for attempt in range(flips):
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.choice(structure)) if rng.random() < 0.5 else int(rng.integers(len(data)))
        data[at] ^= 1 << int(rng.integers(8))
    damaged.write_bytes(data)
    print("attempt", attempt, flush=True)
    try:
        load_encoder(damaged, threads=1)
    except EncoderError as error:
        assert str(damaged) in str(error), error
        refused += 1
print("refused", refused, "of", flips)
"""


def in_a_process(program, *args):
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("write", [write_flops, write_drq])
def test_a_file_cut_off_anywhere_gives_a_sentence(tmp_path, write):
    whole = write(tmp_path / "whole.onnx", **({"levels": 2} if write is write_drq else {})).path.read_bytes()
    path = tmp_path / "cut.onnx"
    offsets = {*range(0, 64), *range(len(whole) - 64, len(whole)), *np.linspace(64, len(whole) - 64, 40, dtype=int)}
    for offset in sorted(offsets):
        path.write_bytes(whole[:offset])
        with pytest.raises(EncoderError, match=r"cut\.onnx"):
            load_encoder(path)


@pytest.mark.parametrize(("write", "seed"), [(write_flops, 1), (write_flops, 2), (write_drq, 3)])
def test_flipped_bits_give_a_sentence_or_a_clean_load(tmp_path, write, seed):
    size = {"levels": 2, "input_dim": 4} if write is write_drq else {}
    whole = write(tmp_path / "whole.onnx", **size).path
    done = in_a_process(FUZZ, whole, tmp_path / "damaged.onnx", 250, seed)
    assert done.returncode == 0, f"{done.stdout[-40:]} {done.stderr[-2000:]}"
    assert int(done.stdout.split()[-3]) > 20, "flips outside the large tensors should break something"


def test_a_tensor_that_declares_more_than_it_holds(flops_model, refused):
    flops_model.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]
    assert refused(flops_model)


def test_a_tensor_of_negative_size(flops_model, refused):
    flops_model.graph.initializer[0].dims[:] = [-8, 32]
    assert refused(flops_model)


def test_a_graph_that_asks_for_more_memory_than_there_is(flops_model, refused):
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 45])
    flops_model.graph.initializer.append(shape)
    for node in flops_model.graph.node:
        if node.output[0] == "weights":
            node.output[0] = "was"
    flops_model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["bomb"]))
    flops_model.graph.node.append(helper.make_node("Add", ["was", "bomb"], ["weights"]))
    assert refused(flops_model)


def test_a_graph_with_a_cycle(flops_model, refused):
    first, last = flops_model.graph.node[0], flops_model.graph.node[-1]
    first.input[0] = last.output[0]
    assert refused(flops_model)


def test_a_tensor_that_two_nodes_give(flops_model, refused):
    flops_model.graph.node.append(helper.make_node("Identity", ["vectors"], ["weights"]))
    assert refused(flops_model)


def test_metadata_that_declares_a_huge_input_is_refused_without_making_one(tmp_path):
    model = onnx.load(write_flops(tmp_path / "e.onnx").path)
    entry = model.metadata_props[0]
    entry.value = entry.value.replace('"input_dim": 8', f'"input_dim": {2**31 - 1}')
    save(model, tmp_path / "e.onnx")
    # 4 probe vectors of that length would be 32 GiB: the process may have 4
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from alula.encoders import load_encoder\nfrom alula.errors import EncoderError\n"
        "try:\n    load_encoder(sys.argv[1])\nexcept EncoderError as error:\n    print('refused:', error)\n"
    )
    done = in_a_process(program, tmp_path / "e.onnx")
    assert "refused: Cannot use the encoder" in done.stdout, done.stderr[-2000:]


def test_deeply_nested_branches(flops_model, refused):
    node = helper.make_node("Evil", [], ["y"], domain="com.example")
    for _ in range(30):
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        branch = helper.make_graph([node], "branch", [], [out])
        node = helper.make_node("If", ["vectors"], ["y"], then_branch=branch)
    flops_model.graph.node.append(node)
    assert refused(flops_model)


@pytest.mark.parametrize("breaks", ["at load", "at run"])
def test_nothing_but_the_sentence_reaches_the_terminal(flops_model, tmp_path, breaks):
    """onnxruntime writes its errors to standard error unless it is told not to."""
    if breaks == "at load":
        flops_model.graph.node[0].op_type = "NoSuchOperator"
    else:
        flops_model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "any"
        flops_model.metadata_props[0].value = flops_model.metadata_props[0].value.replace(": 8,", ": 9,")
    save(flops_model, tmp_path / "e.onnx")
    program = (
        "import sys\nfrom alula.encoders import load_encoder\nfrom alula.errors import EncoderError\n"
        "try:\n    load_encoder(sys.argv[1])\nexcept EncoderError as error:\n    print(error)\n"
    )
    done = in_a_process(program, tmp_path / "e.onnx")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
