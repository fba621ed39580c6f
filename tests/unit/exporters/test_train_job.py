"""`alula train` with labels, backbones and checkpoints, through the command line."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from alula.encoders import load_encoder
from alula_exporters.cli import train
from alula_exporters.losses import label_loss

from .backbones.test_base import striped_images
from .conftest import clustered

FLOPS = ("flops", "--dim", "64", "--nnz", "4", "--flops", "1.5", "--steps", "20", "--no-card")
IMAGES = (*FLOPS, "--backbone", "cnn", "--backbone-epochs", "2")

# the command in a process of its own that kills itself in the middle, having written a checkpoint at every step
KILLED = """
import os, signal, sys
from alula_exporters import checkpoint
from alula_exporters.records import Recorder

checkpoint.SECONDS = 0.0
record = Recorder.__call__

def until(self, stage, done, total, figures):
    if (stage, done) == ("training", 13):
        os.kill(os.getpid(), signal.SIGKILL)
    record(self, stage, done, total, figures)

Recorder.__call__ = until
from alula_exporters.cli import train
train(sys.argv[1:])
"""


def run(*arguments):
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def save_inputs(folder):
    images, labels = striped_images(600)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "v.npy", clustered(600))
    (folder / "labels.txt").write_text("\n".join(f"class {label}" for label in labels))
    return folder


@pytest.fixture
def files(tmp_path):
    return save_inputs(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of a run on images with labels as text, and the output of the command."""
    files = save_inputs(tmp_path_factory.mktemp("whole"))
    result = run(*IMAGES, files / "images.npy", "--labels", files / "labels.txt", "--out", files / "e.onnx")
    assert result.exit_code == 0, result.output
    return files / "e.onnx", result.output


def test_images_and_labels_become_one_file(whole):
    path, output = whole
    assert "600 images of 8 x 8 x 1 with 4 labels; learning from 540" in output
    assert "recall@1 by label" in output
    encoder = load_encoder(path)
    assert encoder.info.input == "images"
    assert encoder.info.training["command"]["flops"]["backbone"] == "cnn"
    assert set(encoder.info.training["curves"]) == {"backbone", "training"}
    assert not list(path.parent.glob("*.checkpoint"))


def test_the_paper_s_mode_takes_its_loss_and_features_of_two_layers(files):
    options = ("--mode", "paper", "--bits", "16", "--sign-bits", "8", "--epochs", "1", "--no-card")
    backbone = ("--backbone", "cnn", "--backbone-epochs", "1", "--labels", files / "labels.txt")
    result = run("drq", files / "images.npy", *options, *backbone, "--out", files / "e.onnx")
    assert result.exit_code == 0, result.output
    training = load_encoder(files / "e.onnx").info.training
    assert training["recipe"]["loss"] == "adaptive-margin"
    assert training["parameters"] == 256 * (212 + 300) + 1


def test_backbone_and_head_apart_are_the_whole(takes_long, files, whole):
    images, labels = files / "images.npy", files / "labels.txt"
    result = run(*IMAGES, images, "--labels", labels, "--out", files / "head.onnx", "--apart")
    assert result.exit_code == 0, result.output
    import onnxruntime

    pixels = np.load(images)[:20]
    backbone = onnxruntime.InferenceSession(files / "head-backbone.onnx")
    (vectors,) = backbone.run(["vectors"], {"images": pixels})
    whole, head = load_encoder(whole[0]), load_encoder(files / "head.onnx")
    assert head.info.input == "vectors"
    assert abs(head.encode_rows(vectors) - whole.encode_rows(whole.embed(pixels))).max() < 1e-5


