"""Alula's index types inside Milvus Lite, where it is not a version that they were tested in."""

from importlib import metadata

import pytest

import alula.lite
from alula.errors import UnsupportedError


def test_milvus_lite_2_is_refused_with_what_to_do():
    version = metadata.version("milvus-lite")
    assert version.startswith("2.5.")
    with pytest.raises(
        UnsupportedError, match=f"Milvus Lite {version} is installed, .*pip install milvus-lite==3.2.2; or"
    ):
        alula.lite.register()
    alula.lite.unregister()


def test_no_milvus_lite(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UnsupportedError, match=r"Milvus Lite is not installed; pip install milvus-lite==3\.2\.2"):
        alula.lite.register()
