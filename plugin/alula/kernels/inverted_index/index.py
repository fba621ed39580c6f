"""An inverted index over sparse rows in this process."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.errors import DataError
from alula.kernels.array_folder import load_arrays, save_arrays
from alula.kernels.constants import OVERSAMPLE
from alula.kernels.exact import top_k
from alula.kernels.inverted_index.postings import POSTING_BLOCK, SEGMENT_ARRAYS, Segment, build_segment, merge_segments
from alula.kernels.loops import sparse_loops
from alula.kernels.topk import F32, I64, NO_MASK, Mask, TopK, check_mask
from alula.kernels.vectors import Vectors, check_vectors

CUT = 0.05  # costs no recall that can be measured, and saves half of the postings where weights differ
MAX_TERMS = 1 << 15  # of a query: each adds at least 1 to 16-bit sums
PADDING = 64  # entries that loops read and write at once


class SparseQueries(Protocol):
    """Sparse queries: the dimensions int64 (t,) and the weights float32 (t,) of each."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[I64, F32]: ...


class InvertedIndex:
    """Sparse rows by dimension; candidates by inner product, ranked by exact vectors.

    Rows have positions from 0 in the order of insertion; a deleted row keeps its position.

    Candidates are found term at a time over posting lists in order of impact (Anh & Moffat, Pruned Query Evaluation
    Using Pre-Computed Impacts, SIGIR 2006), see `Segment`. A row's score is the sum, over the dimensions it shares with
    the query, of 1 + floor(s * q_t * i), where q_t is the query's weight, i the impact of the level that the row is in,
    and s such that no sum of 16 bits can overflow. The candidates are the rows with the largest sums, of equal ones
    those that came first; numba and numpy find the same.

    Args:
        dim: Number of sparse dimensions.
        metric: The metric of exact scores: ``COSINE``, ``IP`` or ``L2``.
        vector_dim: Dimension of the rows' vectors; None when they are not held.
    """

    def __init__(self, dim: int, metric: str, vector_dim: int | None = None) -> None:
        self.dim, self.metric = dim, metric
        self.vectors = None if vector_dim is None else Vectors(vector_dim, metric)
        self._segments: list[Segment] = []
        self._alive: Mask = np.empty(0, np.bool_)
        self._loops = sparse_loops()
        self._prepare()

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def alive(self) -> Mask:
        """Bool (n,): True at the positions of rows that were not deleted."""
        return self._alive

    @property
    def segments(self) -> int:
        """The number of segments; each costs a search some microseconds."""
        return len(self._segments)

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by content.

        ``weights`` are read where nothing is re-ranked and when segments are merged only; those of a loaded index stay
        on disk until then.
        """
        held = {
            "postings": sum(segment.ids.nbytes for segment in self._segments),
            "levels": sum(segment.bounds.nbytes + segment.impacts.nbytes for segment in self._segments),
            "weights": sum(segment.weights.nbytes for segment in self._segments),
        }
        if self.vectors is None:
            return held
        return held | {"vectors": self.vectors.array.nbytes, "vector codes": self.vectors.codes.nbytes}

    def add(self, rows: sp.csr_array, vectors: F32 | None = None) -> None:
        """Append rows as a segment.

        A segment is merged with the one before it while that has fewer than twice its rows, so n rows inserted one by
        one are in at most 1 + log2(n) segments, and each row is merged at most that often.

        Args:
            rows: CSR (m, dim), no weight negative.
            vectors: float32 (m, d): the rows' vectors, where the index holds them.

        Raises:
            DataError: If a weight is negative or not finite, or the number of dimensions or of vectors is wrong; the
                index is then as it was.
        """
        rows = self._check(rows, vectors)
        if not rows.shape[0]:
            return
        segment = build_segment(rows, len(self))
        if self.vectors is not None and vectors is not None:
            self.vectors.add(vectors)
        self._segments.append(segment)
        self._alive = np.concatenate([self._alive, np.ones(rows.shape[0], np.bool_)])
        last = len(self._segments) - 1
        merged = self._segments[last].rows
        while last and self._segments[last - 1].rows < 2 * merged:
            last -= 1
            merged += self._segments[last].rows
        if last < len(self._segments) - 1:
            self._segments[last:] = [merge_segments(self._segments[last:], self.dim, self._alive)]
        self._prepare()

    def _check(self, rows: sp.csr_array, vectors: F32 | None) -> sp.csr_array:
        if rows.shape[1] != self.dim:
            raise DataError(f"The rows have {rows.shape[1]} sparse dimensions, and the index has {self.dim}.")
        check_vectors(self.vectors, vectors, rows.shape[0])
        if not (np.isfinite(rows.data).all() and (rows.data >= 0).all()):
            raise DataError("A weight is negative or not finite; an inverted index takes weights from 0 on.")
        if not rows.has_canonical_format or (rows.data == 0).any():
            rows = rows.copy()
            rows.sum_duplicates()
            rows.eliminate_zeros()
        return rows

    def _prepare(self) -> None:
        """Compute what every search needs of all segments."""
        self._peaks: F32 = np.zeros(self.dim, np.float32)
        for segment in self._segments:
            np.maximum(self._peaks, segment.peaks, out=self._peaks)
        self._deleted = not self._alive.all()
        self._workspaces: dict[type, list[_SearchWorkspace]] = {np.uint16: [], np.float32: []}

    def delete(self, positions: I64) -> None:
        """Delete rows by position; positions that were deleted before change nothing."""
        self._alive[positions] = False
        self._deleted = not self._alive.all()

    def search(
        self,
        queries: sp.csr_array | SparseQueries,
        k: int,
        *,
        vectors: F32 | None = None,
        candidates: int = 500,
        terms: int | None = None,
        rerank: int | None = None,
        valid: Mask | None = None,
        cut: float = CUT,
        threads: int = 1,
    ) -> TopK:
        """The best rows for each query.

        Each loop is compiled when it first runs, unless `alula.kernels.warm_up` was called before.

        Args:
            queries: CSR (n, dim), or dimensions and weights of n queries.
            k: Results per query.
            vectors: float32 (n, d): the queries' vectors, needed for exact scores.
            candidates: Rows to take by inner product (R).
            terms: Number of each query's heaviest terms to use; all by default.
            rerank: Number of candidates to score by their vectors: all by default if the index has vectors, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.
            cut: A posting list is left where query weight times impact falls under this share of the query's largest
                such product; 0 reads all lists to their ends. Where nothing is re-ranked all are.
            threads: Number of threads to divide the queries among.

        Returns:
            Positions and scores: exact, or inner products of the sparse rows, summed up in float32, when nothing is
            re-ranked.

        Raises:
            DataError: If the queries have another number of dimensions, or a weight that is negative or not a number,
                or `valid` another length.
        """
        queries = _CsrQueries(queries, self.dim) if isinstance(queries, sp.csr_array) else queries
        found = TopK.empty(len(queries), k)
        exact = None
        if self.vectors is not None and vectors is not None and rerank != 0:
            exact = np.ascontiguousarray(vectors, np.float32)
        wanted = max(candidates, k)
        if rerank:
            wanted = min(wanted, max(rerank, k))
        may = self._may_be_found(valid)

        def search_some(numbers: range) -> None:
            for i in numbers:
                dims, weights = queries[i]
                if len(dims) > (terms or MAX_TERMS):
                    dims, weights = _heaviest(dims, weights, terms or MAX_TERMS)
                positions, scores = found.positions[i], found.scores[i]
                if exact is None:
                    self._find_by_weights(dims, weights, may, positions, scores)
                else:
                    self._find(dims, weights, cut, may, wanted, exact[i], positions, scores)

        if threads == 1:
            search_some(range(len(queries)))
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(search_some, (range(i, len(queries), threads) for i in range(threads))))
        return found

    def _may_be_found(self, valid: Mask | None) -> Mask:
        """Combine the mask with the deleted rows; an empty array lets all be found."""
        if valid is None:
            return self._alive if self._deleted else NO_MASK
        check_mask(valid, len(self))
        return valid & self._alive if self._deleted else np.ascontiguousarray(valid)

    def _find(  # noqa: PLR0917 (called for each query, and keywords cost time)
        self,
        dims: I64,
        weights: F32,
        cut: float,
        valid: Mask,
        candidates: int,
        vector: F32,
        positions: I64,
        scores: F32,
    ) -> None:
        """Find candidates by quantised sums and rank them by their vectors."""
        assert self.vectors is not None  # noqa: S101 (for the type checker)
        workspace = self._take_workspace(np.uint16, candidates)
        size = 0
        for segment in self._segments:
            size = self._loops.collect(
                *segment.by_impact, dims, weights, self._peaks, cut, valid, candidates, *workspace.arrays, size
            )
        self.vectors.rank(vector, workspace.found[:size], positions, scores)
        self._workspaces[np.uint16].append(workspace)

    def _find_by_weights(self, dims: I64, weights: F32, valid: Mask, positions: I64, scores: F32) -> None:
        """Rank rows by inner product into one query's results."""
        workspace = self._take_workspace(np.float32, len(positions))
        size = 0
        for segment in self._segments:
            size = self._loops.collect_by_weights(
                *segment.by_weight, dims, weights, valid, len(positions), *workspace.arrays, size
            )
        products = workspace.keys[:size].view(np.float32)
        order = top_k(products, size)
        positions[:size], scores[:size] = workspace.found[:size][order], products[order]
        self._workspaces[np.float32].append(workspace)

    def _take_workspace(self, kind: type[np.uint16 | np.float32], count: int) -> _SearchWorkspace:
        # lists of Python: concurrent searches take a workspace each
        rooms = self._workspaces[kind]
        workspace = rooms.pop() if rooms else _SearchWorkspace(kind, count)
        return workspace if workspace.count >= count else _SearchWorkspace(kind, count)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        arrays: dict[str, npt.NDArray[Any]] = {"alive": self._alive}
        for number, segment in enumerate(self._segments):
            arrays |= {f"segment{number}_{name}": array for name, array in segment.arrays.items()}
        if self.vectors is not None:
            arrays |= self.vectors.arrays
        segments = [[segment.first, segment.rows, segment.levels] for segment in self._segments]
        save_arrays(folder, arrays, {"dim": self.dim, "metric": self.metric, "segments": segments})

    @classmethod
    def load(cls, folder: Path) -> InvertedIndex:
        """Map an index written by `save` into memory; nothing is copied.

        Raises:
            DataError: If the folder holds no such index.
        """
        arrays, metadata = load_arrays(folder)
        try:
            index = cls(metadata["dim"], metadata["metric"])
            index.vectors = Vectors.restore(arrays, metadata["metric"])
            index._alive = arrays["alive"].copy()
            for number, (first, rows, levels) in enumerate(metadata["segments"]):
                parts = {name: arrays[f"segment{number}_{name}"] for name in SEGMENT_ARRAYS}
                index._segments.append(Segment(first, rows, levels, **parts))
        except KeyError as error:
            raise DataError(f"The folder {folder} holds no inverted index ({error} is missing).") from None
        index._prepare()
        return index


