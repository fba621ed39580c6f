"""Arrays in a folder, opened again by memory map: a snapshot of an index costs no copy and no parsing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.errors import DataError

ABOUT = "about.json"


def save_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write arrays and a JSON object into a new folder; it appears only when it is whole, in place of an older one.

    Args:
        folder: The folder.
        arrays: Arrays of any shape and dtype by name.
        about: What else is to be known.
    """
    with whole_folder(folder) as partial:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
        (partial / ABOUT).write_text(json.dumps(dict(about), sort_keys=True) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which appears under its name only when it is whole, in place of an older one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        partial = Path(made) / "whole"
        partial.mkdir()
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())  # a folder may survive a power failure that its files do not
        if folder.exists():
            folder.rename(Path(made) / "older")
        partial.rename(folder)
        shutil.rmtree(Path(made) / "older", ignore_errors=True)


def load_arrays(folder: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays of a folder, memory-mapped, and its JSON object; what is written to them never reaches the files.

    Raises:
        DataError: If the folder is not what `save_arrays` wrote.
    """
    try:
        about = json.loads((folder / ABOUT).read_text())
        # copy on write: plain arrays that may be written to, for which loops need not be compiled once more
        arrays = {
            path.stem: np.asarray(np.load(path, mmap_mode="c", allow_pickle=False)) for path in folder.glob("*.npy")
        }
    except (OSError, ValueError) as error:
        raise DataError(f"The folder {folder} holds no index that can be read ({error}).") from None
    return arrays, dict(about)
