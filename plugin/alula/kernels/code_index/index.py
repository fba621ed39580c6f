"""In-process search over DRQ codes by asymmetric distance (ADC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders.metric import better_is_larger
from alula.errors import DataError
from alula.kernels.array_folder import load_arrays, save_arrays
from alula.kernels.code_index.layout import CODE_BLOCK, CodeRows, key_positions, key_scores
from alula.kernels.loops import code_loops
from alula.kernels.topk import F32, I64, NO_MASK, U8, U16, U32, Mask, TopK, check_mask
from alula.kernels.vectors import Vectors, check_vectors

CELLS = 256  # the codewords of the first level
SLACK = 1.25  # growth factor of memory when rows are appended


@dataclass(frozen=True)
class _Slots:
    """Rows in memory, in slots; an instance is a consistent snapshot for a search.

    Slots that a search may read are never changed.

    Args:
        codes: uint8 (b, M, CODE_BLOCK), see `CodeRows`.
        norms: uint16 (p, b, CODE_BLOCK), bits of float16: norms of the prefixes of ...
        lengths: ... these p lengths, in levels.
        positions: uint32 (n,), see `CodeRows`.
        cells: int64 (CELLS + 1, 2): the first slot of each first codeword's rows and the one behind its last; the last
            entry is for the rows that came since, which lie in no order.
        shifts: float32 (CELLS,): what to add to a query's product with a codeword to rank the codewords.
        count: Slots in use.
    """

    codes: U8
    norms: U16
    lengths: tuple[int, ...]
    positions: U32
    cells: I64
    shifts: F32
    count: int

    @classmethod
    def empty(cls, levels: int) -> _Slots:
        """Slots without rows."""
        return cls(
            np.empty((0, levels, CODE_BLOCK), np.uint8),
            np.empty((0, 0, CODE_BLOCK), np.uint16),
            (),
            np.empty(0, np.uint32),
            np.zeros((CELLS + 1, 2), np.int64),
            np.zeros(CELLS, np.float32),
            0,
        )

    def with_capacity(self, count: int) -> _Slots:
        """The same rows in writable memory for at least `count` slots."""
        blocks = -(-count // CODE_BLOCK)
        if blocks <= len(self.codes) and self.codes.flags.writeable and self.norms.flags.writeable:
            return self
        used = -(-self.count // CODE_BLOCK)
        blocks = max(blocks, int(used * SLACK) if count > self.count else 0)
        codes = np.zeros((blocks, *self.codes.shape[1:]), np.uint8)
        norms = np.zeros((len(self.lengths), blocks, CODE_BLOCK), np.uint16)
        codes[:used], norms[:, :used] = self.codes[:used], self.norms[:, :used]
        return replace(self, codes=codes, norms=norms)

    def with_lengths(self, lengths: tuple[int, ...]) -> _Slots:
        """The same rows with only the norms of the given lengths."""
        if not self.count:
            return replace(
                self, lengths=lengths, norms=np.empty((len(lengths), len(self.codes), CODE_BLOCK), np.uint16)
            )
        kept = [i for i, length in enumerate(self.lengths) if length in lengths]
        if len(kept) == len(self.lengths):
            return self
        return replace(self, lengths=tuple(self.lengths[i] for i in kept), norms=self.norms[kept])

    def with_rows(self, codes: U8, norms: F32, lengths: Sequence[int], position: int) -> _Slots:
        """Append rows (m, M) with norms of the given lengths, from a position on."""
        held = tuple(t for t in lengths if not np.isnan(norms[:, t - 1]).any())
        grown = self.with_lengths(held).with_capacity(self.count + len(codes))
        slots = np.arange(self.count, self.count + len(codes))
        grown.codes[slots // CODE_BLOCK, :, slots % CODE_BLOCK] = codes
        halves = np.minimum(norms, np.finfo(np.float16).max).astype(np.float16).view(np.uint16)
        for i, length in enumerate(grown.lengths):
            grown.norms[i].reshape(-1)[slots] = halves[:, length - 1]
        positions = self.positions
        if len(positions):
            positions = np.concatenate([positions, np.arange(position, position + len(codes), dtype=np.uint32)])
        cells = self.cells.copy()
        cells[-1, 1] = self.count + len(codes)
        return replace(grown, positions=positions, cells=cells, count=self.count + len(codes))

    def in_cells(self, alive: Mask, word_norms: F32) -> _Slots:
        """The rows that were not deleted, grouped by their first codeword.

        Codewords are ranked by their distance, as ``<q, c> - |c|^2 / 2``, where their norms are given (not NaN).
        """
        used = -(-self.count // CODE_BLOCK)
        positions = self.positions if len(self.positions) else np.arange(self.count, dtype=np.uint32)
        words = self.codes[:used, 0].reshape(-1)[: self.count]
        kept = np.flatnonzero(alive[positions])
        kept = kept[np.lexsort((positions[kept], words[kept]))]
        ends = np.cumsum(np.bincount(words[kept], minlength=CELLS + 1))
        cells = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
        shifts = np.where(cells[:-1, 0] < cells[:-1, 1], -np.square(np.nan_to_num(word_norms)) / 2, -np.inf)
        made = _Slots.empty(self.codes.shape[1]).with_lengths(self.lengths).with_capacity(len(kept))
        blocks = len(made.codes)
        filled = np.zeros(blocks * CODE_BLOCK, np.uint8)
        for level in range(self.codes.shape[1]):
            filled[: len(kept)] = self.codes[:used, level].reshape(-1)[kept]
            made.codes[:, level] = filled.reshape(blocks, CODE_BLOCK)
        for i in range(len(self.lengths)):
            made.norms[i].reshape(-1)[: len(kept)] = self.norms[i].reshape(-1)[kept]
        shifts = shifts.astype(np.float32)
        return replace(made, positions=positions[kept], cells=cells, shifts=shifts, count=len(kept))


class CodeIndex:
    """Codes whose prefixes are codes; candidates by ADC, ranked by exact vectors.

    Rows have positions from 0 in the order of insertion; a deleted row keeps its position. Ties go to the lower
    position. Norms are held as float16, as Milvus's fields hold them.

    A search visits all rows, or, asked for ``probes``, only the rows of the first codewords nearest to the query: the
    first level of a code is a coarse quantiser as in an inverted file (Jegou et al., TPAMI 2011) that needs no training
    and no extra memory. The first such search groups rows by codeword, and later ones again when a quarter of the rows
    are newer; every search visits the newer rows.

    Args:
        levels: Levels M of a code, one byte each.
        metric: ``COSINE``, ``IP`` or ``L2``.
        scale: Length of one unit of norms and look-up tables in the user's vectors (`EncoderInfo.scale`).
        vector_dim: Dimension of the rows' vectors; None when they are not held.
        lengths: The prefixes, in levels, whose norms are held, two bytes each for a row; all by default.
    """

    def __init__(
        self,
        levels: int,
        metric: str,
        scale: float = 1.0,
        vector_dim: int | None = None,
        *,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.levels, self.metric, self.scale = levels, metric, scale
        self._kept = () if metric == "IP" else tuple(range(1, levels + 1) if lengths is None else sorted(lengths))
        self.vectors = None if vector_dim is None else Vectors(vector_dim, metric)
        self._slots = _Slots.empty(levels)
        self._word_norms: F32 = np.full(CELLS, np.nan, np.float32)
        self._alive: Mask = np.empty(0, np.bool_)
        self._loops = code_loops()
        self._left = 0  # rows that were not deleted
        self._changing = Lock()

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def alive(self) -> Mask:
        """Bool (n,): True at the positions of rows that were not deleted."""
        return self._alive

    @property
    def lengths(self) -> tuple[int, ...]:
        """The prefixes, in levels, that can be searched: every row has their norms."""
        if self.metric == "IP":  # it needs no norms
            return tuple(range(1, self.levels + 1))
        return self._slots.lengths if len(self) else self._kept

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by content."""
        slots = self._slots
        held = {"codes": int(slots.codes.nbytes), "norms": int(slots.norms.nbytes)}
        held |= {"positions": int(slots.positions.nbytes)} if len(slots.positions) else {}
        if self.vectors is None:
            return held
        return held | {"vectors": self.vectors.array.nbytes, "vector codes": self.vectors.codes.nbytes}

    def add(self, codes: U8, norms: F32, vectors: F32 | None = None) -> None:
        """Append rows.

        Args:
            codes: uint8 (m, M).
            norms: float32 (m, M): norm of each prefix's reconstruction; NaN where it is not known.
            vectors: float32 (m, d): the rows' vectors, where the index holds them.

        Raises:
            DataError: If the levels are not the index's, or there are not as many norms and vectors as rows; the index
                is then as it was.
        """
        if codes.ndim != 2 or codes.shape[1] != self.levels or norms.shape != codes.shape:
            raise DataError(
                f"The codes have the shape {codes.shape} and their norms {norms.shape}, and the index takes "
                f"{self.levels} levels of each row."
            )
        check_vectors(self.vectors, vectors, len(codes))
        with self._changing:
            if self.metric != "IP":
                self._word_norms[codes[:, 0]] = norms[:, 0]
            if self.vectors is not None and vectors is not None:
                self.vectors.add(vectors)
            alive = np.concatenate([self._alive, np.ones(len(codes), np.bool_)])
            slots = self._slots.with_rows(codes, norms, self._kept, len(self))
            self._alive, self._slots, self._left = alive, slots, self._left + len(codes)

    def delete(self, positions: I64) -> None:
        """Delete rows by position; positions that were deleted before change nothing."""
        with self._changing:
            self._alive[positions] = False
            self._left = int(np.count_nonzero(self._alive))

    def search(
        self,
        lut: F32,
        norms: F32,
        k: int,
        *,
        levels: int | None = None,
        vectors: F32 | None = None,
        candidates: int = 1000,
        rerank: int | None = None,
        valid: Mask | None = None,
        probes: int | None = None,
    ) -> TopK:
        """The best rows for each query.

        Each loop is compiled when it first runs, unless `alula.kernels.warm_up` was called before.

        Args:
            lut: float32 (n, M, 256): the queries' look-up tables.
            norms: float32 (n,): the queries' norms, as `DrqQueries.norms`.
            k: Results per query.
            levels: Length of the prefix to rank by, one of `lengths`; all levels by default.
            vectors: float32 (n, d): the queries' vectors, needed for exact scores.
            candidates: CodeRows to take by ADC.
            rerank: Number of candidates to score by their vectors: all by default if the index has vectors, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.
            probes: First codewords to visit the rows of; all rows by default.

        Returns:
            Positions and scores: exact, or `adc_scores` when nothing is re-ranked.

        Raises:
            DataError: If `valid` has another length.
        """
        found = TopK.empty(len(lut), k)
        if valid is not None:
            check_mask(valid, len(self))
        slots = self._slots if probes is None else self._in_cells()
        if not slots.count or not k:
            return found
        levels = levels or self.levels
        rows = CodeRows(_fixed(slots.codes), self._norms(slots, levels), _fixed(slots.positions))
        mask = valid
        if slots.count != self._left:
            mask = self._alive if valid is None else self._alive & valid
        mask = _fixed(NO_MASK if mask is None else mask)
        exact = self.vectors is not None and vectors is not None and rerank != 0
        wanted = k if not exact else max(k, min(candidates, rerank or candidates))
        wanted = min(wanted, slots.count)
        everything = np.array([[0, slots.count]])
        for i in range(len(lut)):
            ranges = everything if probes is None else _nearest(slots, lut[i, 0], probes)
            keys = self._loops.scan(
                rows,
                ranges,
                mask,
                _fixed(lut[i, :levels]),
                float(norms[i]),
                wanted,
                metric=self.metric,
                scale=self.scale,
            )
            if self.vectors is not None and vectors is not None and exact:
                query = np.ascontiguousarray(vectors[i], np.float32)
                self.vectors.rank(query, key_positions(keys), found.positions[i], found.scores[i])
            else:
                found.positions[i, : len(keys)] = key_positions(keys)
                found.scores[i, : len(keys)] = key_scores(keys, larger=better_is_larger(self.metric))
        return found

    def _norms(self, slots: _Slots, levels: int) -> U16:
        if self.metric == "IP":
            return _fixed(np.zeros((1, CODE_BLOCK), np.uint16))
        return _fixed(slots.norms[slots.lengths.index(levels)])

    def _in_cells(self) -> _Slots:
        with self._changing:
            first, last = self._slots.cells[-1]
            if last - first > self._slots.count // 4:
                self._slots = self._slots.in_cells(self._alive, self._word_norms)
            return self._slots

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        slots = self._slots
        used = -(-slots.count // CODE_BLOCK)
        arrays: dict[str, npt.NDArray[Any]] = {
            "codes": slots.codes[:used],
            "norms": slots.norms[:, :used],
            "positions": slots.positions,
            "cells": slots.cells,
            "shifts": slots.shifts,
            "word_norms": self._word_norms,
            "alive": self._alive,
        }
        if self.vectors is not None:
            arrays |= self.vectors.arrays
        metadata = {
            "metric": self.metric,
            "scale": self.scale,
            "lengths": slots.lengths,
            "kept": self._kept,
            "slots": slots.count,
        }
        save_arrays(folder, arrays, metadata)

    @classmethod
    def load(cls, folder: Path) -> CodeIndex:
        """Map an index written by `save` into memory.

        Raises:
            DataError: If the folder holds no such index.
        """
        arrays, metadata = load_arrays(folder)
        try:
            index = cls(arrays["codes"].shape[1], metadata["metric"], metadata["scale"], lengths=metadata["kept"])
            index.vectors = Vectors.restore(arrays, metadata["metric"])
            index._slots = _Slots(
                arrays["codes"],
                arrays["norms"],
                tuple(metadata["lengths"]),
                arrays["positions"],
                np.array(arrays["cells"]),
                np.array(arrays["shifts"]),
                metadata["slots"],
            )
            index._alive, index._word_norms = np.array(arrays["alive"]), np.array(arrays["word_norms"])
        except KeyError as error:
            raise DataError(f"The folder {folder} holds no index of codes ({error} is missing).") from None
        index._left = int(np.count_nonzero(index._alive))
        return index


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view, for which numba compiles once, memory-mapped or not."""
    fixed = np.asarray(array).view(np.ndarray)
    fixed.flags.writeable = False
    return fixed


def _nearest(slots: _Slots, products: F32, probes: int) -> I64:
    """The slots of the nearest first codewords, nearest first, and of ungrouped rows."""
    nearest = np.argsort(-(products + slots.shifts), kind="stable")[:probes]
    ranges = slots.cells[nearest]
    return ranges if slots.cells[-1, 0] == slots.count else np.concatenate([ranges, slots.cells[-1:]])