class _CsrQueries:
    """The rows of a CSR array as dimensions and weights."""

    def __init__(self, rows: sp.csr_array, dim: int) -> None:
        if rows.shape[1] != dim:
            raise DataError(f"The queries have {rows.shape[1]} sparse dimensions, and the index has {dim}.")
        if rows.nnz and not rows.data.min() >= 0:
            raise DataError("A weight of a query is negative or not a number; an inverted index takes those from 0 on.")
        self._dims, self._weights = rows.indices.astype(np.int64), rows.data.astype(np.float32)
        self._ends = rows.indptr.tolist()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> tuple[I64, F32]:
        return self._dims[self._ends[i] : self._ends[i + 1]], self._weights[self._ends[i] : self._ends[i + 1]]


class _SearchWorkspace:
    """Arrays that one search writes to: sums, 0 between searches, and results."""

    def __init__(self, kind: type[np.uint16 | np.float32], count: int) -> None:
        keys = np.uint16 if kind is np.uint16 else np.uint32
        self.count = count
        self.found = np.empty(OVERSAMPLE * count + POSTING_BLOCK + PADDING, np.uint32)
        self.keys = np.empty(OVERSAMPLE * count + POSTING_BLOCK + PADDING, keys)
        self.arrays = (np.zeros(POSTING_BLOCK + PADDING, kind), np.empty(POSTING_BLOCK, keys), self.found, self.keys)


def _heaviest(dims: I64, weights: F32, terms: int) -> tuple[I64, F32]:
    kept = np.argsort(-weights, kind="stable")[:terms]
    return dims[kept], weights[kept]
