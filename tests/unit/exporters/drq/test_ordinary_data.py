"""Data that leave later levels nothing to code: few rows, few dimensions, low rank, duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from alula.encoders import load_encoder
from alula_exporters.data import make_training_data
from alula_exporters.drq import DrqConfig, export_drq, train_drq


def normal(*shape):
    return np.random.default_rng(3).standard_normal(shape)


def padded(rows, dim, used):
    vectors = np.zeros((rows, dim))
    vectors[:, :used] = normal(rows, used)
    return vectors


def dominated(rows, dim, factor):
    vectors = normal(rows, dim)
    vectors[:, 0] *= factor
    return vectors


def duplicated(rows, dim, distinct):
    return normal(distinct, dim)[np.random.default_rng(1).integers(0, distinct, rows)]


DATA = {
    "few rows": normal(320, 24),
    "few rows of long vectors": normal(360, 384),
    "two dimensions": normal(400, 2),
    "two dimensions, few rows": normal(320, 2),
    "eight dimensions": normal(500, 8),
    "zero-padded": padded(500, 64, 8),
    "zero-padded long vectors": padded(400, 100, 8),
    "constant dimensions": padded(500, 32, 8) + 1,
    "low rank": normal(500, 4) @ normal(4, 64),
    "far from the origin": np.abs(normal(500, 64)) + 50,
    "very far from the origin": normal(500, 16) + 1000,
    "a dominating dimension": dominated(500, 64, 1e4),
    "many duplicates": duplicated(1000, 32, 350),
}


# half of them by each metric: a training takes a second
METRICS = dict(zip(DATA, ["COSINE", "L2"] * len(DATA), strict=False))


@pytest.mark.parametrize("name", DATA)
def test_the_file_quantises_as_well_as_the_trained_module(name, tmp_path):
    vectors, metric = DATA[name], METRICS[name]
    data = make_training_data(vectors)
    trained = train_drq(data, DrqConfig(metric=metric, epochs=1, sign_bits=64))
    info = export_drq(trained, tmp_path / "e.onnx")
    words = trained.model.codewords().numpy().astype(np.float64)
    rows = data.train.astype(np.float64)
    prepared = rows / (np.linalg.norm(rows, axis=1, keepdims=True) if metric == "COSINE" else info.scale)
    codes = load_encoder(tmp_path / "e.onnx").encode_rows(data.train).codes
    x_hat = sum(words[level][codes[:, level]] for level in range(info.levels))
    variance, error = info.training["variance"], ((prepared - x_hat) ** 2).sum(1).mean()
    assert error == pytest.approx(info.training["distortion"][-1], rel=0.02, abs=1e-3 * variance + 1e-9)
    assert error < 0.7 * variance
