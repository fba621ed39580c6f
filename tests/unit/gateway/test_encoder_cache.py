"""The encoders of a gateway: one copy of each, a bounded number of bytes, and none that holds up the others."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from alula import encoder_store
from alula.errors import EncoderError
from alula.gateway import encoder_cache
from alula.gateway.encoder_cache import Encoders, NoEncoderError
from tests.tiny_encoders import write_flops

ENTRY = SimpleNamespace(size=1000)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three encoder files by their fingerprints."""
    folder = tmp_path_factory.mktemp("encoders")
    made = [write_flops(folder / f"{seed}.onnx", seed=seed).path for seed in range(3)]
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in made}


@pytest.fixture
def folder(files, tmp_path):
    for sha256, path in files.items():
        shutil.copy(path, tmp_path / f"{sha256}.onnx")
    return tmp_path


def test_only_a_whole_fingerprint_in_small_letters(folder, files):
    encoders, (sha256, *_) = Encoders(folder), files
    encoder = encoders.get(None, "", sha256)
    assert encoders.get(None, "", sha256) is encoder
    for other in (sha256.upper(), sha256[:16], sha256 + "\n", f" {sha256}", ""):
        with pytest.raises(NoEncoderError, match="not the whole fingerprint"):
            encoders.get(None, "", other)
    assert len(encoders) == 1


def test_the_least_recently_used_go_first(folder, files):
    first, second, third = files
    size = max(path.stat().st_size for path in files.values())
    encoders = Encoders(folder, max_bytes=2 * size)
    kept = encoders.get(None, "", first)
    dropped = encoders.get(None, "", second)
    assert encoders.get(None, "", first) is kept
    encoders.get(None, "", third)
    assert len(encoders) == 2
    assert encoders.get(None, "", first) is kept
    assert encoders.get(None, "", second) is not dropped
    alone = Encoders(folder, max_bytes=size - 1)
    assert alone.get(None, "", first) is alone.get(None, "", first), "one may be larger"


def test_one_that_is_far_too_large_is_not_read(files, tmp_path, monkeypatch):
    (sha256, path), *_ = files.items()
    size = path.stat().st_size
    entry = SimpleNamespace(size=size)
    monkeypatch.setattr(encoder_store, "find", lambda query, wanted: entry)
    monkeypatch.setattr(encoder_store, "read", lambda query, entry: path.read_bytes())
    assert Encoders(tmp_path, max_bytes=size // 2 + 1).get(None, "", sha256).sha256 == sha256
    (tmp_path / f"{sha256}.onnx").unlink()
    with pytest.raises(EncoderError, match="give it more memory"):
        Encoders(tmp_path, max_bytes=size // 2 - 1).get(None, "", sha256)


def test_one_that_hangs_holds_up_no_other(folder, files, monkeypatch):
    hanging, other, _ = files
    gate, load = threading.Event(), encoder_cache.load_encoder

    def load_or_hang(path, **options):
        if path.stem == hanging:
            assert gate.wait(30)
        return load(path, **options)

    monkeypatch.setattr(encoder_cache, "load_encoder", load_or_hang)
    monkeypatch.setattr(encoder_cache, "LOAD_SECONDS", 0.05)
    encoders = Encoders(folder)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(encoders.get, None, "", hanging)
        while hanging not in encoders._loading:
            assert not first.done()
        with pytest.raises(EncoderError, match="still being loaded"):
            encoders.get(None, "", hanging)
        assert encoders.get(None, "", other).sha256 == other
        gate.set()
        assert first.result().sha256 == hanging
    assert encoders.get(None, "", hanging) is first.result()


def test_a_full_folder_is_done_without(files, tmp_path, monkeypatch):
    (sha256, path), *_ = files.items()
    monkeypatch.setattr(encoder_store, "find", lambda query, wanted: ENTRY)
    monkeypatch.setattr(encoder_store, "read", lambda query, entry: path.read_bytes())
    make = tempfile.NamedTemporaryFile

    def full(*args, dir, **options):
        if dir == tmp_path / "cache":
            raise OSError(28, "No space left on device")
        return make(*args, dir=dir, **options)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    monkeypatch.setattr(encoder_cache, "MEMORY_FOLDER", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    encoders = Encoders(tmp_path / "cache")
    assert encoders.get(None, "", sha256).sha256 == sha256
    assert list(tmp_path.rglob("*.onnx")) == [], "the file lies where the memory is, and no longer than it is read"
    monkeypatch.undo()
    monkeypatch.setattr(encoder_store, "find", lambda query, wanted: ENTRY)
    monkeypatch.setattr(encoder_store, "read", lambda query, entry: path.read_bytes())
    assert Encoders(tmp_path / "cache").get(None, "", sha256).sha256 == sha256
    assert [found.name for found in tmp_path.rglob("*.onnx")] == [f"{sha256}.onnx"]
