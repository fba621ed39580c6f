"""One file of each kind and metric, and a way to break a copy of it."""

from __future__ import annotations

import onnx
import pytest

from alula.encoders import load_encoder
from alula.errors import EncoderError
from tests.tiny_encoders import save, write_drq, write_flops


@pytest.fixture(scope="session", params=["COSINE", "IP", "L2"])
def metric(request):
    return request.param


@pytest.fixture(scope="session")
def flops(metric, tmp_path_factory):
    return write_flops(tmp_path_factory.mktemp("flops") / "flops.onnx", metric=metric)


@pytest.fixture(scope="session")
def drq(metric, tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("drq") / "drq.onnx", metric=metric, levels=5)


@pytest.fixture
def flops_model(tmp_path):
    return onnx.load(write_flops(tmp_path / "whole.onnx").path)


@pytest.fixture
def drq_model(tmp_path):
    return onnx.load(write_drq(tmp_path / "whole.onnx").path)


@pytest.fixture
def refused(tmp_path):
    """Save a broken model, check that loading gives a sentence that names the file, and return that sentence."""

    def check(model):
        path = tmp_path / "broken.onnx"
        save(model, path)
        with pytest.raises(EncoderError) as caught:
            load_encoder(path)
        sentence = str(caught.value)
        assert str(path) in sentence
        assert sentence.endswith(".")
        assert "\n" not in sentence.strip()
        return sentence

    return check
