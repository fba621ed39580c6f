"""Relevance judgements (qrels), and the measures of a ranking against them.

The measures are those of trec_eval and BEIR: nDCG with the judgement as gain and ``1 / log2(1 + rank)`` as discount,
the reciprocal rank of the first relevant row, and the share of the relevant rows that were found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from alula.errors import DataError

F64 = npt.NDArray[np.float64]
Relevance = Mapping[str, int]  # of the judged rows of one query: key as text -> 0 for not relevant, or more

MEASURES = ("nDCG@10", "MRR@10", "recall@100")
DEPTH = 100  # results per query
_CUT = 10
_RESAMPLES = 2000
_COLUMNS = {3: (0, 1, 2), 4: (0, 2, 3)}  # query, row and judgement in the lines of BEIR and of TREC


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: query -> row -> relevance.

    A line has three columns as in BEIR (query, row, relevance; a first line of names is skipped) or four as in TREC
    (query, any, row, relevance), between tabs, or between blanks if it has no tab.

    Raises:
        DataError: If the file cannot be read, or a line has another form.
    """
    judged: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not a text file in UTF-8; give lines of tab-separated columns.") from None
    for number, line in enumerate(lines, 1):
        words = [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]
        if not any(words):
            continue
        relevance = _whole(words[-1])
        if number == 1 and relevance is None and len(words) in _COLUMNS:
            continue  # the names of the columns
        if relevance is None or len(words) not in _COLUMNS:
            raise DataError(
                f"Line {number} of {path.name} is {line[:60]!r}; a judgement is a query, a row and a whole number, "
                "with tabs between them."
            )
        query, row, _ = (words[i] for i in _COLUMNS[len(words)])
        judged.setdefault(query, {})[row] = relevance
    if not judged:
        raise DataError(f"{path.name} contains no judgements.")
    return judged


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def scores(ranking: Sequence[str], relevance: Relevance) -> tuple[float, float, float]:
    """The `MEASURES` of one query.

    Args:
        ranking: Keys of the rows found, best first, at most `DEPTH`.
        relevance: The judgements of the query, at least one above 0.
    """
    gains = np.array([max(0, relevance.get(key, 0)) for key in ranking[:DEPTH]], np.float64)
    ideal = np.sort([max(0, value) for value in relevance.values()])[::-1][:_CUT].astype(np.float64)
    relevant = np.flatnonzero(gains)
    first = int(relevant[0]) + 1 if len(relevant) else _CUT + 1
    wanted = sum(value > 0 for value in relevance.values())
    return _gain(gains[:_CUT]) / _gain(ideal), 1 / first if first <= _CUT else 0.0, len(relevant) / wanted


def _gain(gains: F64) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: F64, seed: int) -> Interval:
        """The mean of one value per query; the interval by the bootstrap.

        Its ends are percentiles of 2,000 resamples. Of the differences of two systems on the same queries it is that of
        the paired bootstrap (Sakai, SIGIR 2006).
        """
        mean = float(values.mean())
        if len(values) < 2 or np.ptp(values) == 0:
            return cls(mean, mean, mean)
        rng = np.random.default_rng(seed)
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=_RESAMPLES, batch=100, method="percentile", random_state=rng
        ).confidence_interval
        return cls(mean, float(found.low), float(found.high))

    @property
    def signed(self) -> str:
        """A difference in words."""
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"
