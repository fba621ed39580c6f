"""Milvus Lite 3, the Python engine, for separate programs; tests run on 2.5.

Both are the package ``milvus-lite``, so only one can be installed; the other lies in a directory that comes first on
the path of the programs that want it.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tools.servers.cache import fetch, installed, pip

VERSION = "3.2.2"
ROOT = Path(__file__).parents[2]


def install() -> Path:
    """The directory with Milvus Lite 3, installed into the cache on first use.

    Raises:
        ServerError: pip could not install the package.
    """
    return installed(f"milvus-lite-{VERSION}", _fetch)


def _fetch(directory: Path) -> None:
    fetch(f"Milvus Lite {VERSION}", directory, f"milvus-lite=={VERSION}")


def source() -> Path:
    """The directory with its source package and tests, unpacked into the cache.

    Raises:
        ServerError: pip could not fetch the package.
    """
    return installed(f"milvus-lite-{VERSION}-source", _fetch_source)


def _fetch_source(directory: Path) -> None:
    package = ["--no-deps", "--no-binary=:all:", "--dest", str(directory), f"milvus-lite=={VERSION}"]
    pip(f"the source of Milvus Lite {VERSION}", sys.executable, "download", *package)
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as held:
        held.extractall(directory, filter="data")
    archive.unlink()


def environment() -> Mapping[str, str]:
    """The environment of a program that imports Milvus Lite 3 and this project."""
    path = [str(install()), *(part for part in sys.path if part)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
