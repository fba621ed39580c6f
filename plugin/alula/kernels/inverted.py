"""An inverted index over sparse rows in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from alula.kernels.exact import top_k
from alula.kernels.found import F32, I64, Found, Mask
from alula.kernels.sidecar import load_arrays, save_arrays
from alula.kernels.vectors import Vectors


class InvertedIndex:
    """Sparse rows by dimension; candidates by inner product, ranked by their exact vectors where those are held.

    Rows have positions from 0 in the order they came; a deleted row keeps its position.

    Args:
        dim: Number of sparse dimensions.
        metric: The metric of exact scores: ``COSINE``, ``IP`` or ``L2``.
        vector_dim: Dimension of the rows' vectors; None when they are not held.
    """

    def __init__(self, dim: int, metric: str, vector_dim: int | None = None) -> None:
        self.dim, self.metric = dim, metric
        self.vectors = None if vector_dim is None else Vectors(vector_dim, metric)
        self._rows = sp.csr_array((0, dim), dtype=np.float32)
        self._alive: Mask = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def alive(self) -> Mask:
        """Bool (n,): which positions hold a row that was not deleted."""
        return self._alive

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by what they hold."""
        held = {"postings": int(self._rows.data.nbytes + self._rows.indices.nbytes)}
        return held | ({"vectors": int(self.vectors.array.nbytes)} if self.vectors else {})

    def add(self, rows: sp.csr_array, vectors: F32 | None = None) -> None:
        """Add rows behind those there are.

        Args:
            rows: float32 CSR (m, dim), no weight negative.
            vectors: float32 (m, d): the rows' vectors, where the index holds them.
        """
        self._rows = sp.vstack([self._rows, rows], format="csr")
        self._alive = np.concatenate([self._alive, np.ones(rows.shape[0], np.bool_)])
        if self.vectors is not None and vectors is not None:
            self.vectors.add(vectors)

    def delete(self, positions: I64) -> None:
        """Delete rows by position; positions that were deleted before change nothing."""
        self._alive[positions] = False

    def search(
        self,
        queries: sp.csr_array,
        k: int,
        *,
        vectors: F32 | None = None,
        candidates: int = 500,
        terms: int | None = None,
        rerank: int | None = None,
        valid: Mask | None = None,
    ) -> Found:
        """The best rows for each query.

        Args:
            queries: float32 CSR (n, dim).
            k: Results per query.
            vectors: float32 (n, d): the queries' vectors, needed for exact scores.
            candidates: Rows to take by inner product (R).
            terms: Use only so many of each query's heaviest terms; all by default.
            rerank: How many candidates to score by their vectors: all by default where vectors are held, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.

        Returns:
            Positions and scores: exact, or inner products of the sparse rows when nothing is re-ranked.
        """
        found = Found.empty(queries.shape[0], k)
        may = self._alive if valid is None else self._alive & valid
        for i in range(queries.shape[0]):
            query = queries[[i]]
            if terms is not None and terms < query.nnz:
                query.data[np.argsort(-query.data, kind="stable")[terms:]] = 0
            scores = (self._rows @ query.T).toarray().ravel()
            scores[~may] = 0
            best = top_k(scores, max(candidates, k))
            best = best[scores[best] > 0].astype(np.int64)
            if self.vectors is None or vectors is None or rerank == 0:
                best, scores = best[:k], scores[best[:k]]
            else:
                best, scores = self.vectors.best(vectors[i], best[: rerank and max(rerank, k)], k)
            found.positions[i, : len(best)], found.scores[i, : len(best)] = best, scores
        return found

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        arrays = {name: getattr(self._rows, name) for name in ("data", "indices", "indptr")} | {"alive": self._alive}
        if self.vectors is not None:
            arrays["vectors"] = self.vectors.array
        save_arrays(folder, arrays, {"dim": self.dim, "metric": self.metric})

    @classmethod
    def load(cls, folder: Path) -> InvertedIndex:
        """Open what `save` wrote, by memory map.

        Raises:
            DataError: If the folder holds no such index.
        """
        arrays, about = load_arrays(folder)
        vectors = arrays.get("vectors")
        index = cls(about["dim"], about["metric"], None if vectors is None else vectors.shape[1])
        rows = (arrays["data"], arrays["indices"], arrays["indptr"])
        index._rows = sp.csr_array(rows, shape=(len(arrays["alive"]), about["dim"]))
        index._alive = arrays["alive"].copy()
        if index.vectors is not None and vectors is not None:
            index.vectors.array = vectors
        return index
