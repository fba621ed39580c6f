"""Linear heads read from encoder files, and queries that are encoded by them in bytes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from alula.encoders import EncoderInfo, load_encoder, read_linear_head
from alula.index_types import check_options, index_type
from alula.kernels import LinearQueries, linear
from alula.kernels.inverted_index import loops_numpy as sparse_numpy
from alula.kernels.jit import HAS_NUMBA
from alula_exporters.flops import SparseEncoder
from alula_exporters.flops.export import build_graph
from tests.tiny_encoders import random_vectors, write_flops

METRICS = ["COSINE", "IP", "L2"]


def write_encoder(path, metric="COSINE", dim=300, nnz=12, activation="top-k", input_dim=24):
    """A file as training writes it, with random weights."""
    torch.manual_seed(0)
    model = SparseEncoder(input_dim, dim, nnz, metric, 1.0 if metric == "COSINE" else 1.7, activation=activation)
    with torch.no_grad():
        model.weight.normal_()
        model.bias.normal_(0.1, 0.3)
    normalized, outputs = metric == "COSINE", model.dim
    info = EncoderInfo("flops", metric, input_dim, normalized, scale=model.scale, dim=outputs, max_nnz=nnz)
    path.write_bytes(build_graph(model).build(info).SerializeToString())
    return model


@pytest.mark.parametrize("metric", METRICS)
def test_the_head_of_an_encoder_that_was_trained(metric, tmp_path):
    model = write_encoder(tmp_path / "e.onnx", metric)
    head = read_linear_head(load_encoder(tmp_path / "e.onnx"))
    assert head is not None
    np.testing.assert_array_equal(head.weight, model.weight.detach().numpy())
    np.testing.assert_array_equal(head.bias, model.bias.detach().numpy())
    assert head.nnz == 12
    assert head.scale == (pytest.approx(1.7) if metric == "L2" else None)


def test_other_encoders_have_no_linear_head(tmp_path):
    write_encoder(tmp_path / "soft.onnx", activation="soft-threshold")
    assert read_linear_head(load_encoder(tmp_path / "soft.onnx")) is None
    assert read_linear_head(load_encoder(write_flops(tmp_path / "tiny.onnx").path)) is None


@pytest.mark.parametrize("change", ["square", "other floor", "other unit"])
def test_a_graph_that_only_looks_like_a_linear_head_is_not_read(change, tmp_path):
    write_encoder(tmp_path / "e.onnx")
    model = onnx.load(tmp_path / "e.onnx")
    nodes, tensors = {node.op_type: node for node in model.graph.node}, {t.name: t for t in model.graph.initializer}
    if change == "square":  # the same operators, another function
        last = [node for node in model.graph.node if node.op_type == "Div"][-1]
        last.op_type, last.input[1] = "Mul", last.input[0]
    elif change == "other floor":
        floor = tensors[nodes["Max"].input[1]]
        floor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(floor) + np.float32(0.5), floor.name))
    else:  # a vector is divided by its length and once more
        nodes["ReduceL2"].op_type = "ReduceL2"
        first = next(node for node in model.graph.node if node.op_type == "ReduceL2")
        first.input[0] = "vectors"
    onnx.save(model, tmp_path / "e.onnx")
    assert read_linear_head(load_encoder(tmp_path / "e.onnx")) is None


@pytest.mark.parametrize("loops", ["numba", "numpy"] if HAS_NUMBA else ["numpy"])
@pytest.mark.parametrize("metric", METRICS)
def test_queries_in_bytes_are_nearly_the_encoders(metric, loops, tmp_path, monkeypatch):
    if loops == "numpy":
        monkeypatch.setattr(linear, "sparse_loops", lambda: sparse_numpy)
    write_encoder(tmp_path / "e.onnx", metric)
    encoder = load_encoder(tmp_path / "e.onnx")
    head = read_linear_head(encoder)
    queries = LinearQueries(head.weight, head.bias, nnz=head.nnz, floor=head.floor, scale=head.scale)
    vectors = random_vectors(50, 24)
    expected = encoder.encode_queries(vectors).toarray()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = []
    for vector, row in zip(vectors, expected, strict=True):
        dims, weights = queries.encode(vector)
        assert (np.diff(dims) > 0).all()
        assert len(dims) <= 12
        found = np.zeros(300, np.float32)
        found[dims] = weights / np.linalg.norm(weights)
        cosines.append(found @ row)
        common = (found > 0) & (row > 0)
        np.testing.assert_allclose(found[common], row[common], atol=0.03)
    # now and then one of two nearly equal terms takes the other's place
    assert np.mean(cosines) > 0.98
    assert np.median(cosines) > 0.999


def test_a_zero_vector_has_one_term(tmp_path):
    model = write_encoder(tmp_path / "e.onnx")
    bias = -np.abs(model.bias.detach().numpy()) - 1
    queries = LinearQueries(model.weight.detach().numpy(), bias, nnz=12, floor=1e-6, scale=None)
    dims, weights = queries.encode(np.zeros(24, np.float32))
    assert dims.tolist() == [bias.argmax()]
    assert weights.tolist() == [np.float32(1e-6)]
    again, _ = queries.encode(random_vectors(1, 24)[0])
    assert len(again) <= 12


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed: pip install 'alula[fast]'")
@pytest.mark.parametrize(
    ("outputs", "dim", "nnz", "scale"), [(7, 3, 7, None), (300, 50, 5, 2.0), (4096, 384, 64, None)]
)
def test_numba_and_numpy_encode_the_same(outputs, dim, nnz, scale, monkeypatch):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, dim)).astype(np.float32)
    bias = rng.normal(-0.2, 0.1, outputs).astype(np.float32)
    queries = LinearQueries(weight, bias, nnz=nnz, floor=1e-6, scale=scale)
    vectors = random_vectors(20, dim)
    one = [queries.encode(vector) for vector in vectors]
    monkeypatch.setattr(linear, "sparse_loops", lambda: sparse_numpy)
    for (dims, weights), vector in zip(one, vectors, strict=True):
        others, values = queries.encode(vector)
        np.testing.assert_array_equal(dims, others)
        np.testing.assert_array_equal(weights, values)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("keep", [True, False])
def test_a_local_index_encodes_queries_itself_where_it_re_ranks(metric, keep, tmp_path):
    write_encoder(tmp_path / "e.onnx", metric)
    encoder = load_encoder(tmp_path / "e.onnx")
    rows, queries = random_vectors(400, 24), random_vectors(20, 24, seed=1)
    local = index_type("FLOPS_SPARSE").local(encoder, metric, keep_vectors=keep)
    local.add(encoder.encode_rows(rows), rows if keep else None)
    called = []
    encoder.encode_queries = lambda vectors, **_: called.append(len(vectors)) or encoder.encode_rows(vectors)
    options = check_options(index_type("FLOPS_SPARSE").local_options, {"candidates": 100}, "FLOPS_SPARSE")
    found = local.search(queries, 5, options)
    assert called == ([] if keep else [20])
    if not keep:
        products = (encoder.encode_rows(rows) @ encoder.encode_rows(queries).T).toarray()
        np.testing.assert_allclose(found.scores, -np.sort(-products, axis=0)[:5].T, rtol=1e-5)
        return
    exact = index_type("FLOPS_SPARSE").local(encoder, metric, keep_vectors=True)
    exact.add(encoder.encode_rows(rows), rows)
    exact._linear = None
    by_encoder = exact.search(queries, 5, options)
    assert np.mean([np.isin(*pair).mean() for pair in zip(found.positions, by_encoder.positions, strict=True)]) > 0.97
