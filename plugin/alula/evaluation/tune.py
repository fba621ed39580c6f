"""Find the cheapest setting of a collection's search that reaches a recall, and check it on queries not used for that.

More candidates find more and cost more, so along each way of searching (`alula.evaluation.settings.branches`) the least
number of candidates that reaches the target is found by growing steps and then by halving; a way is left where it costs
more than the best so far. What is left is timed side by side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from alula.collection import Collection
from alula.errors import UsageError
from alula.evaluation.evaluate import searcher, without_defaults
from alula.evaluation.ground_truth import Queries
from alula.evaluation.measure import Point, measure, time_side_by_side
from alula.evaluation.recall import RecallEstimate, Z
from alula.evaluation.settings import Settings, branches, candidates_ladder, show_settings
from alula.progress import Progress, silent

_STEP = 4  # rungs of the ladder to climb at once
_ROUNDS = 60  # searches of each setting that is left, in turn
LEAST = 30
_NOISE = 1.5  # times a median may be off: what takes so much longer than another way is not worth going on with


@dataclass(frozen=True)
class Tuning:
    """What a search of the cheapest setting found.

    Args:
        target: The recall wanted.
        k: Neighbours per query.
        tried: Every setting that was measured, in that order.
        finalists: The cheapest of each way to search that reaches the target, with its median milliseconds when all of
            them were timed side by side, the cheapest first.
        held_out: Recall of the chosen one on queries that nothing was chosen by.
        complete: Whether every way was tried before the time was up.
        seconds: Time that it took.
    """

    target: float
    k: int
    tried: Sequence[Point]
    finalists: Sequence[tuple[Point, float]]
    held_out: RecallEstimate | None
    complete: bool
    seconds: float

    @property
    def chosen(self) -> Point | None:
        """The cheapest setting that reaches the target, if any does."""
        return self.finalists[0][0] if self.finalists else None

    @property
    def best(self) -> Point:
        """The setting with the highest recall."""
        return max(self.tried, key=lambda point: point.recall.value)

    @property
    def held(self) -> bool:
        """Whether the chosen setting reached the target on the held-out queries too."""
        return self.held_out is not None and self.held_out.value >= self.target


def queries_needed(target: float, k: int) -> int:
    """Queries without which not even perfect answers show that the recall reaches the target.

    Wilson's lower bound of n trials that all succeed is n / (n + z^2), and a query is k trials. Fewer than `LEAST` tell
    too little of how much queries differ.
    """
    return max(LEAST, int(Z * Z * target / (1 - target) / k) + 1)


def queries_to_draw(target: float, k: int) -> int:
    """Queries to tune with by default: enough for the target, and for a narrow interval."""
    return max(200, 2 * queries_needed(target, k))


def check_target(target: float, queries: int, k: int) -> None:
    """Raise a `UsageError` when so many queries cannot show a recall."""
    if queries < queries_needed(target, k):
        raise UsageError(
            f"{queries:,} queries cannot show a recall@{k} of {target:g} with 95 % confidence; it takes "
            f"{queries_needed(target, k):,} to choose by, and as many to check the choice: give more by sample=... or "
            "queries=..., a file of them."
        )


def tune(
    collection: Collection,
    tuning: Queries,
    held_out: Queries,
    target: float,
    *,
    rows: int,
    seconds: float,
    progress: Progress = silent,
) -> Tuning:
    """Find the cheapest setting whose recall reaches a target, with 95 % confidence.

    A setting reaches it when the lower end of its recall's confidence interval does; the cheapest is the one with the
    least median time of a search.

    Args:
        collection: The collection.
        tuning: Queries to choose by.
        held_out: Queries to check the choice with.
        target: The recall, between 0 and 1.
        rows: RowSource in the collection.
        seconds: When to stop trying other ways of searching; the first one is finished in any case.
        progress: Told of each setting.

    Raises:
        UsageError: If the target cannot be shown with so many queries.
        ServerError: If Milvus fails.
    """
    check_target(target, len(tuning), tuning.k)
    bench = _Bench(without_defaults(collection), tuning, target, time.monotonic() + seconds, progress)
    started = time.monotonic()
    finalists: list[Point] = []
    names = {option.name for option in collection.index_type.search_options}
    ladder = candidates_ladder(tuning.limit, rows) if "candidates" in names else [None]
    complete = True
    for branch in branches(collection):
        if bench.late and bench.tried:
            complete = False
            break
        limit = min((point.p50 for point in finalists), default=None)
        # to score no fewer candidates exactly than there are is the first way again
        found = bench.least(branch, [c for c in ladder if c is None or c > branch.get("rerank", 0)], limit)
        finalists += [found] if found else []
    searchers = [searcher(bench.collection, point.settings) for point in finalists]
    times = time_side_by_side(searchers, tuning, _ROUNDS)
    ranked = sorted(zip(finalists, times, strict=True), key=lambda entry: entry[1])
    checked = None
    if ranked:
        progress("checking it on held-out queries", 0, None)
        settings = ranked[0][0].settings
        checked = measure(searcher(bench.collection, settings), held_out, settings)[0].recall
    spent = time.monotonic() - started
    return Tuning(target, tuning.k, bench.tried, ranked, checked, complete, spent)


class _Bench:
    """Measures settings, and remembers those that it has measured."""

    def __init__(
        self, collection: Collection, queries: Queries, target: float, deadline: float, progress: Progress
    ) -> None:
        self.collection = collection
        self.tried: list[Point] = []
        self._queries, self._target, self._deadline, self._progress = queries, target, deadline, progress

    @property
    def late(self) -> bool:
        return time.monotonic() > self._deadline

    def _try(self, branch: Settings, candidates: int | None) -> Point:
        settings = branch if candidates is None else {"candidates": candidates, **branch}
        self._progress(f"trying {show_settings(settings)}", len(self.tried), None)
        search = searcher(self.collection, settings)
        point, _ = measure(search, self._queries, settings)
        self.tried.append(point)
        return point

    def least(self, branch: Settings, ladder: Sequence[int | None], limit: float | None) -> Point | None:
        """The point with the fewest candidates of the ladder that reaches the target; None if none does for less.

        Args:
            branch: The rest of the setting.
            ladder: Numbers of candidates, growing.
            limit: Median milliseconds that another way takes already.
        """
        below, at, before = -1, 0, 0.0
        while ladder:
            point = self._try(branch, ladder[at])
            if point.recall.low >= self._target:
                break
            too_dear = limit is not None and point.p50 > _NOISE * limit
            # ranked by short codes, more candidates can mean more mistakes
            worse = point.recall.value <= before
            if at == len(ladder) - 1 or worse or too_dear or (self.late and limit is not None):
                return None
            below, at, before = at, min(at + _STEP, len(ladder) - 1), point.recall.value
        else:
            return None
        while at - below > 1:
            middle = (below + at) // 2
            between = self._try(branch, ladder[middle])
            if between.recall.low >= self._target:
                at, point = middle, between
            else:
                below = middle
        return point
