from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from alula.encoders import load_encoder
from alula.errors import AlulaError, DataError, UsageError
from alula_exporters.cli import train

FLOPS = ["flops", "--dim", "128", "--nnz", "8", "--steps", "20"]
DRQ = ["drq", "--bits", "32", "--sign-bits", "64", "--epochs", "1"]


@pytest.fixture
def files(tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors[:1000])
    return str(tmp_path / "v.npy"), tmp_path / "out.onnx"


def run(*arguments):
    # cards have tests of their own, and drawing takes time
    return CliRunner().invoke(train, [*(str(argument) for argument in arguments), "--no-card"])


@pytest.mark.parametrize("command", [FLOPS, DRQ])
def test_trains_a_loadable_file_and_says_what_is_next(files, command):
    source, out = files
    result = run(*command, source, "--out", out, "--metric", "L2", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "1,000 rows of 24 numbers; learning from 900" in result.output
    assert f"Next: alula inspect {out}" in result.output
    encoder = load_encoder(out)
    assert encoder.info.metric == "L2"
    assert encoder.info.training["seed"] == 3
    assert "\x1b" not in result.output  # no progress bar outside a terminal


def test_a_cost_that_was_missed_is_said_on_standard_error(files):
    source, out = files
    result = run(*FLOPS, "--flops", 7, source, "--out", out)  # nearly all rows in 8 dimensions, which takes more steps
    assert result.exit_code == 0, result.output
    training = load_encoder(out).info.training
    assert training["flops_achieved"] < 0.9 * training["flops_requested"]
    assert f"Note: FLOPs are {training['flops_achieved']:.3g}, " in result.stderr
    assert "%, missed)" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--activation", "relu", "--flops", "0.5"], ["activation relu, regulariser flops", "asked for 0.5"]),
        (["--activation", "soft-threshold", "--nnz", "6", "--most-nnz", "20"], ["asked for 6", "20 at most, in 256"]),
        (["--regulariser", "l1", "--weight", "0.01", "--ramp", "5"], ["activation top-k, regulariser l1"]),
        (["--regulariser", "none", "--nnz", "8"], ["regulariser none"]),
    ],
)
def test_sparse_variants_train_and_are_named(files, options, words):
    source, out = files
    result = run("flops", "--dim", 128, "--steps", 20, source, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert all(word in result.output for word in words), result.output
    recipe = load_encoder(out).info.training["recipe"]
    assert {"activation", "regulariser"} <= recipe.keys()


@pytest.mark.parametrize(
    ("mode", "parameters"),
    [
        ("default", 2 * 256 * 24 + 4 + 2 * 24**2),
        ("shared", 256 * 24 + 3),
        ("paper", 256 * 24 + 3),
        ("separate", 4 * 256 * 24 + 4),
    ],
)
def test_code_variants_train_and_say_how_many_parameters(files, mode, parameters):
    source, out = files
    result = run(*DRQ, source, "--out", out, "--mode", mode)
    assert result.exit_code == 0, result.output
    assert f"mode {mode}, {parameters:,} trained parameters" in result.output
    training = load_encoder(out).info.training
    assert (training["recipe"]["mode"], training["parameters"]) == (mode, parameters)


def test_bits_and_levels_are_the_same_thing(files):
    source, out = files
    assert run("drq", source, "--out", out, "--levels", 2, "--epochs", 1).exit_code == 0
    assert load_encoder(out).info.max_bits == 16
    assert isinstance(run("drq", source, "--out", out, "--levels", 2, "--bits", 16).exception, UsageError)
    assert "multiple of 8" in str(run("drq", source, "--out", out, "--bits", 20).exception)


def test_an_option_that_earlier_files_record_has_no_effect(files):
    source, out = files
    assert run(*FLOPS, source, "--out", out, "--opset", 26).exit_code == 0
    assert load_encoder(out).model.opset_import[0].version == 18
    assert "opset" not in load_encoder(out).info.training["command"]["flops"]


def test_refuses_to_overwrite_before_reading(files):
    source, out = files
    out.write_text("mine")
    result = run(*FLOPS, source, "--out", out)
    assert isinstance(result.exception, UsageError)
    assert out.read_text() == "mine"
    assert run(*FLOPS, source, "--out", out, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--flops", "0.01"], UsageError, "out of reach"),
        (["--max-rows", "10"], DataError, "only 10 training rows"),
        (["--nnz", "5000"], UsageError, "cannot have 5000 non-zeros"),
        (["--activation", "relu", "--nnz", "8", "--weight", "1"], UsageError, "give one of them"),
        (["--regulariser", "none", "--flops", "1"], UsageError, "Without a regulariser"),
        (["--ramp", "9"], UsageError, "give weight too"),
    ],
)
def test_sensible_refusals(files, arguments, error, words):
    source, out = files
    result = run("flops", source, "--out", out, *arguments)
    assert isinstance(result.exception, error)
    assert words in str(result.exception)
    assert not out.exists()


def test_missing_folder_is_found_before_training(files):
    source, out = files
    result = run(*FLOPS, source, "--out", out.parent / "no" / "out.onnx")
    assert "does not exist" in str(result.exception)


def test_ctrl_c_leaves_no_half_made_file(files, monkeypatch):
    source, out = files

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("alula_exporters.onnx_export.load_encoder", stop)  # the file is half made by then
    result = run(*FLOPS, source, "--out", out)
    assert result.exit_code == 1
    # but what training can be taken up from
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.checkpoint", "v.npy"]


def test_missing_torch_says_what_to_install(files, monkeypatch):
    source, out = files
    real = builtins.__import__

    def without_torch(name, *arguments, **options):
        if name == "alula_exporters.flops":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    result = run(*FLOPS, source, "--out", out)
    assert isinstance(result.exception, AlulaError)
    assert "pip install 'alula[train]'" in str(result.exception)


def test_help_needs_no_torch():
    code = "import sys, alula_exporters.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("command", ["flops", "drq"])
def test_help_keeps_its_examples_on_lines_of_their_own(command):
    lines = run(command, "--help").output.splitlines()
    assert any(line.strip().startswith(f"alula train {command} words.npy") for line in lines)
