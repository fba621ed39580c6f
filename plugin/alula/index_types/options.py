"""The options of an index type, and the candidates that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alula.encoders import Encoder
from alula.errors import UsageError

MAX_RESULTS = 16384  # Milvus: "top k should be in range [1, 16384]"


@dataclass(frozen=True)
class Sweep:
    """Values of a search option that an evaluation tries.

    Args:
        values: (encoder, the collection's stored settings) -> the values; empty where they change nothing.
        combine: ``alone``: each value with all candidates ranked exactly. ``estimates``: each value without exact
            scores, because it changes the estimate. ``all``: each value with every other setting.
    """

    values: Callable[[Encoder, Mapping[str, Any]], Sequence[int]]
    combine: Literal["alone", "estimates", "all"] = "alone"


@dataclass(frozen=True)
class Option:
    """One parameter of an index type, for creating or for searching a collection.

    Args:
        name: Its name in Python; the command line spells it ``--name`` with dashes.
        value_type: ``int`` or ``str``.
        help: One sentence for ``--help``.
        default: The value when it is not given; None when the index type decides.
        minimum: Least value of an ``int``.
        choices: Allowed values of a ``str``.
        sweep: For search options: the values that an evaluation tries beside the default, if any.
    """

    name: str
    value_type: type[int] | type[str]
    help: str
    default: int | str | None = None
    minimum: int = 1
    choices: tuple[str, ...] = ()
    sweep: Sweep | None = None

    def check(self, value: Any) -> Any:
        """The value, converted.

        Raises:
            UsageError: If it is not of the type, under the minimum or not a choice.
        """
        if value is None:
            return self.default
        if self.value_type is int:
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise UsageError(f"{self.name} is {value!r}, and a whole number is needed.")
            if value < self.minimum:
                raise UsageError(f"{self.name} is {value}, and must be at least {self.minimum}.")
            return int(value)
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name} is {value!r}; choose one of {', '.join(self.choices)}.")
        return str(value)


# Search options of every index type: Alula re-ranks by exact vectors, whichever type found the candidates.
COMMON_SEARCH_OPTIONS = (
    Option(
        "rerank",
        int,
        "Candidates to score by their exact vectors, 0 for none; by default as many as the oversampling says, or all "
        "where the number of candidates is given.",
        minimum=0,
    ),
)
LEAST_RESULTS = 10  # a search for fewer has as many candidates, and finds the first row as surely


def candidate_options(oversample: int) -> tuple[Option, Option]:
    """The search options of an index type that finds candidates to be scored exactly.

    Args:
        oversample: Its default factor; see `candidate_counts`.
    """
    return (
        Option(
            "oversample",
            int,
            f"Candidates to score by their exact vectors for each result ({oversample} by default); a limit below "
            f"{LEAST_RESULTS} counts as {LEAST_RESULTS}.",
        ),
        Option("candidates", int, "Candidates to take from the native index; by default what oversampling needs."),
    )


def exact_count(factor: int, limit: int) -> int:
    """The candidates that an oversampling factor scores exactly for a limit."""
    return factor * max(limit, LEAST_RESULTS)


def candidate_counts(
    options: Mapping[str, Any], limit: int, *, oversample: int, estimated: int = 1
) -> tuple[int, int | None]:
    """The candidates of a search, by the options of `candidate_options`.

    They follow from the limit and not from the offset, so that pages of one size fit together. A number that is given
    follows from neither, so that all pages do; a search for more results ranks more rows in stages.

    Args:
        options: Checked search options.
        limit: Results per query, without the offset.
        oversample: The default of the option.
        estimated: Candidates to take from the native index for each one that is to be scored exactly, where estimates
            rank them better than the native index does.

    Returns:
        The number to take from the native index, and the number to score exactly; None for all.

    Raises:
        UsageError: If the oversampling asks for more than Milvus returns.
    """
    factor, candidates = options["oversample"], options["candidates"]
    if factor is not None and exact_count(factor, limit) > MAX_RESULTS:
        raise UsageError(
            f"oversample is {factor} for {exact_count(1, limit):,} results, and Milvus returns at most {MAX_RESULTS:,} "
            "candidates."
        )
    exact = min(exact_count(factor or oversample, limit), MAX_RESULTS)
    if candidates is not None:
        return candidates, None if factor is None else min(exact, candidates)
    native = min(exact * estimated, MAX_RESULTS)
    return native, None if native == exact else exact


def check_options(declared: Sequence[Option], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Check given options and fill in the defaults of the others.

    Raises:
        UsageError: If an option is unknown or its value wrong.
    """
    unknown = sorted(set(given) - {option.name for option in declared})
    if unknown:
        known = ", ".join(option.name for option in declared) or "none"
        raise UsageError(f"{owner} has no option {', '.join(unknown)}; it has: {known}.")
    return {option.name: option.check(given.get(option.name)) for option in declared}
