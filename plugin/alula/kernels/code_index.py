"""A scan over DRQ codes in this process, by asymmetric distance (ADC)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.kernels.adc import adc_inner_products, adc_scores
from alula.kernels.exact import better_is_larger, top_k
from alula.kernels.found import F32, I64, Found, Mask
from alula.kernels.sidecar import load_arrays, save_arrays
from alula.kernels.vectors import Vectors

U8 = npt.NDArray[np.uint8]


class CodeIndex:
    """Codes of which every prefix is a code; candidates by ADC, ranked by their exact vectors where those are held.

    Rows have positions from 0 in the order they came; a deleted row keeps its position.

    Args:
        levels: Levels M of a code, one byte each.
        metric: ``COSINE``, ``IP`` or ``L2``.
        scale: What one unit of the norms and look-up tables is in the user's vectors (`EncoderInfo.scale`).
        vector_dim: Dimension of the rows' vectors; None when they are not held.
    """

    def __init__(self, levels: int, metric: str, scale: float = 1.0, vector_dim: int | None = None) -> None:
        self.levels, self.metric, self.scale = levels, metric, scale
        self.vectors = None if vector_dim is None else Vectors(vector_dim, metric)
        self._codes: U8 = np.empty((0, levels), np.uint8)
        self._norms: F32 = np.empty((0, levels), np.float32)
        self._alive: Mask = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def alive(self) -> Mask:
        """Bool (n,): which positions hold a row that was not deleted."""
        return self._alive

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by what they hold."""
        held = {"codes": int(self._codes.nbytes), "norms": int(self._norms.nbytes)}
        return held | ({"vectors": int(self.vectors.array.nbytes)} if self.vectors else {})

    def add(self, codes: U8, norms: F32, vectors: F32 | None = None) -> None:
        """Add rows behind those there are.

        Args:
            codes: uint8 (m, M).
            norms: float32 (m, M): norm of each prefix's reconstruction.
            vectors: float32 (m, d): the rows' vectors, where the index holds them.
        """
        self._codes = np.concatenate([self._codes, codes])
        self._norms = np.concatenate([self._norms, norms])
        self._alive = np.concatenate([self._alive, np.ones(len(codes), np.bool_)])
        if self.vectors is not None and vectors is not None:
            self.vectors.add(vectors)

    def delete(self, positions: I64) -> None:
        """Delete rows by position; positions that were deleted before change nothing."""
        self._alive[positions] = False

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
    ) -> Found:
        """The best rows for each query.

        Args:
            lut: float32 (n, M, 256): the queries' look-up tables.
            norms: float32 (n,): the queries' norms, as `DrqQueries.norms`.
            k: Results per query.
            levels: Length of the prefix to rank by; all levels by default.
            vectors: float32 (n, d): the queries' vectors, needed for exact scores.
            candidates: Rows to take by ADC.
            rerank: How many candidates to score by their vectors: all by default where vectors are held, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.

        Returns:
            Positions and scores: exact, or `adc_scores` when nothing is re-ranked.
        """
        levels = levels or self.levels
        found = Found.empty(len(lut), k)
        may = np.flatnonzero(self._alive if valid is None else self._alive & valid)
        codes = self._codes[may, :levels]
        for i in range(len(lut)):
            products = adc_inner_products(codes, lut[i])
            scores = adc_scores(products, self._norms[may, levels - 1], float(norms[i]), self.metric, self.scale)
            order = top_k(scores, max(candidates, k), larger=better_is_larger(self.metric))
            best, scores = may[order].astype(np.int64), scores[order]
            if self.vectors is None or vectors is None or rerank == 0:
                best, scores = best[:k], scores[:k]
            else:
                best, scores = self.vectors.best(vectors[i], best[: rerank and max(rerank, k)], k)
            found.positions[i, : len(best)], found.scores[i, : len(best)] = best, scores
        return found

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        arrays: dict[str, npt.NDArray[Any]] = {"codes": self._codes, "norms": self._norms, "alive": self._alive}
        if self.vectors is not None:
            arrays["vectors"] = self.vectors.array
        save_arrays(folder, arrays, {"metric": self.metric, "scale": self.scale})

    @classmethod
    def load(cls, folder: Path) -> CodeIndex:
        """Open what `save` wrote, by memory map.

        Raises:
            DataError: If the folder holds no such index.
        """
        arrays, about = load_arrays(folder)
        vectors = arrays.get("vectors")
        levels = arrays["codes"].shape[1]
        index = cls(levels, about["metric"], about["scale"], None if vectors is None else vectors.shape[1])
        index._codes, index._norms, index._alive = arrays["codes"], arrays["norms"], arrays["alive"].copy()
        if index.vectors is not None and vectors is not None:
            index.vectors.array = vectors
        return index