@pytest.mark.parametrize("kind", ["flops", "drq"])
def test_a_killed_run_goes_on_and_writes_the_same_file(takes_long, files, kind):
    command = {
        "flops": (*FLOPS, files / "v.npy"),
        "drq": ("drq", "--levels", "2", "--sign-bits", "8", "--epochs", "20", "--no-card", files / "v.npy"),
    }[kind]
    assert run(*command, "--out", files / "whole.onnx").exit_code == 0
    arguments = [str(argument) for argument in (*command, "--out", files / "killed.onnx")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (files / "killed.onnx").exists()
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert f"Resuming from {files / 'killed.checkpoint'}" in result.output
    assert (files / "killed.onnx").read_bytes() == (files / "whole.onnx").read_bytes()
    assert not (files / "killed.checkpoint").exists()


class Stopped(BaseException):
    pass


def test_a_checkpoint_of_other_options_is_refused_and_restart_begins_again(files, monkeypatch):
    arguments = [*FLOPS, files / "v.npy", "--out", files / "e.onnx"]

    def stop(_recorder, stage, done, _total, _figures):
        if (stage, done) == ("training", 13):
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("alula_exporters.checkpoint.SECONDS", 0.0)
        patched.setattr("alula_exporters.records.Recorder.__call__", stop)
        with pytest.raises(Stopped):
            run(*arguments)
    assert (files / "e.checkpoint").exists()
    result = run(*arguments, "--seed", "1")
    assert "is of another training run (seed differ" in str(result.exception)
    result = run(*arguments, "--seed", "1", "--restart")
    assert result.exit_code == 0
    assert "Resuming" not in result.output


def test_the_margin_is_that_of_backbone_and_head(files, monkeypatch):
    margins = []

    def record(name, data, dim, margin=None):
        margins.append((name, margin))
        return label_loss(name, data, dim, margin)

    for module in ("dense", "flops.trainer"):
        monkeypatch.setattr(f"alula_exporters.{module}.label_loss", record)
    options = ("--labels", files / "labels.npy", "--loss", "triplet", "--margin", "0.1", "--out", files / "e.onnx")
    result = run(*IMAGES, files / "images.npy", *options)
    assert result.exit_code == 0, result.output
    assert margins == [("triplet", 0.1)] * 2
    assert load_encoder(files / "e.onnx").info.training["recipe"]["margin"] == 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--loss", "triplet"), "--loss triplet learns from labels; give --labels"),
        (("--labels", "labels.npy", "--label-column", "x"), "not both"),
        (("--label-vectors", "labels.npy"), "give --labels"),
        (
            ("--labels", "labels.npy", "--margin", "1"),
            "A margin belongs to the loss triplet, and the loss is contrastive",
        ),
        (("--frozen",), "--frozen needs a backbone"),
        (("--separate-backbone",), "--separate-backbone needs a backbone"),
        (("--apart",), "--separate-backbone needs a backbone"),
        (("--backbone", "cnn"), "The backbone cnn is untrained and learns from labels only"),
        (("--backbone", "vgg"), "There is no backbone 'vgg'; it is cnn or resnet, or the folder"),
        (("--labels", "short.npy"), "There are 600 rows, and the labels have shape (599,)"),
        (("--labels", "single.npy"), "All rows have the label 7"),
        (("--labels", "nan.npy"), "The label of row 3 is missing or not a number"),
        (("--labels", "own.npy"), "Every row has a label of its own"),
        (("--labels", "images.txt"), "neither a .npy array nor text"),
        (("--label-column", "kind"), "has no column 'kind' for the labels"),
        (("--labels", "labels.npy", "--label-vectors", "single.npy"), "one row of finite numbers"),
        (("--patience", "1"), "Stopping early needs 400 held-out rows"),
        (("--labels", "labels.npy", "--backbone", "resnet"), "images are uint8 of shape"),
    ],
)
def test_unfit_options_and_labels_are_refused_with_a_sentence(files, options, words):
    labels = np.load(files / "labels.npy")
    np.save(files / "short.npy", labels[:-1])
    np.save(files / "single.npy", np.full(600, 7))
    np.save(files / "nan.npy", np.where(np.arange(600) == 3, np.nan, labels))
    np.save(files / "own.npy", np.arange(600))
    (files / "images.txt").write_bytes(b"\xff\xfe\x00")
    placed = [str(files / option) if "." in option else option for option in options]
    result = run(*FLOPS, files / "v.npy", "--out", files / "e.onnx", *placed)
    assert result.exit_code != 0
    assert words in str(result.exception)
    assert not (files / "e.onnx").exists()


def test_labels_without_a_backbone_cannot_change_codes(files):
    result = run("drq", files / "v.npy", "--labels", files / "labels.npy", "--out", files / "e.onnx")
    assert "give --backbone too, or leave out the labels" in str(result.exception)


def test_a_backbone_that_cannot_be_exported_is_refused_before_training(files, monkeypatch):
    import torch

    from alula_exporters import backbones

    class Branching(torch.nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1) if pixels.sum() > 0 else -pixels.flatten(1)

    real = backbones.image_backbone

    def branching(*arguments):
        backbone = real(*arguments)
        backbone.network = Branching()
        return backbone

    monkeypatch.setattr(backbones, "image_backbone", branching)
    monkeypatch.setattr("alula_exporters.dense.train_backbone", lambda *_, **__: pytest.fail("training began"))
    result = run(*IMAGES, files / "images.npy", "--labels", files / "labels.npy", "--out", files / "e.onnx")
    assert "This backbone cannot be exported to ONNX" in str(result.exception)
