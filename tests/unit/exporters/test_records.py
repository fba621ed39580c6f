from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from alula.encoders import load_encoder
from alula.errors import AlulaError
from alula_exporters.cli import train
from alula_exporters.drq import DrqConfig, export_drq, train_drq
from alula_exporters.records import POINTS, Recorder, tensorboard, together
from tests.unit.exporters.conftest import SMALL_DRQ


@pytest.fixture
def event_files():
    """Tensorboard's reader."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    return pytest.importorskip(module, reason="tensorboard is not installed: pip install tensorboard")


def recorded(steps, figures, total=None):
    recorder = Recorder()
    for step in range(1, steps + 1):
        recorder("training", step, total or steps, figures(step))
    return recorder.curves()


@pytest.mark.parametrize("steps", [1, 7, 200, 201, 799, 10_000])
def test_curves_are_thin_and_begin_and_end_where_training_does(steps):
    curve = recorded(steps, lambda step: {"loss": 1 / step})["training"]
    assert len(curve["step"]) == len(curve["loss"]) <= POINTS + 1
    assert len(curve["step"]) >= min(steps, POINTS / 2)
    assert (curve["step"][0], curve["step"][-1]) == (1, steps)
    assert curve["step"] == sorted(set(curve["step"]))
    assert curve["loss"] == pytest.approx([1 / step for step in curve["step"]], rel=1e-5)


def test_the_last_report_is_kept_when_training_stops_early():
    curve = recorded(333, lambda step: {"loss": step}, total=5_000)["training"]
    assert curve["step"][-1] == curve["loss"][-1] == 333


def test_figures_that_come_now_and_then_are_not_thinned_away():
    curve = recorded(1_000, lambda step: {"loss": 1.0, **({"nnz": step} if step % 50 == 0 else {})})["training"]
    seen = {step: value for step, value in zip(curve["step"], curve["nnz"], strict=True) if value is not None}
    assert seen == {step: step for step in range(50, 1_001, 50)}
    assert None not in curve["loss"]


def test_stages_stay_apart_and_those_without_figures_are_left_out():
    recorder = Recorder()
    recorder("starting", 1, 2, {})
    recorder("training", 1, 2, {"loss": 3.0})
    recorder("polishing", 1, 9, {"loss": 2.0})
    recorder("training", 2, 2, {"loss": 1.0})
    assert recorder.curves() == {
        "training": {"step": [1, 2], "loss": [3.0, 1.0]},
        "polishing": {"step": [1], "loss": [2.0]},
    }


def test_what_is_not_finite_is_still_json():
    curves = recorded(3, lambda step: {"a": [math.nan, math.inf, 0.12345678][step - 1]})
    assert json.loads(json.dumps(curves, allow_nan=False))["training"]["a"] == [None, None, 0.123457]


def test_curves_survive_the_export(data, tmp_path):
    seen = {}

    def watch(stage, done, total, figures):
        if stage == "training":
            seen[done] = dict(figures)

    recorder = Recorder()
    trained = train_drq(data, DrqConfig(**SMALL_DRQ), progress=together(watch, recorder))
    export_drq(recorder.add_to(trained), tmp_path / "a.onnx")
    curves = load_encoder(tmp_path / "a.onnx").info.training["curves"]
    assert curves.keys() == {"training"}  # what the file holds, not what memory does
    assert curves["training"]["step"] == list(seen)
    for name in ("loss", "distortion at 48 bits"):
        assert curves["training"][name] == pytest.approx([figures[name] for figures in seen.values()], rel=1e-5)


def test_tensorboard_gets_every_figure(event_files, tmp_path):
    with tensorboard(tmp_path / "run") as progress:
        for step in (1, 2, 3):
            progress("training", step, 3, {"loss": 1 / step, "R_sub": 1.5})
    events = event_files.EventAccumulator(str(tmp_path / "run")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["training/R_sub", "training/loss"]
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("training/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
    ]


def test_tensorboard_on_the_command_line(event_files, vectors, tmp_path):
    np.save(tmp_path / "v.npy", vectors[:1000])
    arguments = ["v.npy", "--out", "a.onnx", "--tensorboard", "runs"]
    paths = [str(tmp_path / word) if word[0] != "-" else word for word in arguments]
    result = CliRunner().invoke(train, ["flops", *paths, "--dim", "128", "--nnz", "8", "--steps", "7", "--no-card"])
    assert result.exit_code == 0, (result.output, result.exception)
    events = event_files.EventAccumulator(str(tmp_path / "runs" / "a")).Reload()
    curve = load_encoder(tmp_path / "a.onnx").info.training["curves"]["training"]
    assert [event.step for event in events.Scalars("training/loss")] == curve["step"] == list(range(1, 8))
    assert [event.value for event in events.Scalars("training/FLOPs")] == pytest.approx(curve["FLOPs"], rel=1e-5)


def test_without_tensorboard_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    words = r"\(tensorboard=\.\.\.\) needs the package .*: pip install tensorboard"
    with pytest.raises(AlulaError, match=words), tensorboard(tmp_path):
        pass


def test_recording_needs_no_torch():
    code = "import sys, alula_exporters.records; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False"
