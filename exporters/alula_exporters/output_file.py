"""Write output files whole or not at all, and check their paths early."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alula.errors import UsageError


def check_out_path(path: Path, *, force: bool, ending: str = ".onnx") -> None:
    """Reject a path that cannot be written; called before training, not after.

    Args:
        path: The file to be written.
        force: True to accept an existing file.
        ending: The ending that its name must have, by which people and programs know such files.

    Raises:
        UsageError: If the name has another ending, the folder is missing or not writable, or the file exists.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of the .onnx file to write.")
    if path.suffix.lower() != ending:
        raise UsageError(f"{path} must end in {ending}, as in {path.with_suffix(ending).name}.")
    if not path.parent.is_dir():
        raise UsageError(f"The folder {path.parent} does not exist; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"The folder {path.parent} is not writable.")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; give another name, or force=True to replace it.")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write beside ``path``, then rename: readers see the old or the whole new file.

    Args:
        path: The file to be written.

    Yields:
        A path in the same folder; what lies there is renamed at the end, or removed on any error, Ctrl-C included.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
