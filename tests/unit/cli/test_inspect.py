"""``alula inspect``."""

from __future__ import annotations

import dataclasses
import hashlib

import onnx
import pytest
from onnx import TensorProto, helper

from alula.encoders import load_encoder, write_info


@pytest.mark.parametrize(("kind", "fits"), [("drq", "DRQ"), ("flops", "FLOPS_SPARSE")])
def test_shows_what_a_file_is(alula, request, kind, fits):
    file = request.getfixturevalue(kind)
    fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()
    result = alula("inspect", file)
    assert (result.code, result.err) == (0, "")
    assert fingerprint in result.out
    assert f"{kind}, for index type {fits}" in result.out
    (about,) = alula("inspect", file, "--format", "json").json
    assert (about["kind"], about["sha256"]) == (kind, fingerprint)


def test_files_that_are_no_encoder(fails, drq, tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    other = helper.make_model(helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [value], [value]))
    other.graph.output[0].name = "y"
    onnx.save(other, tmp_path / "other.onnx")
    for name, content, word in (
        ("empty.onnx", b"", "is empty"),
        ("junk.onnx", b"this is not an encoder", "not an ONNX file"),
        ("cut.onnx", drq.read_bytes()[:-4000], "truncated"),
        ("other.onnx", (tmp_path / "other.onnx").read_bytes(), "alula"),
    ):
        (tmp_path / name).write_bytes(content)
        fails(1, ["inspect", tmp_path / name], name, word)
    fails(2, ["inspect", tmp_path / "nothing.onnx"], "does not exist")
    fails(2, ["inspect", tmp_path], "directory")
    fails(2, ["inspect"], "FILE")


def test_control_characters_in_a_file_do_nothing_to_a_terminal(alula, drq, tmp_path):
    evil = "\x1b]0;title\x07\x1b[2J\x9b31m\r"
    model, info = onnx.load(drq), load_encoder(drq).info
    write_info(model, dataclasses.replace(info, training={f"a{evil}": evil}, versions={"[red]b": evil}))
    onnx.save(model, tmp_path / "evil.onnx")
    for form in ([], ["--format", "json"]):
        result = alula("inspect", tmp_path / "evil.onnx", *form)
        assert (result.code, result.err) == (0, "")
        assert result.out.replace("\n", "").isprintable()
        assert "[red]b" in result.out
    assert result.json[0]["training"] == {f"a{evil}": evil}


def test_a_file_at_a_url(alula, drq, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = alula("inspect", f"file://{drq}")
    assert (result.code, result.err) == (0, "")
    assert "drq.onnx" in "".join(result.out.split())  # a long path is wrapped
    gone = alula("inspect", f"file://{tmp_path}/gone.onnx")
    assert (gone.code, gone.err.count("\n")) == (1, 1)
    assert "there is no such file" in gone.err
