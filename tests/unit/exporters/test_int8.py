from __future__ import annotations

import re
from copy import deepcopy

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from alula.encoders import load_encoder
from alula.errors import DataError, UsageError
from alula_exporters.cli_export import export
from alula_exporters.data import make_training_data
from alula_exporters.drq import DrqConfig, export_drq, train_drq
from alula_exporters.flops import FlopsConfig, export_flops, train_flops
from alula_exporters.int8 import export_int8

from .conftest import SMALL_DRQ, SMALL_FLOPS, clustered
from .pixels import images


@pytest.fixture(scope="module")
def sparse(data, tmp_path_factory):
    """An encoder of vectors, the same in 8 bits, the rows it was judged with, and what the command said."""
    folder = tmp_path_factory.mktemp("int8")
    export_flops(train_flops(data, FlopsConfig(**SMALL_FLOPS)), folder / "e.onnx")
    np.save(folder / "rows.npy", clustered(rows=1500, seed=7))
    arguments = [folder / "e.onnx", "--vectors", folder / "rows.npy", "--out", folder / "small.onnx"]
    result = CliRunner().invoke(export, ["int8", *map(str, arguments)], catch_exceptions=False)
    return load_encoder(folder / "e.onnx"), load_encoder(folder / "small.onnx"), folder, result.output


def recall(encoder, queries, rows, candidates):
    """Share of the exact 10 by cosine among the best sparse rows."""
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, rows)]
    truth = np.argsort(-(units[0] @ units[1].T), axis=1)[:, :10]
    scores = (encoder.encode_queries(queries) @ encoder.encode_rows(rows).T).toarray()
    best = np.argsort(-scores, axis=1)[:, :candidates]
    return np.mean([np.isin(wanted, found).mean() for wanted, found in zip(truth, best, strict=True)])


def test_the_weights_are_small_and_the_operators_standard(sparse):
    before, after, _, _ = sparse
    assert after.path.stat().st_size < 0.5 * before.path.stat().st_size
    model = onnx.load(after.path)
    assert {entry.domain for entry in model.opset_import} == {""}
    weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    assert weight.data_type == onnx.TensorProto.UINT8
    assert (before.info.precision, after.info.precision) == ("fp32", "int8")


def test_rows_are_nearly_the_same(sparse):
    before, after, folder, _ = sparse
    rows = np.load(folder / "rows.npy")
    one, other = before.encode_rows(rows), after.encode_rows(rows)
    assert one.multiply(other).sum(axis=1).mean() > 0.99  # unit rows: their cosine
    assert abs(one - other).max() > 1e-5  # and still not the same file


def test_the_recall_it_carries_is_that_of_the_files(sparse):
    before, after, folder, output = sparse
    order = np.random.default_rng(0).permutation(1500)
    rows = np.load(folder / "rows.npy")[order]
    for candidates in (100, 500):
        name = f"recall@10 in top {candidates}"
        expected = [recall(encoder, rows[:150], rows[150:], candidates) for encoder in (before, after)]
        assert after.info.parity["int8_recall_difference"][name] == pytest.approx(expected[1] - expected[0], abs=2e-3)
        said = re.search(f"{name}  ([0-9.]+) fp32, ([0-9.]+) int8", output)
        assert [float(number) for number in said.groups()] == pytest.approx(expected, abs=2e-3)
    assert after.info.parity["same_dims"] == before.info.parity["same_dims"]  # of the file it was made from


def test_of_a_quantiser_only_the_backbone_is_changed(pixels, tmp_path):
    data = make_training_data(images(1200))
    export_drq(train_drq(data, DrqConfig(**SMALL_DRQ), backbone=deepcopy(pixels)), tmp_path / "e.onnx")
    np.save(tmp_path / "images.npy", images(1100, seed=3))
    info, found = export_int8(tmp_path / "e.onnx", tmp_path / "images.npy", tmp_path / "small.onnx")
    before, after = load_encoder(tmp_path / "e.onnx"), load_encoder(tmp_path / "small.onnx")
    assert after.info == info
    one, other = (encoder.embed(images(50, seed=9)) for encoder in (before, after))
    assert 1e-6 < np.abs(one - other).max() < 0.1 * np.abs(one).max()
    assert (before.encode_rows(one).codes == after.encode_rows(one).codes).all()
    assert (before.encode_queries(one).lut == after.encode_queries(one).lut).all()
    ((name, (fp32, int8)),) = found.items()
    assert name == "recall@10 by 48-bit codes"
    assert int8 - fp32 == info.parity["int8_recall_difference"][name]
    assert min(fp32, int8) > 0.3


def test_refusals(sparse, trained_drq, tmp_path):
    _, after, folder, _ = sparse
    rows, out = folder / "rows.npy", tmp_path / "out.onnx"
    with pytest.raises(UsageError, match="has int8 weights already"):
        export_int8(after.path, rows, out)
    export_drq(trained_drq, tmp_path / "drq.onnx")
    with pytest.raises(UsageError, match="is a quantiser of vectors"):
        export_int8(tmp_path / "drq.onnx", rows, out)
    np.save(tmp_path / "few.npy", np.load(rows)[:900])
    with pytest.raises(DataError, match="has 900 rows, and 1,000 are needed"):
        export_int8(folder / "e.onnx", tmp_path / "few.npy", out)
    assert not out.exists()
    with pytest.raises(UsageError, match="exists already"):
        export_int8(folder / "e.onnx", rows, after.path)
