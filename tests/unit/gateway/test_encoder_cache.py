"""The encoders of a gateway: one copy of each, a bounded number of bytes, and none that holds up the others."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from alula import encoder_store
from alula.encoders import trial
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


@pytest.fixture
def stored(files, monkeypatch):
    """Let a query of Milvus return these files; counts the reads and the children."""
    counts = Counter()

    def read(query, entry):
        counts["reads"] += 1
        return entry.path.read_bytes()

    def open_in_child(path):
        counts["children"] += 1
        trial.open_in_child(path)

    def find(query, sha256):
        return SimpleNamespace(size=1000, path=files[sha256])

    monkeypatch.setattr(encoder_store, "find", find)
    monkeypatch.setattr(encoder_store, "read", read)
    monkeypatch.setattr(encoder_cache, "open_in_child", open_in_child)
    return counts


def test_a_file_is_opened_in_a_child_once(files, tmp_path, stored):
    sha256, *_ = files
    for _ in range(2):  # the second gateway finds it in the folder
        encoders = Encoders(tmp_path)
        assert encoders.get(None, "", sha256).sha256 == sha256
        encoders._loaded.clear()
        assert encoders.get(None, "", sha256).sha256 == sha256
    assert stored == {"reads": 1, "children": 1}


def test_a_file_that_a_child_refuses(files, tmp_path, stored, monkeypatch):
    """It is not tried again for a while, does not stay in the folder, and other files are opened."""
    hostile, other, _ = files
    monkeypatch.setitem(files, hostile, tmp_path / "hostile")
    (tmp_path / "hostile").write_bytes(files[other].read_bytes()[:-100])
    cache = tmp_path / "cache"
    encoders = Encoders(cache)
    for _ in range(3):
        with pytest.raises(EncoderError, match=f"Cannot use the encoder .*{hostile[:16]}"):
            encoders.get(None, "", hostile)
    assert stored == {"reads": 1, "children": 1}
    assert list(cache.iterdir()) == []
    assert encoders.get(None, "", other).sha256 == other
    monkeypatch.setattr(encoder_cache, "REFUSED_SECONDS", -1.0)
    encoders._refused.clear()
    for _ in range(2):
        with pytest.raises(EncoderError):
            encoders.get(None, "", hostile)
    assert stored["children"] == 3 + 1


def test_one_file_at_a_time_is_opened_in_a_child(files, tmp_path, stored, monkeypatch):
    hanging, other, _ = files
    gate, loaded = threading.Event(), Encoders(tmp_path)
    monkeypatch.setattr(encoder_cache, "open_in_child", lambda path: gate.wait(30))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(loaded.get, None, "", hanging)
        while not loaded._trial.locked():
            assert not first.done()
        monkeypatch.setattr(encoder_cache, "LOAD_SECONDS", 0.05)
        with pytest.raises(EncoderError, match="waits for others to be opened"):
            loaded.get(None, "", other)
        gate.set()
        assert first.result().sha256 == hanging
    assert loaded.get(None, "", other).sha256 == other


def test_no_child_can_be_started(files, tmp_path, stored, monkeypatch):
    def fail(path):
        raise OSError(11, "Resource temporarily unavailable")

    sha256, *_ = files
    monkeypatch.setattr(encoder_cache, "open_in_child", fail)
    encoders = Encoders(tmp_path)
    with pytest.raises(EncoderError, match=r"No process can be started .* \(Resource temporarily unavailable\)"):
        encoders.get(None, "", sha256)
    monkeypatch.setattr(encoder_cache, "open_in_child", trial.open_in_child)
    assert encoders.get(None, "", sha256).sha256 == sha256, "it is tried again at once"


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
