"""Backbones under both heads: trained with them, frozen, exported to one file that takes the raw input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alula.encoders import load_encoder
from alula.errors import DataError, UsageError
from alula_exporters.backbones import VectorBackbone, image_backbone, small_resnet
from alula_exporters.data import make_training_data
from alula_exporters.dense import BackboneConfig, train_backbone
from alula_exporters.flops import FlopsConfig, export_flops, train_flops

SIDE, CLASSES = 8, 4
SMALL = {"dim": 64, "nnz": 4, "flops": 1.5, "steps": 30, "anchors": 16, "batch": 48}


def striped_images(rows=480, seed=0):
    """Classes differ by which rows or columns of pixels are bright; places and noise vary."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=rows)
    images = rng.integers(0, 100, (rows, SIDE, SIDE, 1))
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(2)
        lines = slice(at, None, 2 + label // 2)
        image[(lines, slice(None)) if label % 2 else (slice(None), lines)] += 120
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def data():
    return make_training_data(*striped_images())


@pytest.fixture(scope="module")
def trained_backbone(data):
    torch.manual_seed(0)
    backbone = image_backbone("cnn", data.train, dim=16)
    train_backbone(backbone, data, BackboneConfig(epochs=4, batch=64))
    return backbone


def nearest_labels(vectors, labels, queries):
    return labels[(queries @ vectors.T).argmax(1)]


def test_labels_teach_a_backbone(data, trained_backbone):
    rows, queries = (torch.nn.functional.normalize(torch.from_numpy(trained_backbone.embed(part)))
                     for part in (data.train, data.held_out))  # fmt: skip
    found = nearest_labels(rows.numpy(), data.train_labels, queries.numpy())
    assert (found == data.held_out_labels).mean() > 0.9


def test_images_are_scaled_to_mean_0_and_deviation_1(data):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, pixels):
            seen.append(pixels)
            return pixels.flatten(1)

    backbone = image_backbone("cnn", data.train)
    backbone.network = Spy()
    backbone.embed(data.train)
    pixels = seen[0]
    assert pixels.shape[1:] == (1, SIDE, SIDE)
    assert float(pixels.mean()) == pytest.approx(0, abs=0.05)
    assert float(pixels.std()) == pytest.approx(1, abs=0.05)


def test_an_end_to_end_encoder_is_one_file_of_images(data, trained_backbone, tmp_path):
    before = [parameter.clone() for parameter in trained_backbone.parameters()]
    trained = train_flops(data, FlopsConfig(loss="contrastive", **SMALL), backbone=trained_backbone)
    assert any(not torch.equal(*pair) for pair in zip(before, trained_backbone.parameters(), strict=True))
    info = export_flops(trained, tmp_path / "images.onnx")
    assert (info.input, tuple(info.image_shape), info.input_dim) == ("images", (SIDE, SIDE, 1), 16)
    assert info.training["quality"]["recall@1 by label"] > 0.8
    encoder = load_encoder(tmp_path / "images.onnx")
    vectors = encoder.embed(data.held_out)
    np.testing.assert_allclose(vectors, trained.backbone.embed(data.held_out), atol=1e-4)
    found = nearest_labels(
        encoder.encode_rows(encoder.embed(data.train)), data.train_labels, encoder.encode_rows(vectors).toarray()
    )
    assert (found == data.held_out_labels).mean() > 0.8


@pytest.mark.parametrize("options", [{"loss": "contrastive", "frozen": True}, {"loss": "distillation"}])
def test_a_frozen_backbone_stays_as_it_is(data, options):
    torch.manual_seed(1)
    backbone = image_backbone("cnn", data.train, dim=16)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    train_flops(data, FlopsConfig(**SMALL, **options), backbone=backbone)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_any_module_on_vectors_is_inside_the_file(vectors, tmp_path):
    data = make_training_data(vectors[:600])
    torch.manual_seed(2)
    network = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 12))
    trained = train_flops(data, FlopsConfig(**SMALL), backbone=VectorBackbone(network, 24))
    info = export_flops(trained, tmp_path / "vectors.onnx")
    assert (info.input, info.input_dim) == ("vectors", 24)
    encoder = load_encoder(tmp_path / "vectors.onnx")
    with torch.no_grad():
        weights, dims = trained.model(network(torch.from_numpy(data.held_out)))
        expected = trained.model.dense(weights, dims)
    np.testing.assert_allclose(encoder.encode_rows(data.held_out).toarray(), expected, atol=1e-5)


def test_resnet_halves_the_picture_twice():
    network = small_resnet(3, 10, width=4, blocks=1)
    sizes = []
    for module in network:
        module.register_forward_hook(lambda _m, _i, output: sizes.append(tuple(output.shape[1:])))
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert [size for size in sizes if len(size) == 3][-4:] == [(4, 16, 16), (8, 8, 8), (16, 4, 4), (16, 1, 1)]


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_two_last_layers_are_joined_before_any_activation(data, name):
    backbone = image_backbone(name, data.train, dim=(6, 9)).eval()
    last = backbone.network[-1]
    seen = []
    last.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].detach()))
    vectors = backbone.embed(data.train[:5])
    first = seen[0] @ last.first.weight.T + last.first.bias
    second = first.tanh() @ last.second.weight.T + last.second.bias
    np.testing.assert_allclose(vectors, torch.hstack([first, second]).detach(), atol=1e-6)
    assert backbone.front().dim == 15


def test_unfit_images_and_names_are_refused(data):
    with pytest.raises(UsageError, match="no image backbone 'vgg'; there are cnn and resnet"):
        image_backbone("vgg", data.train)
    with pytest.raises(DataError, match="at least 8 x 8"):
        image_backbone("cnn", data.train[:, :4, :4])
    with pytest.raises(DataError, match=r"takes uint8 images of \(8, 8, 1\)"):
        image_backbone("cnn", data.train).embed(np.zeros((2, 9, 9, 1), np.uint8))


def test_training_stops_early_and_keeps_the_best_weights():
    data = make_training_data(*striped_images(1200))
    torch.manual_seed(0)
    backbone = image_backbone("cnn", data.train, dim=16)
    seen = []
    train_backbone(
        backbone,
        data,
        BackboneConfig(epochs=40, batch=128, patience=2),
        progress=lambda _stage, done, total, _figures: seen.append((done, total)),
    )
    assert seen[-1][0] < seen[-1][1]


def test_a_loss_on_labels_needs_labels(vectors):
    with pytest.raises(DataError, match="needs a label for every row"):
        train_flops(make_training_data(vectors[:600]), FlopsConfig(loss="triplet", **SMALL))
