from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import shutil

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from alula.cli import main
from alula.encoders import load_encoder, read_model, write_info
from alula.errors import UsageError
from alula_exporters.card import card_text, pictures, write_card
from alula_exporters.card.pictures import pictures_of
from alula_exporters.cli import card, train

SOURCES = {"flops": "words.parquet", "drq": "words.npy"}
OPTIONS = {
    "flops": [
        "--field",
        "embedding",
        "--dim",
        "128",
        "--nnz",
        "8",
        "--steps",
        "20",
        "--flops",
        "0.61",
        "--metric",
        "IP",
    ],
    "drq": ["--bits", "48", "--sign-bits", "64", "--epochs", "1", "--seed", "5"],
}


@pytest.fixture(scope="module", params=["flops", "drq"])
def made(request, tmp_path_factory, vectors):
    """The file of a tiny training on the command line, with its card."""
    folder = tmp_path_factory.mktemp(request.param)
    write_vectors(folder / SOURCES[request.param], vectors[:1000])
    arguments = [
        request.param,
        folder / SOURCES[request.param],
        "--out",
        folder / "words-1.onnx",
        *OPTIONS[request.param],
    ]
    result = CliRunner().invoke(train, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    assert str(folder / "words-1.md") in result.output
    return folder / "words-1.onnx"


def write_vectors(path, rows):
    if path.suffix == ".npy":
        np.save(path, rows)
        return
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    other = pa.FixedSizeListArray.from_arrays(pa.array(rows[:, :2].ravel()), 2)  # so that the column must be named
    ids = [f"row {number}" for number in range(len(rows))]
    pq.write_table(pa.table({"id": ids, "title": ids, "embedding": lists, "other": other}), path)


def changed(file, path, **training):
    """A copy of the file that says other things of its training."""
    model, info = read_model(file)
    write_info(model, dataclasses.replace(info, training={**info.training, **training}))
    onnx.save(model, path)
    return path


def block(text, language):
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]


def test_the_card_says_what_the_file_says(made):
    text = made.with_suffix(".md").read_text()
    info = load_encoder(made).info
    training = info.training
    assert hashlib.sha256(made.read_bytes()).hexdigest() in text
    assert f"{made.stat().st_size / 1e6:.2f} MB" in text
    assert training["fingerprint"] in text
    assert f"Learned from 900 of 1,000 vectors in {SOURCES[info.kind]}." in text
    assert f"| metric | {info.metric} |" in text
    for name, value in training["recipe"].items():
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        else:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
        assert f"| {name} | {shown} |" in text
    recalls = {name: value for name, value in training["quality"].items() if name.startswith("recall")}
    assert recalls
    for name, value in recalls.items():
        assert f"| {name} | {value:.4g} |" in text
    assert f"On 100 held-out queries among {training['quality']['rows']} of the rows" in text
    assert all(f"| {name.replace('_', ' ')} | " in text for name in info.parity)
    assert "standard error is at most 0.05" in text  # 0.5 / sqrt(100)
    if info.kind == "flops":
        assert f"| FLOPs asked for | {training['flops_requested']:.4g} |" in text
        assert f"on average | {training['flops_achieved']:.4g} |" in text
        assert "at most 8 non-zeros in 128 dimensions" in text
    else:
        kept = 1 - training["distortion"][3] / training["variance"]
        assert f"| 32 | {kept:.1%} |" in text
        assert "a code of 48 bits and 64 sign bits" in text


def test_the_front_matter_is_that_of_a_model_hub(made):
    """A hub shows and finds a model by the YAML at the beginning of its card."""
    empty, front, text = made.with_suffix(".md").read_text().split("---\n", 2)
    kind = {"drq": "binary-codes", "flops": "learned-sparse"}[load_encoder(made).info.kind]
    assert (empty, text.lstrip()[:2]) == ("", "# ")
    assert yaml.safe_load(front) == {
        "library_name": "alula",
        "pipeline_tag": "feature-extraction",
        "tags": ["milvus", "onnx", "vector-search", kind],
        "metrics": ["recall"],
    }


