"""faiss indexes as files of vectors, and of ids where they have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.errors import DataError, UsageError
from alula.sources.array_files import ArrayReader, InMemory, Rows
from alula.sources.reading import Wanted


class FaissReader(ArrayReader):
    """An index that holds the vectors themselves, mapped into memory; see `Reader`.

    The ids of an ``IndexIDMap`` are the column ``id``.
    """

    default = "vectors"

    def _open(self, opened: ExitStack, wanted: Wanted) -> Mapping[str, Rows]:  # noqa: ARG002
        faiss = self._library("faiss", "faiss-cpu")
        if self.file.local is None:
            raise UsageError(f"{self.file.name} must be on this machine: faiss maps an index into memory.")
        try:
            whole = index = faiss.read_index(str(self.file.local), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(str(error).rpartition("Error: ")[2]) from None
        arrays: dict[str, Rows] = {}
        if isinstance(index, faiss.IndexIDMap):
            arrays["id"] = InMemory(faiss.vector_to_array(index.id_map))
            index = faiss.downcast_index(index.index)
        held = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
        if type(held) not in (faiss.IndexFlat, faiss.IndexFlatL2, faiss.IndexFlatIP):
            raise DataError(
                f"The file {self.file.name} is a faiss {type(held).__name__}, which does not hold the vectors as they "
                "were, in their order; load them from where they came."
            )
        return {"vectors": _Flat(held, whole), **arrays}


class _Flat:
    """The vectors of a flat index as an array (n, d).

    Args:
        index: The index.
        owner: The index of which it is a part, which frees it.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, index: Any, owner: Any) -> None:
        self.shape: tuple[int, ...] = (int(index.ntotal), int(index.d))
        self._index, self._owner = index, owner

    def slices(self, skip: int, size: int) -> Iterator[npt.NDArray[Any]]:
        for start in range(skip, self.shape[0], size):
            yield self._index.reconstruct_n(start, min(size, self.shape[0] - start))
