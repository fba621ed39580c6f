"""Find the fastest search setting that reaches a target recall.

Recall and latency grow with the number of candidates. Within each branch (`alula.evaluation.settings.branches`), the
least number of candidates that reaches the target is found by growing steps and bisection; a branch ends early where it
is slower than the best so far. The finalists are then timed in turns, and the recall of the fastest is checked on
held-out queries.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from alula.collection import Collection
from alula.errors import UsageError
from alula.evaluation.evaluate import searcher, without_defaults
from alula.evaluation.ground_truth import Queries
from alula.evaluation.measure import Point, measure, time_in_turns
from alula.evaluation.recall import RecallEstimate, Z
from alula.evaluation.settings import Settings, branches, candidates_ladder, scored, show_settings
from alula.progress import Progress, silent

_STEP = 4  # entries of the ladder per growing step
_ROUNDS = 60  # timed searches of each finalist
MIN_QUERIES = 30
_NOISE = 1.5  # a branch ends where its median latency exceeds that of the best one by this factor


@dataclass(frozen=True)
class Tuning:
    """The result of tuning.

    Args:
        target: The target recall.
        k: Neighbours per query.
        tried: All measured settings, in order.
        finalists: The fastest setting of each branch that reaches the target, with its median milliseconds when timed
            in turns with the others, the fastest first.
        held_out: Recall of the chosen setting on the held-out queries.
        complete: True if every branch was tried in time.
        seconds: Duration of the tuning.
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
        """The fastest setting that reaches the target; None if no setting does."""
        return self.finalists[0][0] if self.finalists else None

    @property
    def best(self) -> Point:
        """The setting with the highest recall."""
        return max(self.tried, key=lambda point: point.recall.value)

    @property
    def held(self) -> bool:
        """True if the chosen setting reached the target on the held-out queries too."""
        return self.held_out is not None and self.held_out.value >= self.target


@dataclass(frozen=True)
class FastestSettings:
    """All settings that a search for the fastest one tried.

    Args:
        tried: All measured settings, in order.
        finalists: As of `Tuning`.
        complete: True if every branch was tried in time.
    """

    tried: Sequence[Point]
    finalists: Sequence[tuple[Point, float]]
    complete: bool


def queries_needed(target: float, k: int) -> int:
    """The least number of queries that can show a recall of the target.

    Wilson's lower bound of n trials that all succeed is n / (n + z^2), and a query is k trials. With fewer than
    `MIN_QUERIES`, the variance between queries is unknown.
    """
    return max(MIN_QUERIES, int(Z * Z * target / (1 - target) / k) + 1)


def queries_to_draw(target: float, k: int) -> int:
    """The default number of queries: enough for the target and a narrow interval."""
    return max(200, 2 * queries_needed(target, k))


def check_target(target: float, queries: int, k: int) -> None:
    """Raise a `UsageError` if the queries are too few to show the target recall."""
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
    """Find the fastest setting whose recall reaches a target with 95 % confidence.

    A setting reaches it if the lower end of its confidence interval does; the fastest has the least median latency.

    Args:
        collection: The collection.
        tuning: Queries to choose by.
        held_out: Queries to check the choice with.
        target: The recall, between 0 and 1.
        rows: Number of rows in the collection.
        seconds: Time limit after which no further branch begins; the first one is always finished.
        progress: Called with each setting.

    Raises:
        UsageError: If the queries are too few to show the target.
        ServerError: If Milvus fails.
    """
    check_target(target, len(tuning), tuning.k)
    started = time.monotonic()
    search = fastest_settings(collection, tuning, target, rows=rows, seconds=seconds, progress=progress)
    checked = None
    if search.finalists:
        progress("checking it on held-out queries", 0, None)
        settings = search.finalists[0][0].settings
        checked = measure(searcher(without_defaults(collection), settings), held_out, settings)[0].recall
    spent = time.monotonic() - started
    return Tuning(target, tuning.k, search.tried, search.finalists, checked, search.complete, spent)


def fastest_settings(
    collection: Collection, queries: Queries, target: float, *, rows: int, seconds: float, progress: Progress = silent
) -> FastestSettings:
    """Find the fastest setting of each branch that reaches a target.

    The arguments are those of `tune`.

    Raises:
        ServerError: If Milvus fails.
    """
    trials = _Trials(without_defaults(collection), queries, target, time.monotonic() + seconds, progress)
    finalists: list[Point] = []
    names = {option.name for option in collection.index_type.search_options}
    ladder = candidates_ladder(queries.limit, rows) if "candidates" in names else [None]
    complete = True
    for branch in branches(collection):
        if trials.late and trials.tried:
            complete = False
            break
        limit = min((point.p50 for point in finalists), default=None)
        # with fewer candidates all are scored exactly, as in the first branch
        least = scored(branch, queries.limit)
        found = trials.least(branch, [c for c in ladder if c is None or c > least], limit)
        finalists += [found] if found else []
    searchers = [searcher(trials.collection, point.settings) for point in finalists]
    times = time_in_turns(searchers, queries, _ROUNDS)
    ranked = sorted(zip(finalists, times, strict=True), key=lambda entry: entry[1])
    return FastestSettings(trials.tried, ranked, complete)


class _Trials:
    """Measures settings, and records them."""

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
        """Find the fewest candidates that reach the target; None if that is too slow.

        Args:
            branch: The rest of the setting.
            ladder: Ascending numbers of candidates.
            limit: Median milliseconds of the fastest finalist so far.
        """
        below, at, before = -1, 0, 0.0
        while ladder:
            point = self._try(branch, ladder[at])
            if point.recall.low >= self._target:
                break
            too_slow = limit is not None and point.p50 > _NOISE * limit
            # ranked by short codes, more candidates can mean more mistakes
            worse = point.recall.value <= before
            if at == len(ladder) - 1 or worse or too_slow or (self.late and limit is not None):
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
