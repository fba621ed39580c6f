from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from alula.encoders import load_encoder
from alula.errors import UsageError
from alula_exporters.cli import train

EXAMPLE = Path(__file__).parents[3] / "examples" / "train.toml"
TINY = 'dim = 128\nnnz = 8\nsteps = 20\ndata = "v.npy"\nout = "made.onnx"\ncard = false\n'


@pytest.fixture
def folder(tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors[:1000])
    return tmp_path


def run(*arguments, env=None):
    return CliRunner().invoke(train, [str(argument) for argument in arguments], env=env)


def config(folder, text):
    (folder / "train.toml").write_text(text)
    return folder / "train.toml"


def test_everything_can_come_from_the_file(folder):
    file = config(folder, f"[flops]\n{TINY}metric = 'L2'\nmax_rows = 700\n\n[drq]\nnobody = 'asks'\n")
    result = run("flops", "--config", file)  # from another folder: paths are the file's
    assert result.exit_code == 0, (result.output, result.exception)
    info = load_encoder(folder / "made.onnx").info
    assert (info.metric, info.dim, info.max_nnz, info.training["rows"]) == ("L2", 128, 8, 700)
    assert info.training["recipe"]["steps"] == 20
    assert sorted(path.name for path in folder.iterdir()) == ["made.onnx", "train.toml", "v.npy"]


def test_the_command_line_wins_then_the_environment_then_the_file(folder, monkeypatch):
    file = config(folder, f"[flops]\n{TINY}seed = 1\n")
    # the file's vectors need not exist when others are given
    file.write_text(file.read_text().replace("v.npy", "elsewhere.npy"))
    given = ["--config", file, folder / "v.npy", "--out", folder / "mine.onnx", "--nnz", 4]
    result = CliRunner().invoke(train, ["flops", *map(str, given)], auto_envvar_prefix="A", env={"A_FLOPS_SEED": "2"})
    assert result.exit_code == 0, (result.output, result.exception)
    info = load_encoder(folder / "mine.onnx").info
    assert (info.max_nnz, info.dim, info.training["seed"]) == (4, 128, 2)
    assert not (folder / "made.onnx").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[flops]\nstep = 20\n", ["train.toml", "[flops]", "'step'", "Did you mean 'steps'?"]),
        ("[flops]\nmax_row = 20\n", ["'max_row'", "Did you mean 'max-rows'?"]),
        ("[flops]\nqqqq = 20\n", ["'qqqq'", "options are", "most-nnz"]),
        ("[flops]\nconfig = 'x'\n", ["no option 'config'"]),
        ("[flops]\nmax-rows = 400\nmax_rows = 500\n", ["'max-rows' twice"]),
        ("[flops]\nfield = 'a'\nvector-column = 'b'\n", ["'field' twice"]),
        ("[flops]\ndim = 128.5\n", ["'dim' in [flops] cannot be used", "'128.5' is not a valid integer"]),
        ("[flops]\nsteps = true\n", ["'steps' in [flops] cannot be used", "'True' is not a valid integer"]),
        ("[flops]\nforce = 'maybe'\n", ["'force' in [flops] cannot be used", "'maybe' is not a valid boolean"]),
        ("[flops]\nflops = 'x'\n", ["'flops' in [flops] cannot be used", "'x' is not a valid float"]),
        ("[flops]\nmetric = 3\n", ["'metric' in [flops] cannot be used", "'3' is not one of"]),
        ("[flops]\nout = {a = 1}\n", ["'out' in [flops] is a table", "a single value"]),
        ("[flops]\nsteps = [1, 2]\n", ["'steps' in [flops] is a list", "a single value"]),
        ("[flops]\nmetric = 'COSIN'\n", ["'metric' in [flops] cannot be used", "'COSIN' is not one of"]),
        ("[flops]\nseed = -1\n", ["'seed' in [flops] cannot be used", "-1"]),
        ("dim = 128\n", ["'dim' is in no table", "[flops]"]),
        ("[drq]\nbits = 32\n", ["has no table [flops]", "it has [drq]"]),
        ("", ["has no table [flops]", "it is empty"]),
        ("[flops\n", ["is not a TOML file", "line 1"]),
    ],
)
def test_mistakes_are_sentences_before_anything_is_read(folder, text, words):
    (folder / "v.npy").write_bytes(b"reading this would be another error")
    result = run("flops", "--config", config(folder, text), folder / "v.npy", "--out", folder / "a.onnx")
    assert isinstance(result.exception, UsageError), result.output
    message = str(result.exception)
    assert all(word in message for word in ["train.toml", *words]), message
    assert message.endswith((".", "?"))
    assert "\n" not in message


def test_files_that_are_no_text(folder):
    file = folder / "train.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not a TOML file" in str(run("flops", "--config", file).exception)


@pytest.mark.parametrize("command", ["flops", "drq"])
def test_the_example_in_the_docs_works(folder, command):
    shutil.copy(EXAMPLE, folder)
    shutil.copy(folder / "v.npy", folder / "words.npy")
    smaller = {"flops": ["--dim", 128, "--nnz", 8, "--steps", 5], "drq": ["--bits", 16, "--epochs", 1]}[command]
    result = run(command, "--config", folder / EXAMPLE.name, *smaller)
    assert result.exit_code == 0, (result.output, result.exception)
    assert load_encoder(folder / f"words-{command}.onnx").info.training["command"][command]["max-rows"] == 100_000
    assert (folder / f"words-{command}.md").exists()


def test_values_are_read_as_on_the_command_line(folder):
    text = TINY.replace("dim = 128", "dim = '128'").replace("card = false", "card = 'no'")
    result = run("flops", "--config", config(folder, f"[flops]\n{text}metric = 'l2'\nflops = 1\n"))
    assert result.exit_code == 0, (result.output, result.exception)
    info = load_encoder(folder / "made.onnx").info
    assert (info.dim, info.metric, info.training["flops_requested"]) == (128, "L2", 1.0)
