"""Rankings whose pages fit together.

Candidates come from an approximate index, and the best of 1,000 candidates by exact vectors need not be the best of
2,000. A page that ranked as many candidates as it reads would therefore repeat rows of earlier pages and omit others.
So a ranking grows in stages, which depend on the limit and not on the offset: the first ranks the ``first`` best
candidates, the next twice as many, then four times, eight times, up to the 16,384 rows that Milvus returns, and each
stage appends the rows that the stages before it did not have. Within a stage rows are ordered by score, and by id
where scores are equal. The row at a rank is then the same for every page of that limit. Pages within the first stage
need no other. As in any search of Milvus, rows must not change between two pages, nor a growing segment become a
sealed one while many rows tie.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders.metric import better_is_larger
from alula.index_types import MAX_RESULTS
from alula.kernels import exact_scores
from alula.milvus import Id

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

ROUNDING = 1e-5  # share of the largest score by which two computations of one score may differ


@dataclass(frozen=True)
class RankedIds:
    """The best rows for one query, best first.

    Args:
        ids: Their primary keys.
        scores: float32 (n,): in the user's metric, or estimates.
        exact: True for scores of the exact vectors.
        stages: int64 (n,): the stage that ranked each row, ascending; all in one stage by default.
    """

    ids: Sequence[Id]
    scores: F32
    exact: bool
    stages: I64 | None = None

    @property
    def stage_numbers(self) -> I64:
        """`stages`, or zeros: int64 (n,)."""
        return np.zeros(len(self.ids), np.int64) if self.stages is None else self.stages

    def take(self, positions: Sequence[int]) -> RankedIds:
        """The rows at these positions."""
        at = np.asarray(positions, np.int64)
        return RankedIds([self.ids[i] for i in positions], self.scores[at], self.exact, self.stage_numbers[at])

    def page(self, start: int, count: int) -> RankedIds:
        """The rows from one rank on."""
        part = slice(start, start + count)
        return RankedIds(self.ids[part], self.scores[part], self.exact, self.stage_numbers[part])

    def restricted_to(self, ids: Container[Id]) -> RankedIds:
        """Keep only the given ids."""
        return self.take([i for i, id_ in enumerate(self.ids) if id_ in ids])

    def last_stage(self) -> RankedIds:
        """The rows of the last stage."""
        stages = self.stage_numbers
        return self.page(int(np.searchsorted(stages, stages[-1])), len(stages)) if len(stages) else self

    def followed_by(self, found: RankedIds, stage: int) -> RankedIds:
        """Append the rows of a further stage that are not among these."""
        if not len(self.ids):
            return RankedIds(found.ids, found.scores, found.exact, np.full(len(found.ids), stage, np.int64))
        seen = set(self.ids)
        new = found.take([i for i, id_ in enumerate(found.ids) if id_ not in seen])
        stages = np.concatenate([self.stage_numbers, np.full(len(new.ids), stage, np.int64)])
        return RankedIds([*self.ids, *new.ids], np.concatenate([self.scores, new.scores]), self.exact, stages)

    def rescored(self, query: F32, vectors: F32, metric: str) -> RankedIds:
        """Re-score with freshly read vectors; only rows with changed vectors move.

        Args:
            query: float32 (d,).
            vectors: float32 (n, d), in the order of the rows.
            metric: The user's.
        """
        scores = exact_scores(query, vectors, metric)
        tolerance = ROUNDING * float(np.abs(scores).max(initial=0))
        changed = np.abs(scores - self.scores) > tolerance
        if not changed.any():
            return self
        scores = np.where(changed, scores, self.scores)
        keys, stages = (-scores if better_is_larger(metric) else scores).tolist(), self.stage_numbers.tolist()
        order: list[int] = sorted(range(len(keys)), key=lambda i: (stages[i], keys[i], self.ids[i]))
        return RankedIds([self.ids[i] for i in order], scores[order], self.exact, self.stage_numbers[order])


def best_first(ids: Sequence[Id], scores: F32, count: int, *, larger: bool, exact: bool) -> RankedIds:
    """The rows of the best scores, by id where scores are equal.

    Args:
        ids: Rows.
        scores: float32 (n,): their scores.
        count: Rows to return at most.
        larger: True if larger scores are better.
        exact: See `RankedIds`.
    """
    keys = -scores if larger else scores
    kept = np.arange(len(keys))
    if count < len(keys):
        kept = np.flatnonzero(keys <= np.partition(keys, count - 1)[count - 1])
    order = kept[np.argsort(keys[kept], kind="stable")]
    if (np.diff(keys[order]) == 0).any():
        values: list[float] = keys.tolist()
        order = np.array(sorted(order.tolist(), key=lambda i: (values[i], ids[i])))
    order = order[:count]
    return RankedIds([ids[i] for i in order.tolist()], scores[order], exact)


def stage_depths(first: int, wanted: int) -> list[int]:
    """The number of rows that each stage ranks, up to the wanted number."""
    depths = [min(first, MAX_RESULTS)]
    while depths[-1] < min(wanted, MAX_RESULTS):
        depths.append(min(2 * depths[-1], MAX_RESULTS))
    return depths


def rank_in_stages(
    search: Callable[[Sequence[int], int], Sequence[RankedIds]],
    queries: int,
    depths: Sequence[int],
    enough: Callable[[int, RankedIds], bool],
) -> list[RankedIds]:
    """Rank rows stage by stage until each query has enough, or there are no more.

    Args:
        search: Ranks the rows of some queries, given by number, from a number of candidates on: as many rows, or all
            there are.
        queries: The number of queries.
        depths: `stage_depths`.
        enough: Decides by the number and the ranking of a query if it is long enough.
    """
    ranked = [RankedIds([], np.empty(0, np.float32), exact=False)] * queries
    numbers = list(range(queries))
    for stage, depth in enumerate(depths):
        found = search(numbers, depth)
        for number, one in zip(numbers, found, strict=True):
            ranked[number] = ranked[number].followed_by(one, stage)
        more = [number for number, one in zip(numbers, found, strict=True) if len(one.ids) >= depth]
        numbers = [number for number in more if not enough(number, ranked[number])]
        if not numbers:
            break
    return ranked


def all_scores(ranked: Sequence[RankedIds]) -> F32:
    """The scores of all queries' rows, one query behind another: float32 (n,)."""
    return np.concatenate([np.empty(0, np.float32), *(one.scores for one in ranked)])


def all_ids(ranked: Sequence[RankedIds]) -> list[Any]:
    """The ids of all queries' rows, one query behind another."""
    return [id_ for one in ranked for id_ in one.ids]
