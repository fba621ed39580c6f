"""Folders of images: one file is one row."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.errors import DataError, UsageError
from alula.sources.locations import File, first_line
from alula.sources.reading import Piece, Wanted

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_BLOCK = 16 << 20  # bytes of pixels that are decoded at once


class ImageFolderReader:
    """Image files as rows of one reader; see `Reader`.

    The columns beside the images are ``path``, relative to the folder, and with sub-folders ``label``, the name of the
    folder that an image lies in. Colours are converted to the channels that are wanted; an image of another size is a
    bad row, since stretching or cropping it is a decision about the data.
    """

    def __init__(self, files: Sequence[File], wanted: Wanted) -> None:
        self.file = files[0]
        self._files = files
        self._pixels = wanted.column or "images"
        self.column: str | None = self._pixels
        self.rows: int | None = len(files)
        self._shape = tuple(wanted.image_shape or ()) or _shape_of_first(files)
        self.shape: tuple[int, ...] | None = self._shape
        folders = [os.path.dirname(file.path) for file in files]  # noqa: PTH120 - paths of any file system
        self._root = os.path.commonpath(folders) if folders[0] else ""
        self._labelled = len(set(folders)) > 1
        pixels = pa.list_(pa.uint8(), math.prod(self._shape))
        fields = [(self._pixels, pixels), ("path", pa.string()), ("label", pa.string())]
        self.schema = pa.schema(fields if self._labelled else fields[:2])

    def pieces(self, skip: int, size: int, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """See `Reader`."""
        size = min(size, max(1, _BLOCK // math.prod(self._shape)))
        names = self.schema.names if columns is None else columns
        for start in range(skip, len(self._files), size):
            files = self._files[start : start + size]
            paths = [PurePosixPath(os.path.relpath(file.path, self._root or ".")) for file in files]
            values: dict[str, Any] = {"path": pa.array(map(str, paths))}
            values["label"] = pa.array([path.parent.name or None for path in paths], pa.string())
            bad: dict[int, str] = {}
            if self._pixels in names:
                values[self._pixels], bad = self._images(files)
            fields = [self.schema.field(name) for name in names]
            record = pa.RecordBatch.from_arrays([values[name] for name in names], schema=pa.schema(fields))
            yield Piece(record, bad)

    def _images(self, files: Sequence[File]) -> tuple[pa.Array, dict[int, str]]:
        pixels = np.zeros((len(files), *self._shape), np.uint8)
        bad: dict[int, str] = {}
        for i, file in enumerate(files):
            image = _decode(file, self._shape)
            if isinstance(image, str):
                bad[i] = image
            else:
                pixels[i] = image
        missing = np.zeros(len(files), bool)
        missing[list(bad)] = True
        width = math.prod(self._shape)
        return pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), width, mask=pa.array(missing)), bad


def _pillow() -> Any:
    try:
        from PIL import Image  # noqa: PLC0415
    except ImportError:
        raise UsageError("Reading images needs Pillow, which is not installed: pip install 'alula[images]'.") from None
    return Image


def _decode(file: File, shape: Sequence[int]) -> npt.NDArray[np.uint8] | str:
    """The pixels, or why there are none that fit."""
    pillow = _pillow()
    height, width, channels = shape
    try:
        with file.open() as content, pillow.open(content) as image:
            if (image.height, image.width) != (height, width):
                return (
                    f"{file.name} is an image of {image.width} x {image.height} pixels, where {width} x {height} are "
                    "needed"
                )
            pixels = np.asarray(image.convert(_MODES[channels]), np.uint8)
    # damaged files make Pillow raise many kinds of errors
    except Exception as error:
        return f"{file.name} is no image that can be read ({first_line(error)})"
    return pixels.reshape(height, width, channels)


def _shape_of_first(files: Sequence[File]) -> tuple[int, ...]:
    """(height, width, channels) of the first readable image, the default."""
    pillow = _pillow()
    for file in files:
        try:
            with file.open() as content, pillow.open(content) as image:
                return image.height, image.width, 1 if image.mode in ("1", "L") else 3
        except Exception:  # noqa: S112 - it will be a bad row
            continue
    raise DataError(f"None of the {len(files)} images at {files[0].name} and beside it can be read.")