def test_the_card_counts_the_bytes_of_a_row(made):
    text = made.with_suffix(".md").read_text()
    info = load_encoder(made).info
    floats, row = 4 * info.input_dim, r"\| {} \| ([\d,]+) \| ([\d,]+) \|"
    if info.kind == "flops":
        index = 8 * info.max_nnz
        assert "| Milvus 2.3, vectors" not in text, "which has no sparse index"
    else:
        index = 64 // 8  # sign bits alone
        (memory, disk) = re.search(row.format("Milvus 2.3, vectors kept"), text).groups()
        assert int(memory.replace(",", "")) > index + floats
        assert disk == "0"
    assert f"| Milvus 2.4 or later, vectors kept | {index:,} | {floats:,} |" in text
    assert f"| Milvus 2.4 or later, vectors dropped | {index:,} | 0 |" in text
    assert f"| IVF_SQ8 of Milvus in its place | {1.09 * (info.input_dim + 8):,.0f} | 0 |" in text


def test_pictures_are_there_and_show_the_curves(made):
    text = made.with_suffix(".md").read_text()
    shown = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    wanted = {
        "flops": ["FLOPs", "R_sub", "dead dimensions", "loss", "non-zeros"],
        "drq": ["Distortion of each code length", "distortion at 48 bits", "loss"],
    }
    info = load_encoder(made).info
    assert sorted(title.removeprefix("training: ") for title, _ in shown) == wanted[info.kind]
    for _, path in shown:
        assert (made.parent / path).read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (made.parent / "words-1").iterdir()} == {path.split("/")[1] for _, path in shown}
    drawn = {picture.title: picture for picture in pictures_of(info)}
    curve = info.training["curves"]["training"]
    assert (drawn["training: loss"].x, drawn["training: loss"].y) == (curve["step"], curve["loss"])
    if info.kind == "flops":
        assert drawn["training: FLOPs"].requested == 0.61
        assert len(curve["step"]) == 20
    else:
        shares = [100 * value / info.training["variance"] for value in info.training["distortion"]]
        assert (drawn["Distortion of each code length"].x, drawn["Distortion of each code length"].y) == (
            [8, 16, 24, 32, 40, 48],
            pytest.approx(shares),
        )


def test_the_toml_of_the_card_makes_the_same_file_again(made):
    (made.parent / "train.toml").write_text(block(made.with_suffix(".md").read_text(), "toml"))
    kind, again = load_encoder(made).info.kind, made.parent / "again.onnx"
    arguments = [kind, "--config", made.parent / "train.toml", "--out", again, "--no-card"]
    result = CliRunner().invoke(train, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    assert again.read_bytes() == made.read_bytes()
    assert not again.with_suffix(".md").exists()


def test_the_commands_of_the_card_work(made, lite_uri, vectors, monkeypatch, capsys):
    monkeypatch.chdir(made.parent)
    np.save("queries.npy", vectors[:2])
    commands = block(made.with_suffix(".md").read_text(), "sh").replace("http://localhost:19530", lite_uri)
    for line in commands.splitlines():
        with pytest.raises(SystemExit) as end:
            main(shlex.split(line)[1:])
        assert not end.value.code, capsys.readouterr().err
    assert "query 1" in capsys.readouterr().out


@pytest.mark.parametrize("made", ["flops"], indirect=True)
def test_a_card_for_a_file_that_is_there(made, tmp_path):
    file = shutil.copy(made, tmp_path / "a b.onnx")
    (tmp_path / "cards").mkdir()
    result = CliRunner().invoke(card, [str(file), "--out", str(tmp_path / "cards")])
    assert (result.exit_code, result.output) == (0, f"Wrote {tmp_path / 'cards' / 'a b.md'}.\n")
    text = (tmp_path / "cards" / "a b.md").read_text()
    assert "](a%20b/training-loss.png)" in text  # Markdown ends a link at a space
    assert "--encoder 'a b.onnx'" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.onnx", "cards"]

    result = CliRunner().invoke(card, [str(file), "--out", str(tmp_path / "cards")])
    assert isinstance(result.exception, UsageError)
    assert "force=True" in str(result.exception)
    assert CliRunner().invoke(card, [str(file), "--out", str(tmp_path / "cards"), "--force"]).exit_code == 0


def test_a_file_that_says_nothing_of_its_training(made, tmp_path):
    model, info = read_model(made)
    write_info(model, dataclasses.replace(info, training={}, parity={}, versions={}))
    onnx.save(model, tmp_path / "bare.onnx")
    text = write_card(tmp_path / "bare.onnx").read_text()
    for sentence in (
        "does not say what it was trained on",
        "does not say how it was trained",
        "contains no curves",
        "contains no figures of quality",
    ):
        assert sentence in text
    assert "```toml" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.md", "bare.onnx"]


@pytest.mark.parametrize("made", ["flops"], indirect=True)
def test_any_figures_are_shown(made, tmp_path):
    curves = {
        "training": {"step": [1, 50, 99], "R_sub": [3.0, None, 1.2], "dead dims": [9, 4, 0], "$x^2$ / ø": [1, 2, 3]}
    }
    file = changed(made, tmp_path / "a.onnx", curves=curves, int8={"recall@10 difference": -0.00125})
    text = write_card(file).read_text()
    assert "| int8.recall@10 difference | -0.00125 |" in text
    drawn = [picture for picture in pictures_of(load_encoder(file).info) if picture.title.startswith("training: ")]
    assert [(list(picture.x), list(picture.y)) for picture in sorted(drawn, key=lambda picture: picture.title)] == [
        ([1, 50, 99], [1, 2, 3]),
        ([1, 99], [3.0, 1.2]),
        ([1, 50, 99], [9, 4, 0]),
    ]


@pytest.mark.parametrize(
    "curves", [3, {"training": 3}, {"training": {"loss": [1]}}, {"a": {"step": [1], "loss": [1, 2]}}]
)
def test_curves_of_another_form_are_left_out(made, tmp_path, curves):
    info = load_encoder(changed(made, tmp_path / "a.onnx", curves=curves)).info
    assert [picture.name for picture in pictures_of(info)] == (["distortion"] if info.kind == "drq" else [])


def test_a_strangers_texts_do_not_become_markup(made, tmp_path):
    kind = load_encoder(made).info.kind
    recipe = {"a|b": "<script>alert(1)</script>\n## Heading", "beam": 1}
    command = {kind: {"data": "x\n```\n<img>"}}
    text = card_text(load_encoder(changed(made, tmp_path / "a.onnx", recipe=recipe, command=command)), {})
    assert "<script>" not in text
    assert r"| a\|b | \<script\>alert(1)\</script\>?## Heading |" in text
    assert text.count("\n```") == 4  # two blocks, each opened and closed once
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {title}" for title in ("Use", "Memory", "Data", "Recipe", "Training", "Measured quality", "Limits")
    ]


