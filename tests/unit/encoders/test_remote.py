"""Encoder files at URLs: what is copied, when, and what fails."""

from __future__ import annotations

import fsspec
import pytest

from alula.encoders import load_encoder
from alula.encoders.remote import local_copy
from alula.errors import EncoderError
from tests.tiny_encoders import write_drq


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alula" / "encoders"


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_a_path_stays_where_it_is(tmp_path, cache):
    assert local_copy(tmp_path / "a.onnx") == tmp_path / "a.onnx"
    assert local_copy("a.onnx").name == "a.onnx"
    assert not cache.exists()


def test_a_file_is_copied_once_and_again_when_it_has_changed(tmp_path, cache, memory):
    for seed in (1, 2):
        written = write_drq(tmp_path / "drq.onnx", seed=seed).path.read_bytes()
        memory.pipe_file("/models/drq.onnx", written)
        encoder = load_encoder("memory://models/drq.onnx")
        assert encoder.path.read_bytes() == written
        assert encoder.path.name == "drq.onnx"
        before = encoder.path.stat().st_mtime_ns
        assert local_copy("memory://models/drq.onnx").stat().st_mtime_ns == before
        assert len(list(cache.rglob("*.onnx"))) == seed


def test_a_local_url(tmp_path):
    path = write_drq(tmp_path / "drq.onnx").path
    assert load_encoder(f"file://{path}").sha256 == load_encoder(path).sha256


def test_files_of_one_name_are_kept_apart(tmp_path, memory):
    memory.pipe_file("/a/drq.onnx", b"one")
    memory.pipe_file("/b/drq.onnx", b"two")
    assert [local_copy(f"memory://{folder}/drq.onnx").read_bytes() for folder in "ab"] == [b"one", b"two"]


def test_failures_are_a_sentence_and_leave_nothing(cache, memory, monkeypatch):
    with pytest.raises(EncoderError, match=r"Cannot use the encoder memory://no\.onnx: there is no such file\.$"):
        load_encoder("memory://no.onnx")
    with pytest.raises(EncoderError, match="Cannot use the encoder gopher://x: it cannot be read"):
        load_encoder("gopher://x")
    memory.pipe_file("/a.onnx", b"one")

    def breaks(*_args, **_given):
        raise TimeoutError("the line is dead\nand more")

    monkeypatch.setattr(type(memory), "get_file", breaks)
    with pytest.raises(EncoderError, match=r"cannot be read \(the line is dead\)"):
        local_copy("memory://a.onnx")
    assert not [path for path in cache.rglob("*") if path.is_file()]
    monkeypatch.setattr(type(memory), "size", lambda *_: 3 << 30)
    with pytest.raises(EncoderError, match="larger than 2 GiB"):
        local_copy("memory://a.onnx")
