from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from alula.encoders import load_encoder
from alula.errors import UsageError
from alula_exporters.backbones.onnx import OPSET, export_backbone
from alula_exporters.data import make_training_data
from alula_exporters.drq import DrqConfig, export_drq, train_drq
from alula_exporters.flops import FlopsConfig, export_flops, train_flops
from alula_exporters.onnx_export import GraphBuilder

from ..conftest import SMALL_DRQ, SMALL_FLOPS
from ..pixels import ABOUT, DIM, embedded, images


def test_the_graph_is_the_module_for_any_batch(front, pixels):
    session = onnxruntime.InferenceSession(front.model.SerializeToString())
    for rows in (1, 2, 77):
        (found,) = session.run(["vectors"], {"images": images(rows)})
        np.testing.assert_allclose(found, embedded(pixels, images(rows)), atol=1e-5)
    assert front.parity["max_backbone_error"] < 1e-5
    assert front.dim == DIM


def test_standard_operators_and_no_trace_of_where_it_was_made(front):
    assert [(entry.domain, entry.version) for entry in front.model.opset_import] == [("", OPSET)]
    assert not front.model.functions
    text = front.model.SerializeToString()
    assert b".py" not in text
    assert b"pkg.torch" not in text


def test_a_module_in_training_is_exported_as_it_will_be_used_and_goes_on_training(exported_pixels):
    _, training, batches = exported_pixels
    assert training
    assert batches == 1


class Branches(torch.nn.Module):
    def forward(self, images):
        rows = images.float().flatten(1)
        return rows if rows.sum() > 0 else -rows


class Noise(torch.nn.Module):
    def forward(self, images):
        return images.float().flatten(1) + torch.rand(images.shape[0], 36)


class OneSize(torch.nn.Module):
    def forward(self, images):
        return images.float().reshape(3, 36)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branches(), "data-dependent"),
        (Noise(), "does not compute what the module does"),
        (OneSize(), "cannot be exported to ONNX"),
        (torch.nn.Identity(), "it returns torch.uint8 .3, 6, 6, 1., not float32"),
        (torch.nn.MaxPool2d(1, return_indices=True), "it returns tuple, not a tensor"),
    ],
)
def test_a_module_that_cannot_be_exported_is_a_sentence(module, words, capfd):
    with pytest.raises(UsageError, match=words) as caught:
        export_backbone(module, {"images": torch.from_numpy(images(3))}, about=ABOUT)
    assert str(caught.value).startswith("This backbone cannot be exported to ONNX: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_module_too_large_for_one_file_is_refused_before_it_is_traced():
    with torch.device("meta"):
        module = torch.nn.Linear(30_000, 30_000)
    with pytest.raises(UsageError, match=r"its weights have 3\.4 GiB"):
        export_backbone(module, {"images": torch.from_numpy(images(3))}, about=ABOUT)


@pytest.fixture(scope="module")
def raw():
    return make_training_data(images(1200))


def test_a_sparse_encoder_behind_it(pixels, raw, tmp_path):
    trained = train_flops(raw, FlopsConfig(**{**SMALL_FLOPS, "steps": 20}), backbone=pixels)
    info = export_flops(trained, tmp_path / "whole.onnx")
    head_info = export_flops(trained.head(), tmp_path / "head.onnx")
    assert (info.input, info.image_shape, info.input_dim) == ("images", (6, 6, 1), DIM)
    assert (head_info.input, head_info.input_dim) == ("vectors", DIM)
    assert info.parity["max_backbone_error"] < 1e-5
    assert info.parity["same_dims"] >= 0.99
    encoder, head = load_encoder(tmp_path / "whole.onnx"), load_encoder(tmp_path / "head.onnx")
    assert encoder.info == info
    vectors = encoder.embed(images(30, seed=5))
    np.testing.assert_allclose(vectors, embedded(pixels, images(30, seed=5)), atol=1e-5)
    assert abs(encoder.encode_rows(vectors) - head.encode_rows(vectors)).max() < 1e-6
    assert onnx.load(tmp_path / "whole.onnx").opset_import[0].version == OPSET


def test_a_quantiser_behind_it(pixels, raw, tmp_path):
    trained = train_drq(raw, DrqConfig(**SMALL_DRQ), backbone=pixels)
    info = export_drq(trained, tmp_path / "e.onnx")
    assert info.input == "images"
    encoder = load_encoder(tmp_path / "e.onnx")
    codes = encoder.encode_rows(encoder.embed(images(30, seed=5))).codes
    session = onnxruntime.InferenceSession(tmp_path / "e.onnx")  # whole, as anybody may run it
    assert (session.run(["codes"], {"images": images(30, seed=5)})[0] == codes).all()


def test_a_head_that_does_not_fit_is_refused(front):
    with pytest.raises(UsageError, match="gives vectors of 24 numbers, and the encoder behind it takes 5"):
        GraphBuilder("g", 5, front)
