"""Files that take too much, or end a process, end a child only; what is refused is said as elsewhere."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from alula.encoders import load_encoder
from alula.encoders.trial import open_in_child
from alula.errors import EncoderError
from tests.tiny_encoders import TinyText, save, write_drq, write_flops
from tests.unit.encoders.test_safety import sum_of, whole, with_nodes


@pytest.fixture
def instead_of_onnxruntime(tmp_path, monkeypatch):
    """Let children import a module of this text as onnxruntime."""

    def install(text):
        (tmp_path / "onnxruntime.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    return install


def products(side, count):
    """A chain of products of matrices (side, side), each of which begins with the last one's result."""
    nodes = [helper.make_node("ReduceSum", ["vectors"], ["start"], keepdims=0)]
    nodes += [helper.make_node("Add", ["unit", "start"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{i}", "unit"], [f"p{i + 1}"]) for i in range(count)]
    nodes += [helper.make_node("Identity", [f"p{count}"], ["big"])]
    return sum_of(nodes, [numpy_helper.from_array(np.eye(side, dtype=np.float32), "unit")])


def ones(count, length):
    """Vectors of ones that are all needed at the end."""
    names = [f"ones{i}" for i in range(count)]
    nodes = [helper.make_node("ConstantOfShape", ["length"], [name]) for name in names]
    return sum_of([*nodes, helper.make_node("Sum", names, ["big"])], [whole("length", [length])])


@pytest.mark.parametrize("backbone", [None, TinyText()])
def test_an_encoder_is_opened(tmp_path, backbone):
    open_in_child(write_drq(tmp_path / "e.onnx", backbone=backbone).path)


def test_a_refusal_is_that_of_this_process(flops_model, tmp_path):
    path = tmp_path / "e.onnx"
    flops_model.graph.node[0].op_type = "NoSuchOperator"
    save(flops_model, path)
    with pytest.raises(EncoderError) as here:
        load_encoder(path)
    with pytest.raises(EncoderError) as there:
        open_in_child(path)
    assert str(there.value) == str(here.value)


def test_a_graph_that_runs_for_minutes(flops_model, tmp_path):
    path = tmp_path / "e.onnx"
    save(with_nodes(flops_model, products(1500, 3000)), path)
    with pytest.raises(EncoderError, match="took more than 3 s of processor time"):
        open_in_child(path, cpu_seconds=3)


def test_a_graph_that_fills_the_memory(flops_model, tmp_path):
    """16 GiB in pieces of 512 MiB, each of which may be asked for."""
    path = tmp_path / "e.onnx"
    save(with_nodes(flops_model, ones(32, 1 << 27)), path)
    with pytest.raises(EncoderError, match=r"(?i)failed while encoding .*(alloc|memory)|takes more than 600 MB"):
        open_in_child(path, max_bytes=600_000_000)


def test_a_file_larger_than_the_memory(tmp_path):
    path = write_flops(tmp_path / "e.onnx").path
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(25_000_000, np.float32), "unused"))
    save(model, path)
    with pytest.raises(EncoderError, match="too little memory to read it"):
        open_in_child(path, max_bytes=50_000_000)


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT", "SIGFPE"])
def test_a_crash(tmp_path, instead_of_onnxruntime, signal):
    instead_of_onnxruntime(f"import os, signal; os.kill(os.getpid(), signal.{signal})")
    with pytest.raises(EncoderError, match=rf"it ended the process that opened it \({signal}\)"):
        open_in_child(write_flops(tmp_path / "e.onnx").path)


def test_a_wait_without_work(tmp_path, instead_of_onnxruntime):
    instead_of_onnxruntime("import time; time.sleep(600)")
    with pytest.raises(EncoderError, match=r"took more than 0\.5 s\."):
        open_in_child(write_flops(tmp_path / "e.onnx").path, wall_seconds=0.5)
