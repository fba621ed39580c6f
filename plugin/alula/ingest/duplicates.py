"""Find rows with the key of an earlier row, in memory that does not grow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.errors import DataError

# A key as two 64-bit numbers, and its row. Two strings with one hash of 128 bits do not happen.
_ENTRY = np.dtype([("a", "<u8"), ("b", "<u8"), ("row", "<u8")])
_BUCKETS = 256  # on disk, sorted one at a time: a billion rows are 100 MB each


def duplicate_rows(
    keys: Iterable[pa.Array], folder: Path, *, most: int, progress: Callable[[int], None] | None = None
) -> list[int]:
    """Numbers of rows whose key an earlier row has.

    A temporary folder keeps 24 bytes per row.

    Args:
        keys: The keys in the order of the rows, integers or strings. Missing ones are equal to nothing.
        folder: Parent of the temporary folder.
        most: Stop after more duplicates than this.
        progress: Called with the number of rows read.

    Raises:
        DataError: If the folder cannot hold them.
    """
    with ExitStack() as stack, _disk_errors(folder):
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix=".alula-keys-", dir=folder))
        files = [stack.enter_context((Path(place) / f"{i}").open("w+b")) for i in range(_BUCKETS)]
        start = 0
        for some in keys:
            entries, buckets = _entries(some, start)
            order = np.argsort(buckets, kind="stable")
            bounds = np.searchsorted(buckets[order], np.arange(_BUCKETS + 1))
            entries = entries[order]
            for file, first, last in zip(files, bounds, bounds[1:], strict=False):
                if first < last:
                    file.write(entries[first:last].tobytes())
            start += len(some)
            if progress:
                progress(start)
        found: list[int] = []
        for file in files:
            file.seek(0)
            found += _repeated(np.frombuffer(file.read(), _ENTRY))
            if len(found) > most:
                break
    return sorted(found)[: most + 1]


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The keys cannot be kept in {folder} while they are compared ({error.strerror}): 24 bytes per row are "
            "needed there; make room, or name a journal in another folder (journal=...)."
        ) from None


def _entries(keys: pa.Array, start: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """The entries of some keys, missing ones left out, and the bucket of each."""
    rows = np.arange(start, start + len(keys), dtype=np.uint64)
    if keys.null_count:
        rows = rows[keys.is_valid().to_numpy(zero_copy_only=False)]
        keys = keys.drop_null()
    entries = np.zeros(len(keys), _ENTRY)
    entries["row"] = rows
    if pa.types.is_integer(keys.type):
        entries["a"] = keys.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False).view(np.uint64)
        spread = entries["a"] * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: neighbours fall apart
        return entries, (spread >> np.uint64(56)).astype(np.uint8)
    digests = b"".join(blake2b(str(key).encode(), digest_size=16).digest() for key in keys.to_pylist())
    halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
    entries["a"], entries["b"] = halves[:, 0], halves[:, 1]
    return entries, (entries["a"] & np.uint64(255)).astype(np.uint8)


def _repeated(entries: npt.NDArray[Any]) -> list[int]:
    ordered = entries[np.lexsort((entries["row"], entries["b"], entries["a"]))]
    same = (ordered["a"][1:] == ordered["a"][:-1]) & (ordered["b"][1:] == ordered["b"][:-1])
    rows: list[int] = ordered["row"][1:][same].tolist()
    return rows
