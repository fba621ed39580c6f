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
from alula.kernels.exact import top_k
from alula.kernels.inverted_index.postings import BLOCK, SEGMENT_ARRAYS, Segment, build_segment, merge_segments
from alula.kernels.loops import sparse_loops
from alula.kernels.topk import F32, I64, Mask, TopK, check_mask
from alula.kernels.vectors import Vectors, check_vectors

CUT = 0.05  # costs no recall that can be measured, and saves half of the postings where weights differ
MOST_TERMS = 1 << 15  # of a query: each adds at least 1 to sums of 16 bits
MOST = 4  # times as many rows as are wanted may be held at once
PADDING = 64  # loops read and write in steps of so many
EVERY = np.empty(0, np.bool_)


class Queries(Protocol):
    """Sparse queries: the dimensions int64 (t,) and the weights float32 (t,) of each."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[I64, F32]: ...


class InvertedIndex:
    """Sparse rows by dimension; candidates by inner product, ranked by their exact vectors where those are held.

    Rows have positions from 0 in the order they came; a deleted row keeps its position.

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
        """Bool (n,): which positions hold a row that was not deleted."""
        return self._alive

    @property
    def segments(self) -> int:
        """Into how many pieces the posting lists are cut; each costs a search some microseconds."""
        return len(self._segments)

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by what they hold.

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
        """Add rows behind those there are, as a segment.

        A segment is merged with the one before it while that has fewer than twice its rows, so n rows that come one by
        one are in at most 1 + log2(n) segments, and each row is merged at most so many times.

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
        self._rooms: dict[type, list[_Room]] = {np.uint16: [], np.float32: []}

    def delete(self, positions: I64) -> None:
        """Delete rows by position; positions that were deleted before change nothing."""
        self._alive[positions] = False
        self._deleted = not self._alive.all()

    def search(
        self,
        queries: sp.csr_array | Queries,
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
            terms: Use only so many of each query's heaviest terms; all by default.
            rerank: How many candidates to score by their vectors: all by default where vectors are held, 0 for none.
            valid: bool (positions,): only these rows may be found; all by default.
            cut: A posting list is left where query weight times impact falls under this share of the query's largest
                such product; 0 reads all lists to their ends. Where nothing is re-ranked all are.
            threads: Queries are divided among so many threads.

        Returns:
            Positions and scores: exact, or inner products of the sparse rows, summed up in float32, when nothing is
            re-ranked.

        Raises:
            DataError: If the queries have another number of dimensions, or a weight that is negative or not a number,
                or `valid` another length.
        """
        queries = _Rows(queries, self.dim) if isinstance(queries, sp.csr_array) else queries
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
                if len(dims) > (terms or MOST_TERMS):
                    dims, weights = _heaviest(dims, weights, terms or MOST_TERMS)
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
        """Which rows may be found, an empty array for all."""
        if valid is None:
            return self._alive if self._deleted else EVERY
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
        """Candidates by quantised sums, ranked by their vectors, into the arrays of one query's results."""
        assert self.vectors is not None  # noqa: S101 (for the type checker)
        room = self._take_room(np.uint16, candidates)
        size = 0
        for segment in self._segments:
            size = self._loops.collect(
                *segment.by_impact, dims, weights, self._peaks, cut, valid, candidates, *room.arrays, size
            )
        self.vectors.rank(vector, room.found[:size], positions, scores)
        self._rooms[np.uint16].append(room)

    def _find_by_weights(self, dims: I64, weights: F32, valid: Mask, positions: I64, scores: F32) -> None:
        """The rows of the largest inner products, into the arrays of one query's results."""
        room = self._take_room(np.float32, len(positions))
        size = 0
        for segment in self._segments:
            size = self._loops.collect_by_weights(
                *segment.by_weight, dims, weights, valid, len(positions), *room.arrays, size
            )
        products = room.keys[:size].view(np.float32)
        order = top_k(products, size)
        positions[:size], scores[:size] = room.found[:size][order], products[order]
        self._rooms[np.float32].append(room)

    def _take_room(self, kind: type[np.uint16 | np.float32], count: int) -> _Room:
        # lists of Python: threads that search at once each take a room of their own
        rooms = self._rooms[kind]
        room = rooms.pop() if rooms else _Room(kind, count)
        return room if room.count >= count else _Room(kind, count)

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
        """Open what `save` wrote, by memory map: nothing is copied, and what no search reads is not read from disk.

        Raises:
            DataError: If the folder holds no such index.
        """
        arrays, about = load_arrays(folder)
        try:
            index = cls(about["dim"], about["metric"])
            index.vectors = Vectors.restore(arrays, about["metric"])
            index._alive = arrays["alive"].copy()
            for number, (first, rows, levels) in enumerate(about["segments"]):
                parts = {name: arrays[f"segment{number}_{name}"] for name in SEGMENT_ARRAYS}
                index._segments.append(Segment(first, rows, levels, **parts))
        except KeyError as error:
            raise DataError(f"The folder {folder} holds no inverted index ({error} is missing).") from None
        index._prepare()
        return index


class _Rows:
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


class _Room:
    """What one search writes on: sums of a block's rows, 0 between searches, and the rows it finds."""

    def __init__(self, kind: type[np.uint16 | np.float32], count: int) -> None:
        keys = np.uint16 if kind is np.uint16 else np.uint32
        self.count = count
        self.found = np.empty(MOST * count + BLOCK + PADDING, np.uint32)
        self.keys = np.empty(MOST * count + BLOCK + PADDING, keys)
        self.arrays = (np.zeros(BLOCK + PADDING, kind), np.empty(BLOCK, keys), self.found, self.keys)


def _heaviest(dims: I64, weights: F32, terms: int) -> tuple[I64, F32]:
    kept = np.argsort(-weights, kind="stable")[:terms]
    return dims[kept], weights[kept]
