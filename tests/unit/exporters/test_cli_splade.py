from __future__ import annotations

import pytest
from click.testing import CliRunner

from alula.encoders import load_encoder
from alula.errors import AlulaError, UsageError
from alula_exporters.card import write_card
from alula_exporters.cli import train

from .splade.conftest import save_word_models
from .splade.texts import write

OPTIONS = ("--steps", 200, "--batch", 16, "--learning-rate", 1e-3, "--flops", 10, "--max-nnz", 40)


def run(*arguments):
    return CliRunner().invoke(train, ["splade", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    save_word_models(folder)
    return folder / "splade"


def test_writes_an_encoder_of_texts_that_learned_from_the_pairs(words, tmp_path):
    pairs, out = write(tmp_path / "pairs.jsonl"), tmp_path / "docs.onnx"
    result = run(words, pairs, "--out", out, *OPTIONS)
    assert result.exit_code == 0, result.output
    encoder = load_encoder(out)
    assert (encoder.info.input, encoder.info.metric, encoder.info.max_nnz) == ("text", "IP", 40)
    training = encoder.info.training
    assert training["recipe"]["flops"] == 10
    assert training["quality"]["MRR@10"] > training["quality"]["MRR@10 before"]
    queries = encoder.encode_rows(encoder.embed(["kite", "wing"], queries=True))
    rows = encoder.encode_rows(encoder.embed(["house", "music"]))
    scores = (queries @ rows.T).toarray()
    assert scores[0].argmax() == 0
    assert scores[1].argmax() == 1
    assert "asked for 10: " in result.output
    assert f"Next: alula inspect {out}" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs.onnx", "pairs.jsonl"]
    assert "MRR@10 before" in write_card(out).read_text()


def test_a_cost_that_was_missed_is_said_on_standard_error_and_in_the_card(words, tmp_path):
    pairs, out = write(tmp_path / "pairs.jsonl"), tmp_path / "docs.onnx"
    result = run(words, pairs, "--out", out, "--steps", 2, "--flops", 1, "--max-nnz", 40)
    assert result.exit_code == 0, result.output
    reached = load_encoder(out).info.training["flops_achieved"]
    sentence = f"FLOPs are {reached:.3g}, {reached - 1:+.0%} off the 1 that were asked for; train for more steps."
    assert reached > 1.1
    assert f"Note: {sentence}" in result.stderr
    assert f"{reached:.3g} (asked for 1: {reached - 1:+.1%}, missed; before " in result.stdout
    assert sentence in write_card(out).read_text()


def test_refusals_before_anything_is_computed(text_models, tmp_path):
    pairs, out = write(tmp_path / "pairs.jsonl"), tmp_path / "docs.onnx"
    assert isinstance(run(text_models / "dense", pairs, "--out", out).exception, UsageError)
    assert isinstance(run(text_models / "splade", pairs, "--out", tmp_path / "docs.bin").exception, UsageError)
    (tmp_path / "docs.checkpoint").write_bytes(b"no checkpoint")
    assert isinstance(run(text_models / "splade", pairs, "--out", out).exception, AlulaError)
    assert not out.exists()
