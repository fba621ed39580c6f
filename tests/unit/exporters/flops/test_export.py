from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from alula.encoders import load_encoder
from alula.errors import EncoderError, UsageError
from alula_exporters.flops import FlopsConfig, export_flops, train_flops
from alula_exporters.flops import export as export_module

from ..conftest import SMALL_FLOPS


@pytest.fixture(scope="module")
def exported(trained_flops, tmp_path_factory):
    path = tmp_path_factory.mktemp("flops") / "e.onnx"
    return path, export_flops(trained_flops, path), trained_flops


def test_file_computes_what_the_module_does(exported):
    path, info, trained = exported
    vectors = trained.held_out
    with torch.no_grad():
        expected = trained.model.dense(*trained.model(torch.from_numpy(vectors))).numpy()
    got = load_encoder(path).encode_rows(vectors).toarray()
    same = ((got > 0) == (expected > 0)).all(1)
    assert same.mean() >= 0.99
    np.testing.assert_allclose(got[same], expected[same], atol=1e-5)
    assert info.parity["same_dims"] >= 0.99
    assert info.parity["max_weight_error"] < 1e-5


def test_info_describes_it(exported):
    path, info, _ = exported
    assert load_encoder(path).info == info
    assert (info.kind, info.dim, info.max_nnz) == ("flops", SMALL_FLOPS["dim"], SMALL_FLOPS["nnz"])
    assert info.normalized == (info.metric == "COSINE")
    assert (info.scale == 1.0) == info.normalized


@pytest.mark.parametrize("rows", [1, 2, 77])
def test_outputs_are_coo_non_zeros_for_any_batch(exported, rows):
    path, info, trained = exported
    vectors = trained.held_out[:rows].copy()
    vectors[-1] = 0
    session = onnxruntime.InferenceSession(path)
    row, dim, weight = session.run(["rows", "dims", "weights"], {"vectors": vectors})
    assert (row.dtype, dim.dtype, weight.dtype) == (np.int64, np.int64, np.float32)
    assert (np.diff(row) >= 0).all()
    assert set(row) == set(range(rows))  # no row is empty, the zero row neither
    assert (weight > 0).all()
    assert dim.max() < info.dim


def test_lengths_follow_the_metric(exported):
    path, info, trained = exported
    vectors = trained.held_out[:50]
    lengths = np.sqrt((load_encoder(path).encode_rows(vectors).toarray() ** 2).sum(1))
    expected = np.ones(50)
    if info.metric != "COSINE":
        scaled = np.linalg.norm(vectors, axis=1) / info.scale
        expected = np.maximum(scaled, 0.25 if info.metric == "L2" else 0) ** info.training["length_power"]
    np.testing.assert_allclose(lengths, expected, rtol=1e-4)


def test_one_file_of_standard_operators(exported):
    model = onnx.load(exported[0], load_external_data=False)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert list(exported[0].parent.iterdir()) == [exported[0]]


def test_same_seed_same_file(data, tmp_path):
    config = FlopsConfig(**{**SMALL_FLOPS, "steps": 10})
    sums = []
    for name in ("a.onnx", "b.onnx"):
        export_flops(train_flops(data, config), tmp_path / name)
        sums.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_refuses_to_overwrite(exported):
    path, _, trained = exported
    with pytest.raises(UsageError, match="exists already"):
        export_flops(trained, path)
    export_flops(trained, path, force=True)


def test_disagreement_is_refused(exported, tmp_path, monkeypatch):
    _, _, trained = exported
    monkeypatch.setattr(export_module, "FLOOR", 10.0)  # the graph now lifts every first weight
    with pytest.raises(EncoderError, match="does not compute what the trained module does"):
        export_flops(trained, tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module", params=["relu", "soft-threshold"])
def variant(request, data, metric, tmp_path_factory):
    config = FlopsConfig(metric=metric, activation=request.param, dim=256, nnz=8, most_nnz=12, steps=60, batch=256)
    trained = train_flops(data, config)
    path = tmp_path_factory.mktemp("flops") / "e.onnx"
    return path, export_flops(trained, path), trained


def test_variants_keep_the_contract(variant):
    path, info, trained = variant
    vectors = np.concatenate([trained.held_out, np.zeros((1, 24), np.float32)])
    with torch.no_grad():
        expected = trained.model.dense(*trained.model(torch.from_numpy(vectors))).numpy()
    rows = load_encoder(path).encode_rows(vectors)
    same = ((rows.toarray() > 0) == (expected > 0)).all(1)
    assert same.mean() >= 0.99
    heaviest = expected.max(1, keepdims=True)  # far over 1 for IP
    np.testing.assert_allclose((rows.toarray() / heaviest)[same], (expected / heaviest)[same], atol=1e-5)
    lengths = np.diff(rows.indptr)
    assert lengths.min() >= 1
    assert lengths.max() == info.max_nnz == 12
    assert info.dim == (512 if info.training["recipe"]["activation"] == "soft-threshold" else 256)
    assert info.training["rows_at_most_nnz"] > 0
    assert load_encoder(path).info == info


def test_soft_threshold_stores_its_weights_once(variant):
    model = onnx.load(variant[0], load_external_data=False)
    sizes = sorted(np.prod(tensor.dims) for tensor in model.graph.initializer)
    assert sizes[-1] == 256 * 24
    assert sizes[-2] <= 512
