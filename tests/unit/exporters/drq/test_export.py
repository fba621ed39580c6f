from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from alula.encoders import load_encoder
from alula.encoders.graph import cut
from alula.errors import EncoderError
from alula_exporters.data import make_training_data
from alula_exporters.drq import DrqConfig, export_drq, train_drq
from alula_exporters.drq import export as export_module

from ..conftest import SMALL_DRQ


@pytest.fixture(scope="module")
def exported(trained_drq, tmp_path_factory):
    path = tmp_path_factory.mktemp("drq") / "e.onnx"
    return path, export_drq(trained_drq, path), trained_drq


def _prepared(info, vectors):
    x = vectors.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if info.normalized else x / info.scale


def _check_signs(packed, signs, prepared):
    """The bits are those of P (x - m) + o, of directions but for L2."""
    rows = prepared / np.linalg.norm(prepared, axis=1, keepdims=True) if signs.directions else prepared
    projected = (rows - signs.mean.numpy()) @ signs.projection.numpy().T + signs.offset.numpy()
    differ = np.unpackbits(np.packbits(projected > 0, axis=1) ^ packed, axis=1).astype(bool)
    assert not (differ & (abs(projected) > 1e-5 * abs(projected).mean())).any()


def test_codes_norms_and_signs_against_numpy(exported):
    path, info, trained = exported
    vectors, model = trained.held_out, trained.model
    rows = load_encoder(path).encode_rows(vectors)
    codes = model.encode(model.prepare(torch.from_numpy(vectors)), SMALL_DRQ["beam"]).numpy()
    same = (rows.codes == codes).all(1)
    assert same.mean() >= 0.999
    words = model.codewords().numpy().astype(np.float64)
    x_hat = np.cumsum([words[t][rows.codes[:, t]] for t in range(info.levels)], axis=0)
    np.testing.assert_allclose(rows.norms, np.linalg.norm(x_hat, axis=2).T, atol=1e-5)
    _check_signs(rows.signs, model.signs, _prepared(info, vectors))


def test_tables_and_query_signs_against_numpy(exported):
    path, info, trained = exported
    vectors, model = trained.held_out[:50], trained.model
    queries, prepared = load_encoder(path).encode_queries(vectors), _prepared(info, vectors)
    expected = np.einsum("nd,mkd->nmk", prepared, model.codewords().numpy())
    np.testing.assert_allclose(queries.lut, expected, atol=1e-5)
    _check_signs(queries.signs, model.signs, prepared)


def test_estimates_by_sign_bits_are_near_the_scores(exported):
    """Inner products of directions for IP; the slope over near rows is 1 for all metrics."""
    path, info, trained = exported
    encoder = load_encoder(path)
    vectors = trained.held_out
    rows, queries = encoder.encode_rows(vectors), encoder.encode_queries(vectors[:50], tables=False)
    signs = np.unpackbits(rows.signs, axis=1) * 2.0 - 1
    products = queries.sign_weights.astype(np.float64) @ signs.T
    prepared = _prepared(info, vectors)
    if info.metric == "L2":
        estimates = queries.sign_bias[:, None] + rows.sign_lengths**2 - 2 * products
        true = np.square(prepared[:50, None] - prepared).sum(2)
    else:
        estimates = products + queries.sign_bias[:, None]
        directions = prepared / np.linalg.norm(prepared, axis=1, keepdims=True)
        true = directions[:50] @ directions.T
    assert np.corrcoef(estimates.ravel(), true.ravel())[0, 1] > 0.8
    assert abs(estimates - true).mean() < 0.5 * true.std()


def test_parity_and_info(exported):
    path, info, _ = exported
    assert load_encoder(path).info == info
    assert info.parity["same_codes"] >= 0.999
    assert max(info.parity[f"max_{name}_error"] for name in ("lut", "norm", "sign")) < 1e-5
    assert (info.levels, info.sign_bits, info.max_bits) == (6, 64, 48)
    assert info.normalized == (info.metric == "COSINE")


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_whole_file_runs_at_any_batch_with_zero_rows(exported, rows):
    path, _, trained = exported
    vectors = trained.held_out[:rows].copy()
    vectors[0] = 0
    session = onnxruntime.InferenceSession(path)
    names = ["codes", "norms", "signs", "lut", "query_signs"]
    codes, norms, signs, lut, query_signs = session.run(names, {"vectors": vectors})
    assert codes.shape == norms.shape == (rows, 6)
    assert signs.shape == query_signs.shape == (rows, 8)
    assert lut.shape == (rows, 6, 256)
    assert {array.dtype for array in (codes, signs, query_signs)} == {np.dtype(np.uint8)}
    assert np.isfinite(norms).all()
    assert np.isfinite(lut).all()


