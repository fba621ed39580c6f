from __future__ import annotations

import pytest

from alula.errors import UsageError
from alula_exporters.output_file import atomic_file, check_out_path


def test_writes_whole_files(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaves_nothing_when_stopped(tmp_path, error):
    def write():
        with atomic_file(tmp_path / "a.onnx") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert not list(tmp_path.iterdir())


def test_refuses_paths_before_training(tmp_path):
    (tmp_path / "there.onnx").write_text("x")
    with pytest.raises(UsageError, match="exists already"):
        check_out_path(tmp_path / "there.onnx", force=False)
    check_out_path(tmp_path / "there.onnx", force=True)
    with pytest.raises(UsageError, match="does not exist"):
        check_out_path(tmp_path / "missing" / "a.onnx", force=True)
    with pytest.raises(UsageError, match=r"words\.bin must end in \.onnx, as in words\.onnx"):
        check_out_path(tmp_path / "words.bin", force=True)
    with pytest.raises(UsageError, match="is a folder"):
        check_out_path(tmp_path, force=True)
