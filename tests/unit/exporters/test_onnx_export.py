from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from alula.encoders import EncoderInfo
from alula.errors import EncoderError
from alula_exporters.inputs import add_unit_rows, unit_rows
from alula_exporters.onnx_export import GraphBuilder, export_encoder, versions

INFO = EncoderInfo(kind="flops", metric="COSINE", input_dim=3, normalized=True, dim=3, max_nnz=3)


def _tiny_graph():
    """A sparse encoder that hands the magnitudes of unit rows on."""
    graph = GraphBuilder("tiny", 3)
    weights = graph.node(
        "Add", graph.node("Abs", add_unit_rows(graph, graph.vectors)[0]), graph.constant(np.float32(1))
    )
    where = graph.node("NonZero", weights)
    graph.output("rows", graph.gather(where, graph.constant(np.int64(0))), np.int64, ["nnz"])
    graph.output("dims", graph.gather(where, graph.constant(np.int64(1))), np.int64, ["nnz"])
    graph.output("weights", graph.reshape(weights, -1), np.float32, ["nnz"])
    return graph


def test_unit_rows_in_the_graph_are_those_in_torch(vectors):
    x = np.concatenate([vectors[:50, :3], np.zeros((1, 3), np.float32), np.full((1, 3), 1e-25, np.float32)])
    session = onnxruntime.InferenceSession(_tiny_graph().build(INFO).SerializeToString())
    weights = session.run(["weights"], {"vectors": x})[0].reshape(-1, 3)
    np.testing.assert_allclose(weights - 1, unit_rows(torch.from_numpy(x))[0].abs().numpy(), atol=1e-6)


def test_an_onnxruntime_of_several_years_takes_the_file():
    model = _tiny_graph().build(INFO)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version <= 8  # onnxruntime 1.14 takes both


def test_bad_parity_leaves_no_file(tmp_path):
    def check(_):
        raise EncoderError("they disagree")

    with pytest.raises(EncoderError, match="they disagree"):
        export_encoder(_tiny_graph(), INFO, tmp_path / "e.onnx", check=check, force=False)
    assert not list(tmp_path.iterdir())


def test_constants_are_stored_once():
    graph = GraphBuilder("g", 2)
    assert graph.constant(np.float32(1)) == graph.constant(np.float32(1))
    assert graph.constant(np.float32(1)) != graph.constant(np.int64(1))


def test_versions_name_the_tools():
    assert set(versions()) == {"alula", "numpy", "onnx", "onnxruntime", "torch"}