def _code_numbers(path):
    """How many numbers of a file its codes and look-up tables need."""
    model = cut(onnx.load(path, load_external_data=False), ["vectors"], ["codes", "norms", "lut"])
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def test_the_file_holds_the_parameters_and_not_the_codewords(exported):
    path, _, trained = exported
    numbers = trained.model.parameter_count + trained.model.offset.numel()
    assert numbers <= _code_numbers(path) < numbers + 200
    assert {opset.domain for opset in onnx.load(path).opset_import} == {""}


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_long_vectors_are_exported_along_their_axes(levels, tmp_path):
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((2_000, 100)) * np.linspace(2, 0.1, 100) + 0.3).astype(np.float32)
    config = DrqConfig(metric="L2", **{**SMALL_DRQ, "levels": levels, "epochs": 1})
    trained = train_drq(make_training_data(vectors), config)
    model, path = trained.model, tmp_path / "e.onnx"
    assert len(model.axes) < 100
    info = export_drq(trained, path)
    rows, queries = (getattr(load_encoder(path), f"encode_{what}")(vectors[:200]) for what in ("rows", "queries"))
    words, prepared = model.codewords().numpy().astype(np.float64), _prepared(info, vectors[:200])
    x_hat = np.cumsum([words[t][rows.codes[:, t]] for t in range(levels)], axis=0)
    np.testing.assert_allclose(rows.norms, np.linalg.norm(x_hat, axis=2).T, atol=1e-5)
    np.testing.assert_allclose(queries.lut, np.einsum("nd,mkd->nmk", prepared, words), atol=1e-5)


def test_same_seed_same_file(data, tmp_path):
    config = DrqConfig(**{**SMALL_DRQ, "epochs": 1})
    sums = []
    for name in ("a.onnx", "b.onnx"):
        export_drq(train_drq(data, config), tmp_path / name)
        sums.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_disagreement_is_refused(exported, tmp_path, monkeypatch):
    _, _, trained = exported
    real = export_module.build_graph
    monkeypatch.setattr(export_module, "build_graph", lambda model, beam, front: real(model, 1, front))
    with pytest.raises(EncoderError, match="quantisation error is"):
        export_drq(trained, tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


# a metric each: it decides how vectors are prepared, which is the same for all modes
@pytest.fixture(scope="module", params=[("shared", "COSINE"), ("paper", "IP"), ("separate", "L2")])
def variant(request, data, tmp_path_factory):
    mode, metric = request.param
    trained = train_drq(data, DrqConfig(metric=metric, mode=mode, **{**SMALL_DRQ, "epochs": 1}))
    path = tmp_path_factory.mktemp("drq") / "e.onnx"
    return path, export_drq(trained, path), trained


def test_variants_keep_the_contract(variant):
    path, info, trained = variant
    vectors, words = trained.held_out, trained.model.codewords().numpy().astype(np.float64)
    encoder = load_encoder(path)
    rows, queries = encoder.encode_rows(vectors), encoder.encode_queries(vectors)
    assert encoder.info == info
    assert info.parity["same_codes"] >= 0.999
    x_hat = np.cumsum([words[t][rows.codes[:, t]] for t in range(6)], axis=0)
    np.testing.assert_allclose(rows.norms, np.linalg.norm(x_hat, axis=2).T, atol=1e-5)
    prepared = _prepared(info, vectors)
    np.testing.assert_allclose(queries.lut, np.einsum("nd,mkd->nmk", prepared, words), atol=1e-5)
    errors = ((prepared - x_hat) ** 2).sum(2).mean(1)
    assert (np.diff(errors) < 0).all()


def test_a_shared_codebook_is_stored_once(variant):
    path, info, _ = variant
    sizes = [np.prod(tensor.dims) for tensor in onnx.load(path, load_external_data=False).graph.initializer]
    assert max(sizes) == (6 if info.training["recipe"]["mode"] == "separate" else 1) * 256 * 24
