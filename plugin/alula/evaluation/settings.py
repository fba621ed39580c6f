"""The settings of an index type that an evaluation or tuning tries."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from alula.collection import Collection
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS
from alula.index_types.options import exact_count

Settings = dict[str, Any]
_STEPS = (1, 1.5, 2, 3, 5, 7)  # of candidates, in each power of ten
_OVERSAMPLING = (3, 5, 10)  # exact scores for each result, of more candidates that estimates rank


def show_settings(settings: Mapping[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "no options"


def as_options(settings: Mapping[str, Any]) -> str:
    """A setting as options of ``alula search``."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def given_sweep(collection: Collection, given: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Every combination of the values that the user gave.

    Raises:
        UsageError: If the index type has no such option.
    """
    known = {option.name for option in collection.index_type.all_search_options}
    unknown = sorted(set(given) - known)
    if unknown:
        kind = collection.index_type.name
        raise UsageError(f"{kind} has no search option {', '.join(unknown)}; it has: {', '.join(sorted(known))}.")
    combined = itertools.product(*given.values())
    return [
        {name: value for name, value in zip(given, values, strict=True) if value is not None} for values in combined
    ]


def default_sweep(collection: Collection, limit: int, rows: int) -> list[Settings]:
    """About a dozen settings, from the fastest to the one with the best recall.

    Args:
        collection: The collection.
        limit: Results per query.
        rows: Number of rows in the collection.
    """
    options = {option.name for option in collection.index_type.search_options}
    if "candidates" not in options:
        return [{}]
    most = min(MAX_RESULTS, rows)
    ladder = sorted({min(max(limit, c), most) for c in (limit, 50, 100, 200, 500, 1000, 2000)})
    found: list[Settings] = []
    for branch in branches(collection):
        if "oversample" in branch:
            found.append(branch)
        elif "rerank" not in branch:
            found += [{"candidates": count, **branch} for count in ladder]
        else:  # ranked by estimates alone: one point per code length
            found.append({"candidates": min(most, max(1000, limit)), **branch})
    return found


def branches(collection: Collection) -> list[Settings]:
    """The settings beside `candidates`, which each branch then varies on its own."""
    lowering = collection.lowering
    exact = lowering.field.storage != "dropped"
    swept = {"alone": _swept(collection, "alone"), "estimates": _swept(collection, "estimates")}
    found: list[Settings] = [{}] if exact or not swept["estimates"] else []
    found += swept["alone"]
    if lowering.ranks_candidates and exact:
        found += [{"oversample": factor} for factor in _OVERSAMPLING]
    estimates = swept["estimates"] or ([{}] if lowering.ranks_candidates and exact else [])
    found += [{**setting, "rerank": 0} for setting in estimates]
    everywhere = _swept(collection, "all")
    return [{**branch, **setting} for branch in found for setting in everywhere] if everywhere else found


def _swept(collection: Collection, combine: str) -> list[Settings]:
    """One setting for each value of the options with one `combine`."""
    lowering = collection.lowering
    return [
        {option.name: value}
        for option in collection.index_type.search_options
        if option.sweep is not None and option.sweep.combine == combine
        for value in option.sweep.values(lowering.encoder, lowering.settings)
    ]


def scored(branch: Settings, limit: int) -> int:
    """The exact scores that a branch allows; estimates choose among more candidates."""
    return exact_count(int(branch.get("oversample", 0)), limit)


def candidates_ladder(limit: int, rows: int) -> list[int]:
    """Numbers of candidates, growing by about 1.5, from `limit` to Milvus's maximum."""
    most = min(MAX_RESULTS, rows)
    steps = {int(step * 10**power) for power in range(1, 5) for step in _STEPS}
    return sorted({limit, most, *(step for step in steps if limit < step < most)})
