"""Arrays in a folder, opened by memory map without copying or parsing."""

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

METADATA_FILE = "about.json"


def save_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write arrays and a JSON object into a folder atomically, replacing an older one.

    Args:
        folder: The folder.
        arrays: Arrays of any shape and dtype by name.
        metadata: A JSON object to store beside them.
    """
    with whole_folder(folder) as partial:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
        (partial / METADATA_FILE).write_text(json.dumps(dict(metadata), sort_keys=True) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` when the block ends normally."""
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
    """Map the arrays of a folder into memory, copy on write, and read its JSON.

    Raises:
        DataError: If `save_arrays` did not write the folder.
    """
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text())
        # copy on write: plain arrays that may be written to, for which loops need not be compiled once more
        arrays = {
            path.stem: np.asarray(np.load(path, mmap_mode="c", allow_pickle=False)) for path in folder.glob("*.npy")
        }
    except (OSError, ValueError) as error:
        raise DataError(f"The folder {folder} holds no index that can be read ({error}).") from None
    return arrays, dict(metadata)