def test_limits_follow_from_the_figures(made, tmp_path):
    def limits(**training):
        file = changed(made, tmp_path / "a.onnx", **training)
        return card_text(load_encoder(file), {}).partition("## Limits")[2]

    assert "It learned from 900 rows only" in limits()
    assert "rows only" not in limits(rows=50_000, total_rows=50_000)
    assert "from a sample, 25% of the vectors" in limits(rows=50_000, total_rows=200_000)
    if load_encoder(made).info.kind == "flops":
        assert "FLOPs are 0.9, +50% off the 0.6" in limits(flops_requested=0.6, flops_achieved=0.9)
        assert "never used" in limits(dead_dims=64)
        assert "never used" not in limits(dead_dims=1)


def test_without_matplotlib_the_card_says_how_to_get_pictures(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    text = write_card(shutil.copy(made, tmp_path / "a.onnx")).read_text()
    assert "pip install 'alula[train]'" in text
    assert "![" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.md", "a.onnx"]


def test_a_card_in_the_way_is_found_before_training(made, tmp_path):
    kind, out = load_encoder(made).info.kind, tmp_path / "a.onnx"

    def error(*more, name="a.onnx"):
        vectors = tmp_path / "no vectors.npy"
        vectors.write_bytes(b"reading this would be another error")
        return str(CliRunner().invoke(train, [kind, str(vectors), "--out", str(tmp_path / name), *more]).exception)

    out.with_suffix(".md").write_text("mine")
    assert "a.md exists already" in error()
    assert "exists already" not in error("--force")
    assert "exists already" not in error("--no-card")
    out.with_suffix(".md").unlink()
    (tmp_path / "a").write_text("mine")
    assert "that is a file" in error()
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cat.png").write_text("mine")
    assert "has some already" in error()
    assert "end in .onnx" in error(name="encoder")
    assert (tmp_path / "a" / "cat.png").read_text() == "mine"


def test_the_command_is_one_of_alulas():
    from tests.test_architecture import PROJECT

    module, _, name = PROJECT["entry-points"]["alula.commands"]["card"].partition(":")
    assert (module, name) == (card.callback.__module__, card.name)


def test_inspect_leaves_the_curves_to_the_card(made, capsys):
    shown = []
    for options in ([], ["--format", "json"]):
        with pytest.raises(SystemExit) as end:
            main(["inspect", str(made), *options])
        assert not end.value.code
        shown.append(capsys.readouterr().out)
    assert "curves" not in shown[0]
    assert json.loads(shown[1])["training"]["curves"] == load_encoder(made).info.training["curves"]
