"""DRQ codes as contenders: any length of one encoder, any share of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.kernels import CodeIndex
from alula.kernels.vectors import Vectors
from benchmarks.speed.data import F32, Data, in_batches, load_data, load_drq
from benchmarks.speed.timing import I64, Contender, K

CANDIDATES = (10, 14, 20, 30, 40, 50, 70, 100, 140, 200, 280, 400, 560, 800, 1_100, 1_500, 2_100, 3_000)
WORDS = (16, 24, 32, 48, 64, 96, 128, None)  # first codewords to visit, of 256; None for all
DEPTH = 100  # rows that a scan finds
ONE = np.ones(1, np.float32)


@dataclass(frozen=True)
class Codes:
    """The rows' codes.

    Args:
        codes: uint8 (n, M).
        norms: float32 (n, M).
        words: float32 (d, 256 M): the scaled codewords; a query's product with them is its look-up table.
        vectors: The rows, to re-rank by.
    """

    codes: npt.NDArray[np.uint8]
    norms: F32
    words: F32
    vectors: Vectors

    def index(self, levels: int) -> CodeIndex:
        """An index of the first levels."""
        index = CodeIndex(levels, "COSINE", lengths=[levels])
        index.add(self.codes[:, :levels], self.norms[:, :levels])
        index.vectors = self.vectors
        return index


@cache
def load_codes(name: str) -> Codes:
    """The codes of a data set's rows."""
    data, encoder = load_data(name), load_drq(name)
    parts = in_batches(encoder.encode_rows, data.rows)
    words = encoder.encode_queries(np.eye(data.rows.shape[1], dtype=np.float32)).lut
    codes, norms = (np.concatenate([getattr(part, field) for part in parts]) for field in ("codes", "norms"))
    vectors = Vectors(data.rows.shape[1], "COSINE")
    vectors.add(data.rows)
    return Codes(codes, norms, words.reshape(len(words), -1), vectors)


class Drq(Contender):
    """Codes of a number of levels; the effort is the number of re-ranked candidates.

    Args:
        data: The searched data.
        codes: Its codes.
        index: The index of the codes.
        visits: First codewords whose rows are visited; all by default.
        encoded: True to build look-up tables before the timed search.
    """

    efforts = CANDIDATES

    def __init__(
        self, data: Data, codes: Codes, index: CodeIndex, visits: int | None = None, *, encoded: bool = False
    ) -> None:
        super().__init__(f"DRQ {8 * index.levels} bit")
        self.visits = visits
        self._index, self._words = index, codes.words[:, : 256 * index.levels]
        self._queries = [data.queries[i : i + 1] for i in range(len(data.queries))]
        self._tables = [self._table(query) for query in range(len(data.queries))] if encoded else None

    def _table(self, query: int) -> F32:
        return (self._queries[query] @ self._words).reshape(1, -1, 256)

    def search(self, query: int, effort: int) -> I64:
        """See `Contender.search`; the best by code where the effort is 0."""
        table = self._table(query) if self._tables is None else self._tables[query]
        options: dict[str, Any] = {"rerank": 0}
        if effort:
            options = {"vectors": self._queries[query], "candidates": effort}
        return self._index.search(table, ONE, K if effort else DEPTH, probes=self.visits, **options).positions[0]
