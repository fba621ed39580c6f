"""Bounds of running graphs: a deadline, and a memory that all sessions share."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from alula.encoders import session
from alula.encoders.session import RunTimeoutError, Session


def model(nodes, constants=()):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [x], [y], list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return made.SerializeToString()


def long_model():
    """Products of 2000 x 2000 matrices, many seconds of them: each begins with what the last one gave."""
    nodes = [helper.make_node("Add", ["w", "x"], ["a0"])]
    nodes += [helper.make_node("MatMul", [f"a{i}", "w"], [f"a{i + 1}"]) for i in range(100)]
    nodes += [helper.make_node("ReduceSum", ["a100"], ["y"])]
    return model(nodes, [numpy_helper.from_array(np.eye(2000, dtype=np.float32), "w")])


def test_a_run_ends_after_its_deadline():
    endless = Session(long_model(), threads=1, seconds=0.5)
    with pytest.raises(RunTimeoutError, match=r"a batch took more than 0\.5 s"):
        endless.run(("y",), {"x": np.ones((1, 1), np.float32)})
    quick = Session(model([helper.make_node("Abs", ["x"], ["y"])]), seconds=60)
    assert quick.run(("y",), {"x": np.float32([[-2]])})[0] == 2, "other runs go on"
    assert session.stuck_runs() == 0


def test_between_runs_no_core_is_busy():
    """Threads that spin after a run would use a core for each of these pauses."""
    # of several threads, on a machine of one core too
    one = Session(model([helper.make_node("Abs", ["x"], ["y"])]), threads=2)
    values = np.ones((100_000, 1), np.float32)  # enough that the threads share the work
    used, pauses = 0.0, 20
    for _ in range(pauses):
        one.run(("y",), {"x": values})
        before = time.process_time()
        time.sleep(0.02)
        used += time.process_time() - before
    assert used < pauses * 0.02 / 4


def test_a_run_that_its_deadline_does_not_end_is_counted(monkeypatch):
    monkeypatch.setattr(session, "STUCK_SECONDS", -100)  # as if they had passed
    run = session._Run(type("Options", (), {"terminate": False})(), 0.0)
    with session._WATCH.watching(run):
        assert session.stuck_runs() == 1
    assert session.stuck_runs() == 0


LIMITED = """
import sys
import numpy as np
from tests.peak import peak_mib
from alula.encoders import session
from tests.unit.encoders.test_session import helper, model, numpy_helper
session.memory_limit = lambda: 256 << 20
"""


def test_runs_of_many_sizes_fit_the_limit():
    """Batches grow by 1 MB; the memory of the smaller ones is used again."""
    program = f"""{LIMITED}
ones = numpy_helper.from_array(np.ones((1, 1024), np.float32), "ones")
nodes = [helper.make_node("MatMul", ["x", "ones"], ["a"]), helper.make_node("ReduceSum", ["a"], ["y"])]
run = session.Session(model(nodes, [ones]))
for rows in range(256, 12_000, 256):
    (found,) = run.run(("y",), {{"x": np.ones((rows, 1), np.float32)}})
    assert found == rows * 1024
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_memory_of_all_sessions_is_bounded():
    """What a run asks for beyond the limit is its error, and the process goes on within the limit."""
    program = f"""{LIMITED}
size = numpy_helper.from_array(np.array([int(sys.argv[1])]), "size")
nodes = [helper.make_node("ConstantOfShape", ["size"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])]
run = session.Session(model(nodes, [size]))
try:
    print("gave", run.run(("y",), {{"x": np.ones((1, 1), np.float32)}})[0].size)
except Exception as error:
    print("refused", *str(error).split())
print(peak_mib())
"""

    def lines(size):
        command = [sys.executable, "-c", program, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert lines(1 << 20)[0] == f"gave {1 << 20}"
    refusal, used = lines(1 << 28)
    assert refusal.startswith("refused"), "1 GiB of float32 where 256 MiB are allowed"
    assert int(used) < 900


def test_the_limit_is_half_of_the_memory(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(f"{3 << 30}\n")
    monkeypatch.setattr(session, "_CGROUP_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "none")))
    assert session.memory_limit() == 3 << 29
    (tmp_path / "memory.max").write_text("max\n")
    assert 1 << 30 <= session.memory_limit() <= 8 << 30
